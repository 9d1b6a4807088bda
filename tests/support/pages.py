"""Pages of the documentation, and their commands and examples as a reader types them.

`python tests/support/pages.py docs/tutorial.md ...` runs the commands of pages as they are, in a
folder of its own, and writes what they print below them, where a page has a `text` block there.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
import tempfile
from pathlib import Path

from spikedeblur.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^```bash\n(.*?)^```\n+```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""Commands, and what they print."""

SMALLER = (
    (r"--scenes \d+ --split (train|val)", r"--scenes 1 --split \1"),
    (r"--size \d+x\d+", "--size 64x64"),
    (r"MAX_STEPS=\d\b", "MAX_STEPS=2"),
    (r"MAX_STEPS=\d{2,}", "MAX_STEPS=3"),  # longer than the former, where a run goes on
    (r"--steps \d+", "--steps 2"),
    (r"^(spikedeblur voxelize .*|spikedeblur simulate (?!.*--rig).*)$", r"\1 --workers 1"),
)
"""The same commands on less data; nothing else of a page is changed."""

_MOST_LINES, _FIRST, _LAST = 14, 9, 2
_LEFT_OUT = "..."


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return the language and text of a page's blocks in these languages."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages]


def run_page(page: Path) -> None:
    """Run all commands and examples of a page, in order, in the working folder.

    What the page says that its commands print is printed, but for numbers; a line that more data
    makes longer may be shorter.
    """
    shown = dict(SHOWN.findall(page.read_text(encoding="utf-8")))
    for language, text in blocks(page, "bash", "python"):
        if language == "python":
            exec(compile(text, f"{page.name} (python)", "exec"), {"__name__": "example"})
            continue
        printed = "".join(run_line(line, SMALLER) for line in text.splitlines())
        print(printed)
        said = ("", *filter(None, (_words(line) for line in printed.splitlines())))
        for line in shown.get(text, "").splitlines():
            as_printed = _words(line) in said or _words(line).startswith(said[1:])
            assert line == _LEFT_OUT or as_printed, f"{page.name}: not printed: {line}"


def run_line(line: str, changes: tuple[tuple[str, str], ...] = ()) -> str:
    """Run one of our commands as a page has it, but for changes.

    Returns:
        Its warnings, and below them what it prints; neither progress nor notes.
    """
    for pattern, other in changes:
        line = re.sub(pattern, other, line)
    name, *arguments = shlex.split(line)
    assert name == "spikedeblur", "only our own commands are in bash blocks"
    printed, beside = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(beside):
        status = main(arguments)
    assert status == 0, f"{line}: {beside.getvalue()}"
    warnings = re.findall(r"^warning: .*\n", beside.getvalue(), re.MULTILINE)
    return "".join(warnings) + printed.getvalue()


def _words(line: str) -> str:
    """Return a line with numbers, and words that hold some, replaced, and without plurals."""
    words = [re.sub(r"s\b", "", word) for word in line.split() if not set(word) <= {"─"}]
    return " ".join("#" if re.search(r"\d", word) or word == "-" else word for word in words)


def write_output(page: Path) -> None:
    """Run a page's commands as they are, and put what they print in the blocks below them."""
    page = page.resolve()
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for commands in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            output = "".join(_shortened(run_line(line)) for line in commands.splitlines())
            before = f"```bash\n{commands}```\n"
            old = re.compile(
                re.escape(before) + r"(\n*)```text\n.*?^```$", re.MULTILINE | re.DOTALL
            )
            text = old.sub(lambda m: f"{before}{m[1]}```text\n{output}```", text)  # noqa: B023
            page.write_text(text, encoding="utf-8")


def _shortened(printed: str) -> str:
    """Return what a command printed without its time, and without the middle if it is long."""
    lines = [line.rstrip() for line in printed.splitlines() if not line.startswith("Took ")]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_FIRST], _LEFT_OUT, *lines[-_LAST:]]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_output(Path(name))
