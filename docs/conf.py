"""Sphinx: Markdown pages as they are, reference pages and figures made from the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "site"))

import figures  # noqa: E402
import notebooks  # noqa: E402
import references  # noqa: E402

import spikedeblur  # noqa: E402

project = "spikedeblur"
version = release = spikedeblur.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["site", "**.ipynb"]

smartquotes = False  # -- is an option's beginning

html_theme = "furo"
html_title = f"spikedeblur {release}"
html_static_path = ["site"]
html_css_files = ["style.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
suppress_warnings = ["myst.header"]  # generated pages begin sections where they need them
copybutton_prompt_text = "$ "
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

_FIGURE = re.compile(r"^<!-- figure: (\w+) -->$", re.MULTILINE)


def _write_pages(app: Any) -> None:
    """Write the pages that are made from the code, where they changed."""
    pages = {
        "reference/commands.md": references.commands(),
        "reference/config.md": references.config(),
    }
    for notebook in sorted((HERE / "examples").glob("*.ipynb")):
        pages[f"examples/{notebook.stem}.md"] = notebooks.page(notebook)
    for name, content in pages.items():
        path = HERE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def _draw(app: Any, docname: str, source: list[str]) -> None:
    """Put the figures in their places."""
    source[0] = _FIGURE.sub(lambda match: figures.FIGURES[match[1]](), source[0])


_prose: dict[str, list[str]] = {}


def _keep_prose(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Remember an attribute's docstring: napoleon takes what is before a colon for its type."""
    if what == "attribute":
        _prose[name] = list(lines)


def _put_prose(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put it back."""
    if name in _prose:
        lines[:] = _prose.pop(name)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _draw)
    app.connect("autodoc-process-docstring", _keep_prose, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", _put_prose, priority=600)
