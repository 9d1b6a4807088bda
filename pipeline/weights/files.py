"""Where a run keeps its weights; needs no torch, so that a wrong path is reported at once."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import SpikeDeblurError

FOLDER = "checkpoints"


class CheckpointError(SpikeDeblurError):
    """A checkpoint is missing, can't be read or written, or does not fit."""


def checkpoint_path(run: str | os.PathLike[str], which: str) -> Path:
    """Return the path of a run's `last` or `best` checkpoint."""
    return Path(run) / FOLDER / f"{which}.pt"


def find_checkpoint(run: str | os.PathLike[str], which: str = "best") -> Path:
    """Return the path of a run's checkpoint.

    Raises:
        CheckpointError: it is not there; names those that are.
    """
    path = checkpoint_path(run, which)
    if not Path(run).is_dir():
        raise CheckpointError(
            f"{run}: expected a run folder that `spikedeblur train` wrote, found none; "
            "check the path"
        )
    if not path.is_file():
        names = [name for name in ("best.pt", "last.pt") if path.with_name(name).is_file()]
        raise CheckpointError(
            f"{path}: expected a checkpoint, found {', '.join(names) or 'none in this run'}; "
            "check the run folder, or train it first"
        )
    return path
