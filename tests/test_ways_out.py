"""What a message or a page tells the reader to type or to open is there, and takes what it says."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

from spikedeblur.cli import app
from spikedeblur.configs.loading import ConfigError, key_paths, load_config
from spikedeblur.configs.schema import Config
from spikedeblur.pipeline.spikes.presets import parse_geometry

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ("cli", "configs", "model", "pipeline", "third_party")
CODE = [*ROOT.glob("*.py"), *(path for room in PACKAGE for path in (ROOT / room).rglob("*.py"))]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
PAGES += [*(ROOT / "scripts").iterdir(), *(ROOT / "configs").rglob("*.yaml")]
MADE = {"docs/reference/commands.md", "docs/reference/config.md"}
"""Pages that are made from the code when the site is built."""

EXAMPLES = {
    "model/tiny.py",
    "pipeline/align/layouts/drone.py",
    "pipeline/methods/median.py",
    "tests/pipeline/methods/test_median.py",
}
"""Files that a page tells how to add."""

GROUP = typer.main.get_command(app)
COMMANDS: dict[str, Any] = dict(GROUP.commands)
NAMED = re.compile(r"(?<![\w{(<,/-])--[a-z][a-z0-9-]*\b(?!-)")
HOLE = "\0"
"""Stands for a value that a message is filled with."""

OTHERS = {
    "docker": {"--build-arg", "--gpus", "--rm", "--shm-size"},
    "torchrun": {"--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-conf", "--rdzv-endpoint"}
    | {"--rdzv-id", "--standalone"},
    "Slurm": {"--cpus-per-task", "--gpus-per-node", "--job-name", "--nodes", "--ntasks-per-node"}
    | {"--open-mode", "--requeue", "--signal", "--time", "--noheader", "--me", "--format"},
    "Dask's worker": {"--dashboard-address", "--no-dashboard", "--lifetime", "--lifetime-stagger"}
    | {"--nthreads", "--nworkers"},
    "aws s3": {"--recursive"},
    "TensorBoard": {"--logdir"},
    "other tools, on pages about them": {"--auto", "--launcher", "--generate-lmdb"},
}
"""Options of other programs that our words name."""

STAGES = {
    "pipeline/adapt": {"adapt"},
    "pipeline/align/check": {"check", "align"},
    "pipeline/align/split.py": {"split"},
    "pipeline/align/layouts": {"align"},
    "pipeline/align/measure/dataset.py": {"align"},
    "pipeline/align/job.py": {"align"},
    "pipeline/align/plan.py": {"align"},
    "pipeline/align/settings.py": {"align"},
    "pipeline/calibrate": {"calibrate"},
    "pipeline/evaluate": {"evaluate"},
    "pipeline/inspect.py": {"inspect"},
    "pipeline/report": {"report"},
    "pipeline/restore": {"restore"},
    "pipeline/simulate": {"simulate"},
    "pipeline/spikes/convert.py": {"convert"},
    "pipeline/train": {"train"},
    "pipeline/view": {"view"},
    "pipeline/voxelize": {"voxelize", "check"},
}
"""Commands of which a part of the package speaks, where a message names none."""

ALL_OF = {
    "pipeline/clocks": {"adapt", "align", "restore"},
    "pipeline/sequences/find_recording.py": {"adapt", "restore"},
    "pipeline/sequences/corrected.py": {"adapt", "evaluate", "restore", "view"},
    "pipeline/sequences/find_seq.py": {"adapt", "restore"},
    "pipeline/sequences/in_time.py": {"adapt", "restore"},
    "pipeline/spikes/settings.py": {"adapt", "align", "restore", "view"},
}
"""Parts that speak to several commands, all of which must take what is suggested."""


class Words(NamedTuple):
    """A text that a user reads, and where it stands."""

    where: str
    text: str

    @property
    def spans(self) -> list[str]:
        """What stands in backticks."""
        return re.findall(r"`([^`\n]+)`", re.sub(r"\s+", " ", self.text))

    @property
    def options(self) -> set[str]:
        """Options that stand anywhere, if not in a diagram or a page's styles."""
        drawn = re.compile(r"-->|[{;]--")
        lines = [line for line in self.text.splitlines() if not drawn.search(line)]
        return set(NAMED.findall("\n".join(lines)))


