"""The training run: `train` opens a session, `fit` takes its steps. Both read from top to bottom.

A step is one update of the weights; it minimises the mean over its clips. How many they are is
fixed when the run begins: `BATCH_SIZE * GRADIENT_ACCUMULATION_STEPS` of each process. Everything
random in a step follows from the seed, the step and the clips, so a checkpoint needs no random
state, and a continued run equals one that was never stopped, whatever number of processes go on.
"""

from __future__ import annotations

import math
import os
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ..host.device_memory import NotEnoughMemoryError
from ..host.reporter import SILENT, Parts, Reporter, counted
from ..storage.base import StoreError
from ..weights.checkpoint import checkpoint_config
from ..weights.files import checkpoint_path
from ..weights.find import Init
from .clock import Clock, Profile
from .data.loader import Batch, prepare_cache
from .data.splits import open_splits
from .distributed import process_group
from .flops import measure_work
from .memory_advice import shortage_in_run
from .optimizer import learning_rate_at, warmup_steps
from .phases import open_phases, pixels, spans
from .run import folder as run_folder
from .run.checkpoint import Checkpoints, take_up
from .run.records import Position, Records, open_records
from .session import Session, find_start, require_same_data
from .step import Learner, NonFiniteError, StepResult
from .stop import stop_request
from .validation import Validator

MOST_LEFT_OUT = 10
"""Most consecutive steps without a finite loss or gradient before training stops."""


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """Result of a run, or of this start of it."""

    run: Path
    step: int
    total_steps: int
    best_step: int | None
    best_psnr: float | None
    """Validation PSNR of the best checkpoint, dB."""
    psnr_blur: float | None = None
    """PSNR of the blurred input on the same windows, dB; None if this start validated nothing."""
    signal: int | None = None
    """Signal that stopped the run before its end."""
    was_finished: bool = False
    """Whether there was nothing left to do."""
    is_first: bool = True
    """Whether this is the process that reports; the others have the same to report."""
    profile: Profile | None = None
    """Time of each part of the steps, if it was asked for."""
    unread: dict[str, str] = field(default_factory=dict)
    """Why clips of a sequence were left out, by its name (TRAIN.ON_ERROR)."""


def train(
    config: Config,
    run: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    init: Init | str | os.PathLike[str] | None = None,
    profile: bool = False,
    reporter: Reporter = SILENT,
) -> TrainSummary:
    """Train a network; a process that torchrun started trains with the others.

    Args:
        config: the whole configuration.
        run: folder for all that the run writes.
        resume: go on from the folder's last checkpoint; from the start if there is none.
        overwrite: replace a run that is in the folder.
        init: weights that a new run starts from, at step 0 and with its own schedule; a run that
            goes on has its own.
        profile: time each part of the steps; on a GPU this waits for it between them.
        reporter: hears the steps done, with loss, PSNR and data wait, and what is decided.

    Raises:
        SpikeDeblurError: the configuration, the data, the loss's weights or the run folder can't
            be used; all but unreadable data is found before the first step.
        NonFiniteError: the loss or gradient of a step is not finite.
    """
    run = Path(run)
    with process_group() as group, ExitStack() as held:
        reporter = reporter if group.is_first else SILENT
        group.on_first(lambda: held.enter_context(run_folder.hold(run)))
        state = find_start(
            config, group, run, resume=resume, overwrite=overwrite, has_init=init is not None
        )
        if state is not None and _is_finished(state, config, run):
            at = Position.of(state)
            try:
                require_same_data(state, open_splits(config).describe())
            except StoreError as error:
                reporter.note(f"its data can't be compared: {error}")
            reporter.note(f"{run}: this run is finished, {counted(at.step, 'step')}; nothing to do")
            best = at.best_step, at.best_psnr
            return TrainSummary(
                run, at.step, at.step, *best, was_finished=True, is_first=group.is_first
            )
        start = None if init is None else Init.of(init)
        session = Session.open(config, group, run=run, state=state, init=start, reporter=reporter)
        return fit(session, profile=profile, reporter=reporter)


