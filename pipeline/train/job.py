"""The training run: `train` sets it up, `fit` is the loop. Both read from top to bottom.

A step is one update of the weights from `BATCH_SIZE * GRADIENT_ACCUMULATION_STEPS` clips of each
process; it minimises the mean over all of them. Everything random in a step follows from the
seed, the step and the process, so a checkpoint needs no random state and a continued run equals
one that was never stopped.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...configs import dump_config
from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ...model import build_model, configured_recompute
from ...third_party.VRT import set_recompute
from ..host.reporter import Note, Progress
from ..sequences.contract import WindowSequence
from ..sequences.provenance import describe_data
from ..weights.checkpoint import (
    CheckpointError,
    checkpoint_path,
    forms_of,
    load_weights,
    outline_that_fits,
    without_pretrained,
)
from .clock import Clock, Profile
from .data.loader import open_loader, prepare_cache
from .data.order import ClipIndex, StepPlan
from .data.samples import ClipSamples
from .data.splits import open_splits, seen_by
from .distributed import Group, process_group
from .memory_advice import require_room
from .memory_budget import fit_in_budget
from .objective import Objective
from .optimizer import learning_rate_at, total_steps, warmup_steps
from .precision import Precision, cpu_computes_bf16
from .run import folder as run_folder
from .run.checkpoint import write_checkpoint
from .run.records import Interval, Position, Records
from .run.wandb import require_wandb
from .step import Learner, NonFiniteError
from .stop import stop_request
from .validation import validate

MOST_LEFT_OUT = 10
"""Steps in a row that may have no finite loss or gradient: more is no accident of the data."""


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a run came to."""

    run: Path
    step: int
    total_steps: int
    best_step: int | None
    best_psnr: float | None
    """Validation PSNR of the best checkpoint, dB."""
    psnr_blur: float | None
    """Of the blurred input on the same windows, dB; None where this start validated nothing."""
    signal: int | None = None
    """The signal that stopped the run before its end."""
    was_finished: bool = False
    """Whether there was nothing left to do."""
    is_first: bool = True
    """Whether this is the process that talks; the others have the same to say."""
    profile: Profile | None = None
    """Where the time went, if that was asked for."""
    unread: dict[str, str] = field(default_factory=dict)
    """Why clips of a sequence were left out, by its name (TRAIN.ON_ERROR)."""


def train(
    config: Config,
    run: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    profile: bool = False,
    on_progress: Progress | None = None,
    on_note: Note = lambda note: None,
) -> TrainSummary:
    """Train as the configuration says; started by torchrun, with the other processes.

    Args:
        config: the whole configuration.
        run: folder for all that the run writes.
        resume: go on from the folder's last checkpoint; from the start if there is none.
        overwrite: replace a run that is in the folder.
        profile: time each part of the steps; on a GPU this waits for it between them.
        on_progress: told steps done, steps in all, and loss, PSNR, data wait, time left.
        on_note: told in a sentence what was decided.

    Raises:
        SpikeDeblurError: the configuration, the data, the loss's weights or the run folder can't
            be used; all but unreadable data is found before the first step.
        NonFiniteError: the loss or gradient of a step is not finite.
    """
    run = Path(run)
    require_wandb(config)
    with process_group() as group, ExitStack() as held:
        if not group.is_first:
            on_progress, on_note = None, lambda note: None
        if config.TRAIN.THREADS is not None:
            torch.set_num_threads(config.TRAIN.THREADS)
        precision = Precision.choose(config.TRAIN.AMP, group.device)
        low_on_cpu = precision.dtype == torch.bfloat16 and group.device.type == "cpu"
        if low_on_cpu and not cpu_computes_bf16():
            on_note(
                "warning: TRAIN.AMP is bf16, but this CPU has no instructions for it and takes "
                "about 12 times the time of float32; TRAIN.AMP=auto chooses by the device"
            )
        objective = Objective(config.LOSS).to(group.device)

        group.on_first(lambda: held.enter_context(run_folder.hold(run)))
        if not resume:
            group.on_first(lambda: run_folder.require_new(run, overwrite=overwrite))
        state = run_folder.read_resumable(run, config) if resume else None
        if state is not None and state["step"] == state["validated_step"] == state["total_steps"]:
            on_note(f"{run}: this run is finished, {state['step']} steps; nothing to do")
            return _summary(run, state, was_finished=True, is_first=group.is_first)

        if state is None:
            require_room(config)
        else:
            _require_weights(state, config, checkpoint_path(run, "last"))
        training, validation = open_splits(config)
        recompute = configured_recompute(config.MODEL)
        if config.TRAIN.MEMORY_BUDGET is not None:
            recompute, trial = group.on_first(lambda: fit_in_budget(config, group.device, on_note))
            on_note(
                f"recomputing {recompute}: a step takes {trial.peak_bytes / 1e9:.2f} GB and "
                f"{trial.seconds:.2f} s"
            )
        torch.manual_seed(config.TRAIN.SEED)
        model = build_model(config if state is None else without_pretrained(config))
        set_recompute(model, recompute)
        return fit(
            config,
            run,
            group,
            model.to(group.device),
            objective,
            precision,
            training,
            validation,
            state=state,
            profile=profile,
            on_progress=on_progress,
            on_note=on_note,
        )


