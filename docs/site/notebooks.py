"""Notebooks as pages: their cells are run, and their output stands below them.

Notebooks are stored without output, so that a change of one shows in a diff. Cells are Python
alone: what is displayed is the value of the last line, as in Jupyter.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any


def page(notebook: Path) -> str:
    """Run a notebook in a folder of its own, and return it with its output as Markdown."""
    parts = []
    for kind, source, output in run(notebook):
        parts.append(source if kind == "markdown" else f"```python\n{source}\n```")
        parts += output
    return "\n\n".join(parts) + "\n"


def run(notebook: Path) -> list[tuple[str, str, list[str]]]:
    """Return each cell's kind, source and output, the latter as Markdown; errors are raised."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells: list[tuple[str, str, list[str]]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
            source = "".join(cell["source"])
            output = []
            if cell["cell_type"] == "code":
                output = _run_cell(source, names, f"{notebook.name}, cell {number}")
            cells.append((cell["cell_type"], source, output))
    return cells


def _run_cell(source: str, names: dict[str, Any], where: str) -> list[str]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    output = []
    if text := printed.getvalue().rstrip():
        output.append(f"```text\n{text}\n```")
    if hasattr(value, "_repr_png_"):
        encoded = base64.b64encode(value._repr_png_()).decode()
        output.append(f'<img class="wide" alt="" src="data:image/png;base64,{encoded}">')
    elif value is not None:
        output.append(f"```text\n{value!r}\n```")
    return output