def joined(node: ast.expr) -> str | None:
    """Return the text of an expression, with `HOLE` for what is filled in; None: it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(joined(part) or HOLE for part in node.values)
    return None


@cache
def messages() -> list[Words]:
    """Return all texts of the package: messages, help and docstrings."""
    found = []
    for path in CODE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in ast.walk(node)
            if part is not node
        }
        for node in ast.walk(tree):
            text = joined(node) if isinstance(node, ast.expr) and id(node) not in parts else None
            if text:
                found.append(Words(f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


@cache
def pages() -> list[Words]:
    """Return what is written in pages, scripts and configurations."""
    return [
        Words(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in PAGES
        if path.is_file() and path.relative_to(ROOT).as_posix() not in MADE
    ]


def options_of(command: Any) -> dict[str, Any]:
    """Return a command's parameters by the options that it takes, the package's own included."""
    return {
        name: parameter
        for holder in (GROUP, command)
        for parameter in holder.params
        for name in (*parameter.opts, *parameter.secondary_opts, "--help", "-h")
        if name.startswith("-")
    }


OPTIONS = {name: options_of(command) for name, command in COMMANDS.items()}


def own_words(line: str) -> list[str]:
    """Return a line of a shell in words, up to a comment, a pipe or another command."""
    line = re.split(r"\s#|\s\|\s|\s>\s|&&", line.removeprefix("$ "))[0].strip()
    try:
        return shlex.split(line)
    except ValueError:
        return []


def typed_lines(words: Words) -> list[list[str]]:
    """Return our command lines in a text, without `spikedeblur`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", words.text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^\s*Example: (.+)$", words.text, re.MULTILINE)
    found = [own_words(line) for line in lines]
    return [line[1:] for line in found if len(line) > 1 and line[0] == "spikedeblur"]


def typed(words: Words) -> list[list[str]]:
    """Return our command lines in a text, and our commands in backticks, with what follows."""
    spans = [own_words(span) for span in words.spans]
    whole = [span[1:] for span in spans if len(span) > 1 and span[0] == "spikedeblur"]
    return typed_lines(words) + whole + [s for s in spans if len(s) > 1 and s[0] in COMMANDS]