def fit(
    config: Config,
    run: Path,
    group: Group,
    model: nn.Module,
    objective: nn.Module,
    precision: Precision,
    training: Sequence[WindowSequence],
    validation: Sequence[WindowSequence],
    *,
    state: dict[str, Any] | None = None,
    profile: bool = False,
    on_progress: Progress | None = None,
    on_note: Note = lambda note: None,
) -> TrainSummary:
    """Run the loop from `state`, a checkpoint, or from the start.

    Args:
        config: TRAIN and DATA are read here.
        run: folder to write to; what an earlier run left there is removed when starting anew.
        group: the processes, and this one's device.
        model: on the device; called as `model(blur, voxels)`.
        objective: called as `objective(output, sharp)`.
        precision: of the forward pass.
        training: sequences of the training split.
        validation: sequences of the validation split.
        state: a checkpoint's content.
        profile: as in `train`.
        on_progress: as in `train`.
        on_note: as in `train`.
    """
    options, data = config.TRAIN, config.DATA
    index = ClipIndex.every_start([s.length for s in training], data.CLIP_LEN)
    plan = StepPlan(
        index,
        options.BATCH_SIZE,
        options.GRADIENT_ACCUMULATION_STEPS,
        options.SEED,
        group.rank,
        group.world,
    )
    samples = ClipSamples(
        seen_by(data.NORM, training),
        index,
        crop_size=data.CROP_SIZE,
        augment=data.AUGMENT,
        seed=options.SEED,
        replace_unreadable=options.ON_ERROR == "skip",
    )
    shown = ClipSamples(
        seen_by(data.NORM, validation),
        ClipIndex.each_window_once(
            [s.length for s in validation], data.CLIP_LEN, options.VAL_MAX_WINDOWS
        ),
    )
    described = describe_data(training)
    total = total_steps(options, plan.steps_an_epoch)
    _require_continuation(state, plan, described, total)
    warmup = warmup_steps(options, total)
    if warmup < options.SCHEDULER.WARMUP_STEPS:
        on_note(f"warm-up shortened to {warmup} steps: the run has {total}")

    one_frame = 1 in index.length or data.SPIKE_AUGMENT.THIN > 0
    learner = Learner.start(
        config,
        group,
        model,
        objective,
        precision,
        some_unused=one_frame,  # no flow between neighbours then
    )
    average = learner.average
    at = Position()
    if state is not None:
        where = checkpoint_path(run, "last")
        load_weights(model, state["model"], where)
        if average is not None:
            load_weights(average, state["ema"], where)
        try:
            learner.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"{where}: its optimizer does not fit this release ({error}); continue with the "
                "one that the run was begun with"
            ) from error
        learner.scaler.load_state_dict(state["scaler"])
        at = Position.from_state(state)
        on_note(f"continuing after step {at.step} of {total}")

    def save(which: str) -> None:
        if group.is_first:
            epoch, in_epoch = divmod(at.step, plan.steps_an_epoch)
            write_checkpoint(
                checkpoint_path(run, which),
                {
                    "config": dump_config(config),
                    "data": described["sha256"],
                    "samples_a_step": plan.samples_a_step,
                    "total_steps": total,
                    "epoch": epoch,
                    "step_in_epoch": in_epoch,
                    **asdict(at),
                    "model": model.state_dict(),
                    "ema": None if average is None else average.state_dict(),
                    "optimizer": learner.optimizer.state_dict(),
                    "scaler": learner.scaler.state_dict(),
                },
            )

    blur_psnr: float | None = None
    with ExitStack() as opened:
        stop = opened.enter_context(stop_request())
        workers = prepare_cache(
            samples,
            data,
            options.NUM_WORKERS,
            processes=group.local_world,
            on_note=on_note,
            on_progress=on_progress,
        )
        records: Records | None = None
        if group.is_first:
            run_folder.sweep_run(run)
            if state is None:
                run_folder.begin(run, config)
            else:
                run_folder.restore_config(run, config)
            run_folder.write_environment(run, at.step, group.world, group.device, described)
            records = Records(run, at.step, config)
            opened.callback(records.close)
        steps = opened.enter_context(
            open_loader(
                samples,
                plan,
                at.step,
                total,
                workers=workers,
                pin=group.device.type == "cuda",
                prefetch_bytes=options.PREFETCH_MB * 10**6,
            )
        )
        clock = Clock(group.device, exact=profile)
        saved = (at.step, at.validated_step)
        left_out = 0
        left_unread: dict[str, str] = {}
        while True:
            # Asked together: processes that disagree would wait for each other for ever.
            stopping = group.any(bool(stop))
            validation_due = at.step == total or at.step % options.VAL_INTERVAL == 0
            if at.step != at.validated_step and validation_due and not stopping:
                clock.start("validation")
                found = validate(
                    model if average is None else average,
                    shown,
                    crop_size=data.CROP_SIZE,
                    norm=data.NORM,
                    precision=precision,
                    group=group,
                    stopping=lambda: bool(stop),
                )
                stopping = found is None
                clock.start("saving")
                if found is not None:
                    best = at.note_validation(found)
                    blur_psnr = found.psnr_blur
                    if records is not None:
                        records.validation(at, plan, found, best, clock)
                    if best:
                        save("best")
            ended = at.step == total or at.is_stale(options)
            save_due = ended or stopping or at.step % options.SAVE_INTERVAL == 0
            if save_due and saved != (at.step, at.validated_step):
                clock.start("saving")
                save("last")
                saved = (at.step, at.validated_step)
            if ended or stopping:
                break

            clock.start("data")
            try:
                batches = next(steps)
            except SpikeDeblurError:
                save("last")
                raise
            clock.start("other")
            for seq, why in (unread for b in batches for clip in b["unread"] for unread in clip):
                if seq not in left_unread:
                    left_unread[seq] = why
                    on_note(f"{seq}: a clip is left out (TRAIN.ON_ERROR): {why}")
                    if records is not None:
                        records.unread(at, seq, why)
            learning_rate = learning_rate_at(options, at.step, total)
            try:
                loss, quality, norm = learner.step(
                    batches, at.step, learning_rate, clock, raw=training[0].windows_are_raw
                )
            except NonFiniteError as error:
                loss = quality = norm = math.nan
                learner.optimizer.zero_grad(set_to_none=True)
                left_out += 1
                if options.NON_FINITE == "stop" or left_out == MOST_LEFT_OUT:
                    save("last")
                    raise
                on_note(f"{error}. The step is left out (TRAIN.NON_FINITE)")
                at.note_left_out()
            else:
                left_out = 0
                at.note_step(loss, quality)
            clock.count(batches)

            if on_progress:
                on_progress(at.step, total, clock.note(loss, quality))
            if at.step % options.LOG_INTERVAL == 0 or at.step == total:
                if records is not None:
                    clock.start("saving")
                    records.training(at, plan, learning_rate, norm, clock)
                    clock.start("other")
                at.interval = Interval()
                clock.restart()

    if ended and at.step < total:
        on_note(
            f"ended after step {at.step} of {total}: {options.EARLY_STOP} validations were no "
            f"better than that of step {at.best_step} (TRAIN.EARLY_STOP)"
        )
    return _summary(
        run,
        {**asdict(at), "total_steps": total},
        psnr_blur=blur_psnr,
        is_first=group.is_first,
        # Another process may have been the one that was told to stop.
        signal=None if ended and at.validated_step == at.step else stop.signal or signal.SIGTERM,
        profile=clock.profile() if profile else None,
        unread=left_unread,
    )


