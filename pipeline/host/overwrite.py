"""May a product be written here? One check for every command that writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ...errors import SpikeDeblurError
from .files import StrPath


class OverwriteError(SpikeDeblurError):
    """A file or folder is in the way of a product."""


def require_free(
    path: StrPath,
    *,
    overwrite: bool,
    is_ours: Callable[[Path], bool] = lambda path: False,
    what: str = "",
) -> None:
    """Refuse to write a file over something that is not the caller's to replace.

    Args:
        path: the file to write.
        overwrite: the user allows any file to be replaced.
        is_ours: tells whether an existing file is a former product, which is replaced without
            `overwrite`; an `OSError` or `ValueError` means that it is not.
        what: name of the product with its article, for the message: "an evaluation".

    Raises:
        OverwriteError: a folder has that name, or a file that may not be replaced.
    """
    path = Path(path)
    if path.is_dir():
        raise OverwriteError(f"{path}: expected a file's name, found a folder; choose another name")
    if overwrite or not os.path.lexists(path):
        return
    try:
        if is_ours(path):
            return
    except (OSError, ValueError):
        pass
    found = f"expected {what} of spikedeblur, found another file" if what else "is there already"
    raise OverwriteError(f"{path}: {found}; choose another name, or give --overwrite")
