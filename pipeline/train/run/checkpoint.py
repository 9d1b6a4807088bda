"""Checkpoints written: a file takes its name only after it was read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .... import __version__
from ...host.files import atomic_write
from ...weights.checkpoint import FORMAT, KEYS, SCHEMA_VERSION, CheckpointError, read_checkpoint


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; it gets its name only after it was read back.

    Raises:
        CheckpointError: it can't be written, or does not read back.
    """
    state = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        **state,
    }
    assert state.keys() == KEYS
    try:
        with atomic_write(path) as file:
            torch.save(state, file)
            file.flush()
            if read_checkpoint(file.path)["step"] != state["step"]:
                raise CheckpointError(f"{file.path}: reads back as another step")
    except (OSError, RuntimeError, CheckpointError) as error:
        raise CheckpointError(
            f"{path}: could not write the checkpoint of step {state['step']} ({error}); the one "
            "before is whole. Make space or repair the disk, then continue with --resume"
        ) from error
