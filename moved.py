"""Old names of modules: they go on working for one release, and each warns once.

`moved.json` beside this file holds two tables. `modules` gives modules that are gone, and where
most of each is now. `names` gives what else went elsewhere, by the module that had it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, cast

_TOP = __name__.rpartition(".")[0] + "."
_warned: set[str] = set()


def serve_old_names() -> None:
    """Let imports find what has moved; called once, when the package is imported."""
    sys.meta_path.insert(0, _Finder())


@functools.cache
def moved_modules() -> dict[str, str]:
    """Return the new name of each module that is gone, without the package's own name."""
    modules: dict[str, str] = _table()["modules"]
    return modules


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    return table


class _Finder(MetaPathFinder, Loader):
    """Finds modules that are gone, and completes those that lost some of their names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_TOP):
            return None
        old = fullname.removeprefix(_TOP)
        modules = moved_modules()
        if old in modules:
            is_package = any(other.startswith(f"{old}.") for other in modules)
            return ModuleSpec(fullname, self, is_package=is_package)
        lost_names = old in _table()["names"]
        spec = PathFinder.find_spec(fullname, path, target) if lost_names else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_complete(module: ModuleType) -> None:
                run(module)
                _complete(module, old)

            spec.loader.exec_module = run_and_complete  # type: ignore[method-assign]
        return spec

    def get_code(self, fullname: str) -> Any:
        """Return the code that `python -m` runs."""
        name = _TOP + moved_modules()[fullname.removeprefix(_TOP)]
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        return cast(InspectLoader, spec.loader).get_code(name)

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.removeprefix(_TOP)
        homes = [new.rpartition(".")[0] for new in _table()["names"].get(old, {}).values()]
        _warn(old, *dict.fromkeys([moved_modules()[old], *homes]))
        _complete(module, old)


def _complete(module: ModuleType, old: str) -> None:
    """Give a module the names that were in the old one."""
    gone = moved_modules().get(old)
    names: dict[str, str] = _table()["names"].get(old, {})

    def get(name: str) -> Any:
        if name.startswith("__") or (gone is None and name not in names):
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        home, _, new = names.get(name, f"{gone}.{name}").rpartition(".")
        if gone is None or new != name:  # the import of a module that is gone has warned
            _warn(f"{old}.{name}", f"{home}.{new}")
        return getattr(import_module(_TOP + home), new)

    module.__getattr__ = get  # type: ignore[method-assign]


def _warn(old: str, *new: str) -> None:
    if old not in _warned:
        _warned.add(old)
        places = " and ".join(_TOP + place for place in new)
        text = f"{_TOP}{old} is now {places}; the old name goes with the next release"
        warnings.warn(text, FutureWarning, stacklevel=3)