def _is_finished(state: dict[str, Any], config: Config, run: Path) -> bool:
    """Whether a run has taken all its steps, and is to have no more; reads no data."""
    if not state["step"] == state["validated_step"] == state["total_steps"]:
        return False
    before, now = checkpoint_config(state, checkpoint_path(run, "last")).TRAIN, config.TRAIN
    if now.MAX_STEPS is None:
        same = before.MAX_STEPS is None and before.EPOCHS == now.EPOCHS
    else:
        same = state["total_steps"] == now.MAX_STEPS
    return same and before.SCHEDULER.DECAY == now.SCHEDULER.DECAY


def fit(session: Session, *, profile: bool = False, reporter: Reporter = SILENT) -> TrainSummary:
    """Take the steps of a run that are left.

    Args:
        session: with its run folder; what an earlier run left there is removed when starting anew.
        profile: time each part of the steps.
        reporter: hears the steps done, and what is decided.
    """
    options, group, total = session.config.TRAIN, session.group, session.steps
    learner = session.learner()
    at = Position.of(session.state)
    _announce(session, at, reporter)
    take_up(session)
    if profile and group.device.type == "cuda":
        torch.cuda.memory._record_memory_history(max_entries=100_000)  # for `shortage_in_run`
    with ExitStack() as opened:
        stop = opened.enter_context(stop_request())
        workers = prepare_cache(
            session.training, session.config, processes=group.local_world, reporter=reporter
        )
        records = opened.enter_context(open_records(session, at))
        steps = opened.enter_context(
            open_phases(
                session.phases,
                at.step,
                total,
                workers=workers,
                pin=group.device.type == "cuda",
                prefetch_bytes=options.PREFETCH_MB * 10**6,
            )
        )
        flops = measure_work(session, learner) if group.is_first else {}
        clock = Clock(group.device, exact=profile)
        checkpoints = Checkpoints(session, learner, at, clock)
        validator = Validator(session, learner, at, clock)
        left_out = LeftOut(session, at, records, reporter)
        work = _work_left(session, at, reporter, validates_now=validator.is_due)
        while True:
            # Asked together: processes that disagree would wait for each other for ever.
            stopping = group.any(bool(stop))
            if validator.is_due and not stopping:
                stopping = not validator.validate(stop, records, checkpoints)
                work.did("validation", "validated")
                if validator.by_store and not stopping:
                    reporter.note(f"step {at.step}: {validator.described()}")
            ended = at.step == total or at.is_stale(options)
            begun = at.step == 0 and session.init is not None  # a resumed run reads no --init
            checkpoints.write_if_due(now=ended or stopping or begun)
            if ended or stopping:
                break

            checkpoints.keep_stable_if_due()
            learning_rate = learning_rate_at(options, at.step, total)
            try:
                clock.start("data")
                batches = next(steps)
                clock.start("other")
                left_out.note_unread(batches)
                result = left_out.step(learner, batches, learning_rate, clock)
            except SpikeDeblurError as error:
                if learner.is_whole:
                    checkpoints.write("last")
                    if isinstance(error, NotEnoughMemoryError):
                        raise shortage_in_run(error, session.run, at.step, group) from error
                raise
            at.note_step(result)
            clock.count(batches)
            phase = session.phase_of(at.step - 1)
            note = clock.note(result.loss, result.psnr)
            work.did("step", note, size=pixels(phase.config), finished=1)
            first = at.step - 1 - (at.step - 1) % options.LOG_INTERVAL
            cost = flops.get(phase.start) if session.phase_of(first) is phase else None
            records.training_if_due(learning_rate, result.gradient_norm, clock, cost)

    if ended and at.step < total:
        reporter.note(
            f"ended after step {at.step} of {total}: "
            f"{counted(options.EARLY_STOP or 0, 'validation')} no better than that of step "
            f"{at.best_step}; TRAIN.EARLY_STOP=null lets it go on"
        )
    if ended and at.best_step == 0:
        reporter.note(
            "no step validated better than the start, so the best checkpoint is the start"
        )
    return TrainSummary(
        session.run,
        at.step,
        total,
        at.best_step,
        at.best_psnr,
        validator.psnr_blur,
        is_first=group.is_first,
        # The signal may have reached another process than this one.
        signal=None if ended and at.validated_step == at.step else stop.signal or signal.SIGTERM,
        profile=clock.profile() if profile else None,
        unread=left_out.unread,
    )


