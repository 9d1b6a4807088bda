"""Checkpoints written: a file takes its name only after it was read back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ....configs import dump_config
from ....model.motion_deblur import BASE
from ...host.files import atomic_write
from ...weights.checkpoint import CHECKPOINT, KEYS, read_checkpoint
from ...weights.files import CheckpointError, checkpoint_path
from ..clock import Clock
from ..session import Session
from ..step import Learner
from .records import Position


class Checkpoints:
    """A run's checkpoints `last` and `best`; only the first process writes them."""

    def __init__(self, session: Session, learner: Learner, at: Position, clock: Clock) -> None:
        self._session, self._learner = session, learner
        self._at, self._clock = at, clock
        self._written = None if session.state is None else (at.step, at.validated_step)

    def write_if_due(self, *, now: bool) -> None:
        """Write `last` every TRAIN.SAVE_INTERVAL steps, or `now`, unless it has this position."""
        step = self._at.step
        position = (step, self._at.validated_step)
        due = now or (step > 0 and step % self._session.config.TRAIN.SAVE_INTERVAL == 0)
        if due and position != self._written:
            self._clock.start("saving")
            self.write("last")
            self._written = position

    def write(self, which: str) -> None:
        """Write `last` or `best`."""
        session = self._session
        if not session.group.is_first:
            return
        epoch, step_in_epoch = divmod(self._at.step, session.plan.steps_an_epoch)
        state = {
            "config": dump_config(session.config),
            "data": session.data["sha256"],
            "samples_a_step": session.plan.samples_a_step,
            "total_steps": session.steps,
            "epoch": epoch,
            "step_in_epoch": step_in_epoch,
            **asdict(self._at),
            **self._learner.state(),
        }
        write_checkpoint(checkpoint_path(session.run, which), state)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; it gets its name only after it was read back.

    Raises:
        CheckpointError: it can't be written, or does not read back.
    """
    state = CHECKPOINT.header() | {"base": BASE} | state
    assert state.keys() == KEYS | {"base"}
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
