"""Pages of the documentation, and their commands and examples as a reader types them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from spikedeblur.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SMALLER = (
    (r"--scenes \d+", "--scenes 1"),
    (r"--size \d+x\d+", "--size 64x64"),
    (r"MAX_STEPS=\d+", "MAX_STEPS=2"),
    (r"--steps \d+", "--steps 2"),
    (r"^(spikedeblur voxelize .*|spikedeblur simulate (?!.*--rig).*)$", r"\1 --workers 1"),
)
"""The same commands on less data; nothing else of a page is changed."""


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return the language and text of a page's blocks in these languages."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages]


def run_page(page: Path) -> None:
    """Run all commands and examples of a page, in order, in the working folder."""
    for language, text in blocks(page, "bash", "python"):
        if language == "python":
            exec(compile(text, f"{page.name} (python)", "exec"), {"__name__": "example"})
            continue
        for line in text.splitlines():
            run_line(line)


def run_line(line: str) -> None:
    """Run one of our commands as a page has it, on less data."""
    for pattern, smaller in SMALLER:
        line = re.sub(pattern, smaller, line)
    name, *arguments = shlex.split(line)
    assert name == "spikedeblur", "only our own commands are in bash blocks"
    assert main(arguments) == 0, line
