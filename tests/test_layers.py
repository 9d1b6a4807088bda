"""Imports of the pipeline go round in no circle, and each of its folders has a layer."""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib
from pathlib import Path


def modules_of(repository: Path) -> dict[str, Path]:
    found = {}
    for path in (repository / "pipeline").rglob("*.py"):
        parts = path.relative_to(repository).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules that one names: inside functions and for type checkers too."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        above = package[: len(package) - node.level + 1]
        base = ".".join([*above, *(node.module.split(".") if node.module else ())])
        for alias in node.names:
            below = f"{base}.{alias.name}"
            found.add(below if below in modules else base)
    return found & modules.keys()


def test_imports_go_round_in_no_circle(repository):
    modules = modules_of(repository)
    graph = {name: imports_of(name, path, modules) for name, path in modules.items()}
    assert sum(len(imported) for imported in graph.values()) > 300, "imports are relative"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_a_circle_would_be_found(tmp_path):
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from .b import x\n")
    (folder / "b.py").write_text("def late():\n    from . import a\n")
    modules = modules_of(tmp_path)
    assert imports_of("pipeline.a", folder / "a.py", modules) == {"pipeline.b"}
    assert imports_of("pipeline.b", folder / "b.py", modules) == {"pipeline.a"}


def test_every_folder_has_a_layer(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [c for c in settings["tool"]["importlinter"]["contracts"] if "layers" in c]
    layered = set(re.findall(r"spikedeblur\.pipeline\.(\w+)", " ".join(contract["layers"])))
    there = {name.split(".")[1] for name in modules_of(repository) if "." in name}
    assert there <= layered


def test_the_page_on_architecture_says_what_every_layer_promises(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [c for c in settings["tool"]["importlinter"]["contracts"] if "layers" in c]
    layers = [
        name.removeprefix("spikedeblur.").replace(".", "/")
        for line in contract["layers"]
        for name in line.split(" | ")
    ]
    page = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    table = page.partition("| layer | promises |")[2].partition("\n\n")[0]
    rows = ", ".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    assert [
        name for name in layers if not re.search(rf"{name.split('/')[-1]}(/|\.py)`", rows)
    ] == []
