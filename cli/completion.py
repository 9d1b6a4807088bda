"""Names that options take: the shell offers them, and others are refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer

LAYOUT_NAMES = ("x4k1000fps", "spk-gopro", "s-vrt-gopro", "s-sdm", "unified", "spikecv")
"""Names of `layouts.LAYOUTS`, which help does not import because that takes time."""

Names = Callable[[], Iterable[str]]
"""Imports what knows the names, and returns them."""


def layouts() -> Iterable[str]:
    """Return the built-in layouts of data sets."""
    return "auto", *LAYOUT_NAMES


def methods() -> Iterable[str]:
    """Return the methods that `evaluate` compares."""
    from ..pipeline.evaluate.job import METHODS

    return METHODS


def restoring_methods() -> Iterable[str]:
    """Return the methods by which `restore` restores."""
    from ..pipeline.methods.make_method import METHODS

    return METHODS


def protocols() -> Iterable[str]:
    """Return the protocols of published tables."""
    from ..pipeline.evaluate.protocols import PROTOCOLS

    return PROTOCOLS


def presets() -> Iterable[str]:
    """Return the presets of spike cameras and data sets."""
    from ..pipeline.spikes.presets import PRESETS

    return PRESETS


def models() -> Iterable[str]:
    """Return the models that ship."""
    from ..pipeline.weights.find import shipped

    return shipped()


def splits() -> Iterable[str]:
    """Return the usual splits of a data set."""
    return "train", "val", "test"


def configurations() -> Iterable[str]:
    """Return the configurations that ship."""
    from ..configs.loading import PACKAGE

    files = sorted((PACKAGE / "configs" / "deblur").glob("*.yaml"))
    return (file.relative_to(PACKAGE).as_posix() for file in files)


def keys() -> Iterable[str]:
    """Return the keys of a configuration, each with the sign that its value follows."""
    from ..configs.loading import key_paths
    from ..configs.schema import Config

    paths = list(key_paths(Config))
    sections = {path.rpartition(".")[0] for path in paths}
    return (f"{path}=" for path in paths if path not in sections)


def offered(names: Names, *, several: bool = False) -> Callable[[str], list[str]]:
    """Return the completion of an option; `several`: names with commas between."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [before + comma + name for name in names() if name.startswith(last)]

    return complete


def one_of(names: Names, *, several: bool = False) -> dict[str, Any]:
    """Return arguments of an option that takes these names only; `several`: with commas between."""

    def check(value: str | None) -> str | None:
        if value is None:
            return None
        known = list(names())
        for word in (part.strip() for part in value.split(",")) if several else (value,):
            if word not in known:
                from .mistakes import did_you_mean

                near = did_you_mean(word, known)
                raise typer.BadParameter(
                    f"expected {', '.join(known[:-1])} or {known[-1]}, got {word}"
                    + (f"; {near}" if near else "")
                )
        return value

    return {"autocompletion": offered(names, several=several), "callback": check}