def _work_left(session: Session, at: Position, reporter: Reporter, *, validates_now: bool) -> Parts:
    """Return the progress of a run: steps by the pixels of their batches, and validations."""
    total, interval = session.steps, session.config.TRAIN.VAL_INTERVAL
    steps = sum(
        (last - first) * pixels(phase.config)
        for phase, first, last in spans(session.phases, at.step, total)
    )
    validations = -(-total // interval) - at.step // interval + validates_now
    data, clips = session.config.DATA, len(session.validation.index)
    # A clip has up to twice the crop's side, and no backward pass.
    guess = clips / session.group.world * data.CLIP_LEN * 4 * data.CROP_SIZE**2 / 3
    work = Parts(reporter, total, {"step": 1.0, "validation": guess})
    work.expect({"step": steps, "validation": validations}, done=at.step)
    return work


def _announce(session: Session, at: Position, reporter: Reporter) -> None:
    """Note how the run begins or goes on, and what of that the user may not expect."""
    options, total = session.config.TRAIN, session.steps
    warmup, decay = warmup_steps(options, total), session.decay_start
    if warmup < options.SCHEDULER.WARMUP_STEPS:
        reporter.note(f"warm-up shortened to {counted(warmup, 'step')}: the run has {total}")
    if decay is not None and warmup > decay:
        reporter.note(
            f"the warm-up of {counted(warmup, 'step')} is not over when the learning rate "
            "falls, after step "
            f"{decay}; lower TRAIN.SCHEDULER.WARMUP_STEPS"
        )
    for phase in session.phases:
        if phase.start >= total:
            reporter.note(
                f"TRAIN.PHASES: that from step {phase.start} on is not reached: the run has {total}"
            )
    if session.state is None or session.continuation is None:
        clips = len(session.validation.index)
        reporter.note(f"validating the start on {counted(clips, 'clip')} before the first step")
        return
    for sentence in session.continuation.sentences:
        reporter.note(sentence)
    reporter.note(f"continuing after step {at.step} of {total}")


class LeftOut:
    """Clips that can't be read and steps without finite numbers, which a run leaves out."""

    def __init__(
        self, session: Session, at: Position, records: Records, reporter: Reporter
    ) -> None:
        self.unread: dict[str, str] = {}
        """Why clips of a sequence can't be read, by its name."""
        self._session, self._at = session, at
        self._records, self._reporter = records, reporter
        self._steps_in_a_row = 0

    def note_unread(self, batches: list[Batch]) -> None:
        """Report and record each sequence that a batch lacks a clip of, once."""
        for seq, why in (unread for b in batches for clip in b["unread"] for unread in clip):
            if seq not in self.unread:
                self.unread[seq] = why
                self._reporter.note(f"{seq}: a clip is left out (TRAIN.ON_ERROR): {why}")
                self._records.unread(seq, why)

    def step(
        self, learner: Learner, batches: list[Batch], learning_rate: float, clock: Clock
    ) -> StepResult:
        """Take a step; one that is left out as TRAIN.NON_FINITE says has a result of NaN.

        Raises:
            NonFiniteError: the run is to stop at such a step, or `MOST_LEFT_OUT` came in a row.
        """
        raw = self._session.training.sequences[0].windows_are_raw
        try:
            result = learner.step(batches, self._at.step, learning_rate, clock, raw=raw)
        except NonFiniteError as error:
            learner.optimizer.zero_grad(set_to_none=True)
            self._steps_in_a_row += 1
            stops = self._session.config.TRAIN.NON_FINITE == "stop"
            if stops or self._steps_in_a_row == MOST_LEFT_OUT:
                raise
            self._reporter.note(f"{error}. The step is left out (TRAIN.NON_FINITE)")
            return StepResult(math.nan, math.nan, math.nan)
        self._steps_in_a_row = 0
        return result
