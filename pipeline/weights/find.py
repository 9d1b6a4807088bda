"""Where weights are: the name of a shipped model, a file, a run folder, or one of these at a URL.

Needs no torch, so that a wrong name is reported at once.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .exported import SUFFIX, TrainedModelError, describe_model
from .files import checkpoint_path, find_checkpoint

TORCH_SUFFIXES = (".pt", ".pth")

_fetched: dict[str, tempfile.TemporaryDirectory[str]] = {}
"""Folders with what was fetched from buckets, by URL; they go when this process ends."""

_SHIPPED = Path(__file__).parents[2] / "model" / "trained"


@dataclass(frozen=True, slots=True)
class Init:
    """Weights that a new run starts from, at step 0 and with its own schedule."""

    source: str | os.PathLike[str]
    """Shipped model's name, exported model, run folder (its best weights), checkpoint, or state
    dict in .safetensors, .pt or .pth; a path or a URL."""
    partial: bool = False
    """Take what fits by name and shape, and list what is left out; else all must fit."""

    @classmethod
    def of(cls, init: Init | str | os.PathLike[str]) -> Init:
        """Return `init`, or the whole weights of a source."""
        return init if isinstance(init, Init) else cls(init)


def find_model(name: str | os.PathLike[str]) -> Path:
    """Return the file of an exported model: by its path or URL, or by the name of a shipped one.

    Raises:
        TrainedModelError: there is none; the message names the models that ship.
    """
    path = shipped().get(str(name)) or fetched(name)
    if path.suffix == SUFFIX and path.is_file():
        return path
    near = difflib.get_close_matches(str(name), shipped(), n=1)
    raise TrainedModelError(
        f"{name}: expected a model that ships ({shipped_names()}) or a file that `spikedeblur "
        f"export` wrote (*{SUFFIX}), found none of that name; "
        + (f"did you mean {near[0]}?" if near else "for a run folder give --run")
    )


def shipped() -> dict[str, Path]:
    """Return the files of the models that ship, by name."""
    return {file.stem: file for file in sorted(_SHIPPED.glob(f"*{SUFFIX}"))}


def shipped_names() -> str:
    """Return the names of the models that ship, for a message."""
    return ", ".join(shipped()) or "none here"


def fetched(source: str | os.PathLike[str], suffixes: tuple[str, ...] = (SUFFIX,)) -> Path:
    """Return the path of a run folder or a file of weights; of one at a URL, once it is fetched.

    Only `config.yaml` and the best weights of a run are fetched.

    Args:
        source: path or URL.
        suffixes: endings of a URL that is a file.

    Raises:
        TrainedModelError: neither is at the URL.
        StoreError: the URL or the bucket can't be used.
    """
    from ..storage.fetch import fetch
    from ..storage.locate import local_path, open_storage

    path, text = local_path(source), os.fspath(source)
    if path is not None:
        return path
    storage = open_storage(text)
    if text.endswith(suffixes):
        above, _, name = text.rpartition("/")
        storage, keys = open_storage(above), [name]
    else:
        name, keys = "", ["config.yaml", checkpoint_path("", "best").as_posix()]
    if text not in _fetched:
        missing = [key for key in keys if storage.size(key) is None]
        if missing:
            raise TrainedModelError(
                f"{text}: expected a run folder or an exported model (*{SUFFIX}), found no "
                f"{' and no '.join(missing)}; correct the URL, or copy all of it there"
            )
        folder = tempfile.TemporaryDirectory()
        fetch(storage, keys, Path(folder.name))
        _fetched[text] = folder
    return Path(_fetched[text].name, name)


def located(source: str | os.PathLike[str], suffixes: tuple[str, ...] = (SUFFIX,)) -> Path:
    """Return the run folder or file of weights; a folder goes before a shipped model's name."""
    path = fetched(source, suffixes)
    return path if path.is_dir() else shipped().get(str(source), path)


def weights_file(source: str | os.PathLike[str]) -> Path:
    """Return the file that the weights of a trained model are in, named as for `load_trained`."""
    path = located(source)
    return path if path.suffix == SUFFIX else checkpoint_path(path, "best")


def find_initial(source: str | os.PathLike[str]) -> Path:
    """Return the file with the weights that a run is to start from, named as for `Init`.

    Raises:
        TrainedModelError: there is none; the message names the models that ship.
        CheckpointError: the run has no best checkpoint.
        StoreError: the URL or the bucket can't be used.
    """
    path = located(source, (SUFFIX, *TORCH_SUFFIXES))
    if path.is_dir():
        return find_checkpoint(path)
    if not path.is_file() or path.suffix not in (SUFFIX, *TORCH_SUFFIXES):
        raise TrainedModelError(
            f"--init: {source}: expected a model that ships ({shipped_names()}), a run folder or "
            f"a file of weights ({', '.join((SUFFIX, *TORCH_SUFFIXES))}), found none of that "
            "name and ending; check the path"
        )
    return path


def require_trained(source: Path) -> Path:
    """Return a run folder or an exported model, once its weights are there.

    Raises:
        CheckpointError: the run has no best checkpoint.
        TrainedModelError: no such file, or not an exported model.
    """
    if source.suffix == SUFFIX:
        describe_model(source)
    else:
        find_checkpoint(source)
    return source


def source_name(source: str | os.PathLike[str]) -> str:
    """Return the name of a model in products: that of a shipped one, else its path or URL."""
    path = Path(source)
    for url, folder in _fetched.items():
        if path.is_relative_to(folder.name):
            return url
    return path.stem if path.parent == _SHIPPED else os.fspath(source)