def _require_weights(state: dict[str, Any], config: Config, path: Path) -> None:
    for weights in (state["model"], state["ema"]):
        if weights is not None:
            outline_that_fits(config, forms_of(weights, path), path)


def _require_continuation(
    state: dict[str, Any] | None, plan: StepPlan, described: dict[str, Any], total: int
) -> None:
    if state is None:
        return
    if state["data"] != described["sha256"]:
        raise run_folder.RunFolderError(
            "can't continue: the training split is not the one that the run was begun with "
            "(other sequences, windows or sources); restore it, or use another --run"
        )
    if state["samples_a_step"] != plan.samples_a_step:
        raise run_folder.RunFolderError(
            f"can't continue: the run has {state['samples_a_step']} clips a step, now "
            f"{plan.samples_a_step} ({plan.world} processes, TRAIN.BATCH_SIZE {plan.batch_size}, "
            f"TRAIN.GRADIENT_ACCUMULATION_STEPS {plan.accumulation}); set them so that their "
            "product is the same"
        )
    assert state["total_steps"] == total  # the same configuration, data and clips a step


def _summary(run: Path, at: dict[str, Any], **more: Any) -> TrainSummary:
    return TrainSummary(
        run,
        at["step"],
        at["total_steps"],
        at["best_step"],
        at["best_psnr"],
        **{"psnr_blur": None, **more},
    )
