"""How a run goes on that is longer, or set otherwise, than when it stopped.

With `wsd` the learning rate of a run's steps before its decay does not depend on its length. So
two checkpoints are kept from there: `stable`, with all that it takes to go on, and `stable_best`,
which was the best by validation then. A longer run takes the steps after them anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ....configs.schema import Config
from ....configs.schema.train import TrainConfig
from ...host.reporter import counted
from ...weights.checkpoint import checkpoint_config, forms_of, read_checkpoint
from ...weights.files import CheckpointError, checkpoint_path
from ...weights.same import HARMLESS, changes
from ..optimizer import decay_start, learning_rate_at
from .runs import RunFolderError

STABLE, STABLE_BEST = "stable", "stable_best"
"""Checkpoints from before the decay of a run with `wsd`."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a run goes on from, and what of it is new."""

    state: dict[str, Any]
    """Content of the checkpoint to go on from."""
    changed: tuple[str, ...]
    """Keys that have another value than before, with both."""
    notes: tuple[str, ...]
    """Sentences for the user."""
    goes_back: bool = False
    """Whether steps that were taken are dropped."""
    keeps_stable: bool = False
    """Whether this checkpoint is the last before the decay, which had to begin earlier."""
    best_is_stable: bool = False
    """Whether the best checkpoint is that of `stable_best` again."""

    @property
    def sentences(self) -> list[str]:
        """What the user should know of it."""
        return [*(f"from here on with another {change}" for change in self.changed), *self.notes]


def continue_run(
    state: dict[str, Any], config: Config, total: int, run: Path, validated_on: str = ""
) -> Continuation:
    """Decide what a run goes on from.

    Args:
        state: content of its last checkpoint.
        config: the configuration from now on, which may differ in `HARMLESS` and `STEERING` keys.
        total: length of the run from now on, in steps.
        run: the run folder.
        validated_on: hash of what is validated on from now on.

    Raises:
        RunFolderError: more steps are done than the run has now.
        CheckpointError: a checkpoint can't be read, or the one before the decay is missing.
    """
    before = checkpoint_config(state, checkpoint_path(run, "last"))
    changed = changes(before, config)
    done, former = state["step"], state["total_steps"]
    if total < done:
        raise RunFolderError(
            f"{run}: can't continue: {counted(done, 'step')} done, and the run would have {total}; "
            f"set TRAIN.MAX_STEPS to {done} or more"
        )
    notes = []
    goes_back = keeps_stable = False
    start_then, start = decay_start(before.TRAIN, former), decay_start(config.TRAIN, total)
    if (start, total) != (start_then, former) and done > min(start_then, start):
        kept = state
        if config.TRAIN.SCHEDULER.TYPE == "wsd" and done > start_then:
            kept = _read_stable(run, state)
        goes_back = kept is not state and kept["step"] <= start
        if goes_back:
            notes.append(
                f"going back to step {kept['step']}, before the decay, as the run has "
                f"{counted(total, 'step')} now and decays from step {start} on; what was "
                "done after it is dropped"
            )
            state = kept
        else:
            keeps_stable = start_then >= done > start
            notes += _not_as_planned(config.TRAIN, done, former, total, kept["step"])
    if state["step"] < total and _is_validated_otherwise(state, config, run, validated_on):
        notes.append("validations so far were of other windows, so the best is chosen anew")
        state = _without_best(state)
    best_is_stable = _is_of(run, STABLE_BEST, state) and not _is_of(run, "best", state)
    # Steps that decided on it are taken anew, and will be others now.
    if changed.keys() - HARMLESS and not best_is_stable and not _is_of(run, "best", state):
        state = _without_best(state)
    said = tuple(f"{key} ({old!r} before, {new!r} now)" for key, (old, new) in changed.items())
    return Continuation(state, said, tuple(notes), goes_back, keeps_stable, best_is_stable)


def _is_validated_otherwise(
    state: dict[str, Any], config: Config, run: Path, validated_on: str
) -> bool:
    """Whether validations of a checkpoint were of other windows than those to come."""
    if "validated_on" in state:
        return bool(state["validated_on"] != validated_on)
    before = checkpoint_config(state, checkpoint_path(run, "last"))  # of an earlier release
    return "TRAIN.VAL_MAX_WINDOWS" in changes(before, config)


def _not_as_planned(
    train: TrainConfig, done: int, former: int, total: int, stable: int
) -> list[str]:
    """Return what to say of a length whose learning rates are not those of the steps done."""
    planned = (learning_rate_at(train, step, total) for step in range(done))
    taken = (learning_rate_at(train, step, former) for step in range(done))
    if all(a == b for a, b in zip(planned, taken, strict=True)):
        return []
    what = (
        f"the {counted(done, 'step')} done had the learning rates of a run of {former}, so this is "
        f"not the run that was planned for {total} from its start"
    )
    if train.SCHEDULER.TYPE == "cosine":
        return [f"{what}: it goes on with the cosine of the new length from step {done} on"]
    guess = int(stable / (1 - train.SCHEDULER.DECAY)) - 2
    least = next(n for n in count(max(guess, 1)) if decay_start(train, n) >= stable)
    return [f"{what}: its decay began before that; TRAIN.MAX_STEPS={least} or more would be"]


def _read_stable(run: Path, state: dict[str, Any]) -> dict[str, Any]:
    path = checkpoint_path(run, STABLE)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected the checkpoint from before the decay, from which a run of another "
            "length goes on, found none; restore it, or leave TRAIN.MAX_STEPS as it was"
        )
    stable = read_checkpoint(path)
    same = forms_of(stable["model"], path) == forms_of(state["model"], path)
    if not same or stable["data"] != state["data"] or stable["step"] > state["step"]:
        raise CheckpointError(
            f"{path}: is of another run than last.pt beside it; put the run's own there"
        )
    return stable


def _is_of(run: Path, which: str, state: dict[str, Any]) -> bool:
    """Whether a checkpoint is the best that a state knows of."""
    path = checkpoint_path(run, which)
    if state["best_step"] is None or not path.is_file():
        return False
    found = read_checkpoint(path)
    return (found["step"], found["best_psnr"]) == (state["best_step"], state["best_psnr"])


def _without_best(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"best_step": None, "best_psnr": None}