def options_in(words: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the options of a command line, each with the word that may be its value."""
    for i, word in enumerate(words):
        if re.match(r"--[a-z]", word):
            name, given, value = word.rstrip(".,;:)").partition("=")
            yield name, value if given else (words[i + 1] if i + 1 < len(words) else None)


def require_value(name: str, option: str, value: str, where: str) -> None:
    """Check that a command's option takes a value that a text suggests."""
    command = COMMANDS[name]
    needed = [p for p in command.params if p.required and option not in p.opts]
    words = [word for p in needed for word in ([p.opts[0]] if p.opts[0][0] == "-" else []) + ["1"]]
    try:
        command.make_context(name, [*words, f"{option}={value}"])
        if option == "--geometry":
            parse_geometry(value)
    except Exception as error:  # Typer's own class, by Typer's version
        pytest.fail(f"{where}: {name} {option} {value}: {error}")


def is_value(word: str | None) -> bool:
    """Whether a word is a value to type, not a name for one, such as DIR or FILE.csv."""
    return bool(word) and not re.search(rf"[A-Z]{{2}}|\.\.\.|[<>|$\[{HOLE}]|^[A-Z]$", str(word))


def test_every_command_that_is_named_exists_and_takes_its_options_with_these_values():
    seen = 0
    for words in [*messages(), *pages()]:
        for name, *rest in typed(words):
            if name.startswith("-") or name in ("COMMAND", "..."):
                continue
            assert name in COMMANDS, f"{words.where}: spikedeblur {name}"
            for option, value in options_in(rest):
                seen += 1
                assert option in OPTIONS[name], f"{words.where}: {name} {option}"
                if is_value(value) and not OPTIONS[name][option].is_flag:
                    require_value(name, option, str(value), words.where)
    assert seen > 300


@pytest.mark.parametrize("page", [words for words in pages() if typed_lines(words)], ids=str)
def test_every_command_line_of_a_page_is_taken_whole(page):
    """Values, arguments that are missing and options that exclude each other are looked at too."""
    for line in typed_lines(page):
        name, *rest = line
        if name in COMMANDS and "..." not in rest:
            COMMANDS[name].make_context(name, rest)


def speakers(words: Words) -> set[str]:
    """Return the commands of which a message may speak: those it names, and its file's, or any."""
    file = words.where.partition(":")[0]
    room = next((room for room in STAGES if file.startswith(room)), "")
    own = Path(file).stem.replace("_", "-")
    named = {name for name in COMMANDS if re.search(rf"\b{name}\b", words.text)}
    if file.startswith("cli/") and own in COMMANDS and not words.text.startswith("--"):
        return named | {own} | ({"restore"} if own == "export" else set())
    return named | STAGES.get(room, set(COMMANDS))


def is_of_another(option: str) -> bool:
    """Whether an option is another program's."""
    return any(option in options for options in OTHERS.values())


def test_every_option_that_a_message_names_is_taken_by_the_command_that_speaks():
    seen = 0
    for words in messages():
        elsewhere = {option for line in typed(words) for option, _ in options_in(line)}
        several = next((ALL_OF[part] for part in ALL_OF if words.where.startswith(part)), set())
        for option in words.options - elsewhere:
            seen += 1
            taken = any(option in OPTIONS[name] for name in speakers(words))
            assert taken or is_of_another(option), f"{words.where}: {option}"
            # To leave out or correct an option, one must have typed it.
            if re.search(rf"(give|add|or|and|with|type|let) {option}\b", words.text):
                lacking = [name for name in several if option not in OPTIONS[name]]
                assert not lacking, f"{words.where}: {option} is unknown to {lacking}"
    assert seen > 250


def test_every_value_that_a_message_suggests_is_taken_by_the_option():
    seen = 0
    for words in messages():
        for option, value in re.findall(
            r"(--[a-z-]+) (-?\d[\w:.,-]*|\d+x\d+[\w=:,-]*)", words.text
        ):
            value = value.rstrip(".,:")
            takers = [name for name in COMMANDS if option in OPTIONS[name]]
            if takers and is_value(value) and not words.text.partition(value)[2].startswith(HOLE):
                seen += 1
                require_value(takers[0], option, value, words.where)
    assert seen > 25


def test_every_next_command_is_one_that_exists_with_its_options():
    """Commands that are put together from words, to be printed after `Next:`."""
    seen = 0
    for path in (ROOT / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and ast.unparse(node.func) == "command_line"
            if not (called or isinstance(node, ast.List)):
                continue
            texts = [joined(part) for part in ast.walk(node) if isinstance(part, ast.expr)]
            texts = [text for text in texts if text]
            if texts and (called or (texts[0] in COMMANDS and texts[1:2] == ["--config"])):
                seen += 1
                # Breadth first, so that a word in front of others that are starred comes late.
                name = next(text for text in texts if text in COMMANDS)
                unknown = [t for t in texts if t.startswith("--") and t not in OPTIONS[name]]
                assert not unknown, f"{path.name}:{node.lineno}: {name} {unknown}"
    assert seen > 10


def test_every_option_on_a_page_is_one_of_ours_or_of_a_program_that_it_is_about():
    known = set().union(*OPTIONS.values())
    of_tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for words in pages():
        if words.where != "Makefile":
            for option in words.options - known:
                ours = f'"{option}"' in of_tests and "tests." in words.text
                assert ours or is_of_another(option), f"{words.where}: {option}"


SECTIONS = re.compile(r"\b(?:DATA|MODEL|TRAIN|LOSS)(?:\.[A-Za-z_0-9]+)+")


def test_every_configuration_key_that_is_named_exists():
    keys = set(key_paths(Config))
    seen = 0
    for words in [*messages(), *pages()]:
        for key in SECTIONS.findall(words.text):
            seen += 1
            fits = key in keys or any(other.startswith(f"{key}.") for other in keys)
            inside = any(key.startswith(f"{other}.") for other in keys)
            assert fits or inside, f"{words.where}: {key}"
    assert seen > 200


def test_every_configuration_value_that_is_named_is_taken():
    """By itself, or with the others of its paragraph, such as a count that two keys hold."""
    seen = 0
    for words in [*messages(), *pages()]:
        for paragraph in re.split(r"\n\s*\n", words.text):
            named = re.findall(rf"({SECTIONS.pattern})=([^\s`;,)\"']+)", paragraph)
            pairs = [f"{key}={value.rstrip('.:')}" for key, value in named if is_value(value)]
            for pair in pairs:
                seen += 1
                try:
                    load_config(ROOT / "configs" / "deblur" / "quickstart.yaml", [pair])
                except ConfigError:
                    load_config(ROOT / "configs" / "deblur" / "quickstart.yaml", pairs)
    assert seen > 20


def test_every_make_target_that_is_named_exists():
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", rules, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", rules, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == targets
    seen = 0
    for words in [*messages(), *pages(), *sources_of_tests()]:
        named = [target for span in words.spans for target in re.findall(r"^make ([a-z-]+)", span)]
        named += re.findall(
            r"^(?:\$ )?make ([a-z-]+)(?:\s+#.*| [A-Z]+=.*)?$", words.text, re.MULTILINE
        )
        seen += len(named)
        assert set(named) <= targets, f"{words.where}: {named}"
    assert seen > 40


@cache
def sources_of_tests() -> list[Words]:
    """Return what tests and benchmarks say of themselves."""
    return [
        Words(path.relative_to(ROOT).as_posix(), ast.get_docstring(ast.parse(text)) or "")
        for path in (ROOT / "tests").rglob("*.py")
        if (text := path.read_text(encoding="utf-8"))
    ]


PLACES = re.compile(
    r"(?<![\w/.*<-])((?:docs|configs|tests|scripts|pipeline|model|cli|third_party)/[\w./-]*\w)"
    r"(?:::(test_\w+))?(?![\w*<{/])"
)


def test_every_file_that_is_named_is_in_the_repository_and_every_test_in_its_file():
    seen = 0
    for words in [*messages(), *pages(), *sources_of_tests()]:
        if words.where == "CHANGELOG.md":  # tells what was
            continue
        for name, test in PLACES.findall(re.sub(r"https?://\S+", "", words.text)):
            seen += 1
            there = (ROOT / name).exists() or name in MADE | EXAMPLES
            assert there or HOLE in words.text.partition(name)[2][:1], f"{words.where}: {name}"
            if test:
                code = (ROOT / name).read_text(encoding="utf-8")
                assert f"def {test}(" in code, f"{words.where}: {name}::{test}"
    assert seen > 150


def test_every_module_that_is_to_be_run_exists():
    seen = 0
    for words in [*messages(), *pages(), *sources_of_tests()]:
        for module in re.findall(r"-m ((?:tests|spikedeblur)[\w.]*\w)", words.text):
            seen += 1
            place = ROOT / module.removeprefix("spikedeblur").strip(".").replace(".", "/")
            runs = place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
            assert runs, f"{words.where}: python -m {module}"
    assert seen > 20
