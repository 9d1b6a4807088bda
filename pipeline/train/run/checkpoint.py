"""Checkpoints written: a file takes its name only after it was read back."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ....configs import dump_config
from ....model.motion_deblur import BASE
from ...host.files import atomic_write
from ...host.reading import open_file
from ...weights.checkpoint import CHECKPOINT, KEYS, MORE, read_checkpoint
from ...weights.files import CheckpointError, checkpoint_path
from ..clock import Clock
from ..session import Session
from ..step import Learner
from . import folder as run_folder
from .continuation import STABLE, STABLE_BEST
from .records import Position


class Checkpoints:
    """A run's checkpoints; only the first process writes them."""

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

    def keep_stable_if_due(self) -> None:
        """Keep this position, and the best so far, if the next step is the first of a decay."""
        if self._at.step == self._session.decay_start and self._session.group.is_first:
            self._clock.start("saving")
            _copy_best(self._session.run, "best", STABLE_BEST)
            self.write(STABLE)

    def write(self, which: str) -> None:
        """Write `last`, `best` or `stable`."""
        session = self._session
        if not session.group.is_first:
            return
        phase = session.phase_of(self._at.step)
        epoch, step_in_epoch = divmod(self._at.step - phase.start, phase.plan.steps_an_epoch)
        state = {
            "data": session.data["sha256"],
            "samples_a_step": session.phase_of(self._at.step - 1).plan.samples_a_step,
            "epoch": epoch,
            "step_in_epoch": step_in_epoch,
            **asdict(self._at),
            **self._learner.state(),
        }
        if which == "best":  # no run goes on from it, so the other averages would be of no use
            state.pop("averages", None)
        write_checkpoint(checkpoint_path(session.run, which), state | _plan(session))


def take_up(session: Session) -> None:
    """Make the run folder that of a run which goes on longer, or otherwise, than it was.

    The configuration comes first and the checkpoint `last` after it, so whoever is killed in
    between finds the new settings, and decides the same once more.
    """
    plan, run = session.continuation, session.run
    if plan is None or not session.group.is_first:
        return
    run_folder.update_config(run, session.config, begins_anew=plan.goes_back)
    if plan.keeps_stable:
        _copy_best(run, "best", STABLE_BEST)
        write_checkpoint(checkpoint_path(run, STABLE), _bare(plan.state) | _plan(session))
    if plan.changed or plan.goes_back:
        write_checkpoint(checkpoint_path(run, "last"), _bare(plan.state) | _plan(session))
    if plan.best_is_stable:
        _copy_best(run, STABLE_BEST, "best")


def _plan(session: Session) -> dict[str, Any]:
    """Return what a checkpoint holds of a run's steps to come."""
    plan: dict[str, Any] = {
        "config": dump_config(session.config),
        "total_steps": session.steps,
        "validated_on": session.validated_on,
    }
    if session.config.TRAIN.PHASES:
        plan["phases"] = [phase.facts() for phase in session.phases]
    return plan


def _bare(state: dict[str, Any]) -> dict[str, Any]:
    gone = CHECKPOINT.header().keys() | {"phases"}
    return {name: value for name, value in state.items() if name not in gone}


def _copy_best(run: Path, source: str, target: str) -> None:
    """Copy a checkpoint that is the best, or was; there is none before a validation."""
    if not checkpoint_path(run, source).is_file():
        return
    path = checkpoint_path(run, target)
    with open_file(checkpoint_path(run, source)) as best, atomic_write(path) as file:
        shutil.copyfileobj(best, file)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; it gets its name only after it was read back.

    Raises:
        CheckpointError: it can't be written, or does not read back.
    """
    state = CHECKPOINT.header() | {"base": BASE} | state
    assert state.keys() - MORE == KEYS | {"base"}
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
