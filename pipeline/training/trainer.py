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
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...configs import dump_config
from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ...model import build_model
from ..memory import explained_shortage, training_advice
from ..progress import Progress
from ..store.provenance import describe_data
from ..store.sequence import WindowSequence
from . import run_folder
from .checkpoint import checkpoint_path, load_weights, without_pretrained, write_checkpoint
from .clock import Clock, Profile
from .distributed import Group, process_group
from .ema import averaged_copy, update_average
from .loader import Batch, Note, open_loader, prepare_cache
from .objective import Objective, psnr, to_inputs
from .order import ClipIndex, StepPlan
from .precision import Precision, cpu_computes_bf16
from .records import Interval, Position, Records
from .samples import ClipSamples
from .schedule import ema_decay, learning_rate, total_steps, warmup_steps
from .splits import open_splits
from .stop import stop_request
from .validation import validate


class NonFiniteError(SpikeDeblurError):
    """The loss or the gradient is not a finite number; the weights were not touched by it."""


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

        training, validation = open_splits(config)
        torch.manual_seed(config.TRAIN.SEED)
        model = build_model(config if state is None else without_pretrained(config))
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
        training, index, crop_size=data.CROP_SIZE, augment=data.AUGMENT, seed=options.SEED
    )
    shown = ClipSamples(
        validation,
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

    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=options.OPTIM.LR,
        weight_decay=options.OPTIM.WEIGHT_DECAY,
        fused=True,  # one pass over all weights; 2 against 12 ms a step for the quickstart's
    )
    scaler = precision.scaler()
    average = averaged_copy(model) if options.EMA_DECAY is not None else None
    at = Position()
    if state is not None:
        where = checkpoint_path(run, "last")
        load_weights(model, state["model"], where)
        if average is not None:
            load_weights(average, state["ema"], where)
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        at = Position.from_state(state)
        on_note(f"continuing after step {at.step} of {total}")
    one_frame = 1 in index.length
    model.train()
    wrapped = group.wrap(model, some_unused=one_frame)  # no flow between neighbours then

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
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
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
            run_folder.sweep(run)
            if state is None:
                run_folder.begin(run, config)
            run_folder.write_environment(run, at.step, group.world, group.device, described)
            records = Records(run, at.step)
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
                        records.validation(at, plan, found, best)
                    if best:
                        save("best")
            save_due = at.step == total or stopping or at.step % options.SAVE_INTERVAL == 0
            if save_due and saved != (at.step, at.validated_step):
                clock.start("saving")
                save("last")
                saved = (at.step, at.validated_step)
            if at.step == total or stopping:
                break

            clock.start("data")
            batches = next(steps)
            clock.start("other")
            rate = learning_rate(options, at.step, total)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            torch.manual_seed(_step_seed(options.SEED, at.step, group.rank))
            with explained_shortage(f"step {at.step + 1}", training_advice(config)):
                loss, quality = _backward(
                    wrapped,
                    objective,
                    batches,
                    config,
                    precision,
                    scaler,
                    group,
                    clock,
                    at.step,
                    raw=training[0].windows_are_raw,
                )
            clock.start("optimizer")
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(
                model.parameters(), options.GRAD_CLIP or math.inf
            ).item()
            if not math.isfinite(norm) and not scaler.is_enabled():
                raise NonFiniteError(
                    f"step {at.step + 1}: the gradient's norm is {norm} (samples: "
                    f"{_names(group, batches)}); the weights are those of step {at.step}. Lower "
                    "TRAIN.OPTIM.LR, or set TRAIN.AMP=off"
                )
            scaler.step(optimizer)  # leaves the step out if fp16 overflowed
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if average is not None and options.EMA_DECAY is not None:
                update_average(average, model, ema_decay(options.EMA_DECAY, at.step))
            clock.start("other")
            at.note_step(loss, quality)
            clock.count(batches)

            if on_progress:
                on_progress(at.step, total, clock.note(loss, quality, total - at.step))
            if at.step % options.LOG_INTERVAL == 0 or at.step == total:
                if records is not None:
                    clock.start("saving")
                    records.training(at, plan, rate, norm, clock)
                    clock.start("other")
                at.interval = Interval()
                clock.restart()

    return _summary(
        run,
        {**asdict(at), "total_steps": total},
        psnr_blur=blur_psnr,
        is_first=group.is_first,
        # Another process may have been the one that was told to stop.
        signal=None if at.validated_step == total else stop.signal or signal.SIGTERM,
        profile=clock.profile() if profile else None,
    )


def _backward(
    model: nn.Module,
    objective: nn.Module,
    batches: list[Batch],
    config: Config,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    group: Group,
    clock: Clock,
    step: int,
    *,
    raw: bool,
) -> tuple[float, float]:
    """Accumulate the gradient of a step; return mean loss and PSNR over its samples.

    Raises:
        NonFiniteError: a loss is not finite; raised on all processes alike.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=group.device)
    bad: list[Batch] = []
    for number, batch in enumerate(batches, 1):
        clock.start("to_device")
        inputs = to_inputs(batch, group.device, config.DATA.NORM, raw=raw)
        # Gradients are exchanged once a step, in the last batch's backward pass.
        exchange = number == len(batches) or group.world == 1
        with nullcontext() if exchange else model.no_sync():  # type: ignore[operator]
            clock.start("forward")
            with precision.autocast():
                output = model(inputs.blur, inputs.voxels)
            output = output.float()
            loss = objective(output, inputs.sharp)
            clock.start("backward")
            scaler.scale(loss * batch["weight"]).backward()
        clock.start("other")
        mean_psnr = psnr(output, inputs.sharp).mean()
        sums += torch.stack([loss.detach(), mean_psnr]).double() * batch["weight"]
        if not torch.isfinite(loss):
            bad.append(batch)
    loss_sum, psnr_sum, any_bad = group.sum([*sums.tolist(), float(len(bad))])
    if any_bad:
        raise NonFiniteError(
            f"step {step + 1}: the loss is {loss_sum} (samples: {_names(group, bad)}); the "
            f"weights are those of step {step}. Look at these samples, lower TRAIN.OPTIM.LR, or "
            "set TRAIN.AMP=off"
        )
    return loss_sum / group.world, psnr_sum / group.world


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


def _names(group: Group, batches: list[Batch]) -> str:
    """Return the samples of all processes' batches, for an error message."""
    own = [
        f"{seq} frames {frames[0]}-{frames[-1]}"
        for batch in batches
        for seq, frames in zip(batch["seq"], batch["frame_index"], strict=True)
    ]
    names = [name for names in group.gather(own) for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, 2, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def _summary(run: Path, at: dict[str, Any], **more: Any) -> TrainSummary:
    return TrainSummary(
        run,
        at["step"],
        at["total_steps"],
        at["best_step"],
        at["best_psnr"],
        **{"psnr_blur": None, **more},
    )
