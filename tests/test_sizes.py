"""Limits on how large things grow: parameters, functions, files, and what stands twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("pipeline", "model", "cli", "configs")
Function = ast.FunctionDef | ast.AsyncFunctionDef

MOST_PARAMETERS = 8
MOST_LINES = 450
LONG, LONGEST, MOST_LONG = 100, 130, 2
REPEATED = 10


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def parameters(function: Function) -> list[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    packed = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [one.arg for one in (*named, *packed) if one.arg not in ("self", "cls")]


def test_functions_of_the_pipeline_take_few_parameters() -> None:
    many = {
        f"{path.relative_to(ROOT)}:{function.name}": len(parameters(function))
        for path in sources("pipeline")
        for function in functions(path)
        if len(parameters(function)) > MOST_PARAMETERS
    }
    # The reference document's own signature.
    assert set(many) <= {"pipeline/spikes/reference.py:voxelize"}, many


def test_functions_of_the_pipeline_are_short() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{function.name}": function.end_lineno - function.lineno + 1
        for path in sources("pipeline")
        for function in functions(path)
        if function.end_lineno is not None
    }
    long = {name: lines for name, lines in lengths.items() if lines > LONG}
    assert len(long) <= MOST_LONG, long
    assert max(lengths.values()) <= LONGEST, long


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_read_in_one_sitting(folder: str) -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(folder)
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def test_files_of_tests_are_of_one_behaviour_each() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "tests/support").glob("*.py")]
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines that are neither docstring, comment, import nor signature."""
    text = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, Function):
            left_out.update(range(node.lineno, node.body[0].lineno))
    return [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#") and number not in left_out
    ]


def test_nothing_of_ten_lines_stands_twice() -> None:
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in sources("cli", "pipeline"):
        lines = code_lines(path)
        for i in range(len(lines) - REPEATED + 1):
            run = tuple(line for _, line in lines[i : i + REPEATED])
            places[run].append(f"{path.relative_to(ROOT)}:{lines[i][0]}")
    assert [where for where in places.values() if len(where) > 1] == []


def test_no_docstring_or_comment_begins_without_a_subject() -> None:
    riddles = []
    for path in sources(*FOLDERS, "third_party"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.strip().removeprefix("r").removeprefix('"""').removeprefix("# ")
            if words != line.strip() and words.startswith("Of "):
                riddles.append(f"{path.relative_to(ROOT)}:{number}")
    assert riddles == []
