"""Memory and time of a training step, measured before the run: one is tried in its own process.

Nothing is predicted from formulas, which would have to know what autograd keeps, what libraries
need beside it and how much of freed memory an allocator can use again. Only where a CPU would
take long, a smaller step and one of twice its size are tried, and the rest is extrapolated: time
and memory grow linearly with the pixels.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, get_args

import psutil
import torch

from ...configs.schema import Config
from ...configs.schema.model import RecomputedPart
from ...errors import SpikeDeblurError
from ...model import build_model
from ...third_party.VRT import Recompute, set_recompute
from ..host.allocator import keep_share_of_freed_memory
from ..host.device_memory import NotEnoughMemoryError, free_memory, peak_memory
from ..host.machine import MEMORY, free_main_memory
from ..host.reporter import SILENT, Reporter
from ..weights.checkpoint import without_pretrained
from .clock import Clock
from .distributed import pretended_group
from .memory_advice import training_advice
from .objective import Objective
from .phases import largest_phase
from .precision import Precision
from .step import Learner

PATIENCE = 30.0
"""Most seconds that a step may take on a CPU and still be tried in its full size."""

SMALL_SIDE = 64
"""Side of the smaller step's crop, in pixels of the trunk: its coarsest scale is one window."""

SHARE = 0.9
"""Share of the free memory that a budget of `auto` is; the rest is left to other programs."""

CHOICES = (
    Recompute(),
    Recompute(feed_forward=True),
    Recompute(feed_forward=True, warping=True),
    Recompute(attention=True, feed_forward=True, warping=True),
    Recompute(attention=True, feed_forward=True, warping=True, block=True),
    Recompute(attention=True, feed_forward=True, warping=True, block=True, stage=True),
)
"""Parts that a step can recompute, from the fastest choice to the leanest."""


class MemoryBudgetError(SpikeDeblurError):
    """Not even the leanest step fits in the budget."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Memory and time of a step."""

    peak_bytes: int
    """Most memory of the process; on a GPU, most that torch took there."""
    seconds: float
    """Time with all batches that it accumulates."""
    extrapolated: bool
    """Whether both follow from smaller steps."""


def fit_in_budget(
    config: Config,
    device: torch.device,
    reporter: Reporter = SILENT,
    *,
    world: int = 1,
    batches: int | None = None,
) -> tuple[Recompute, Trial]:
    """Choose what to recompute by `TRAIN.MEMORY_BUDGET`: the first of `CHOICES` that fits.

    Args:
        config: the run's configuration, with a budget.
        device: device to train on.
        reporter: hears every choice that does not fit.
        world: processes that train together.
        batches: batches that a process accumulates in a step; None: as configured.

    Raises:
        MemoryBudgetError: none fits.
    """
    budget = config.TRAIN.MEMORY_BUDGET
    assert budget is not None
    limit = int(SHARE * free_memory(device)) if budget == "auto" else budget
    for recompute in CHOICES:
        trial = try_step(config, device, recompute, limit=limit, world=world, batches=batches)
        if trial is not None and trial.peak_bytes <= limit:
            return recompute, trial
        taken = "more" if trial is None else f"{trial.peak_bytes / 1e9:.2f} GB"
        reporter.note(f"recomputing {recompute}: {taken}, of {limit / 1e9:.2f} GB that are allowed")
    config = largest_phase(config)
    data = config.DATA
    raise MemoryBudgetError(
        f"TRAIN.MEMORY_BUDGET: a step takes more than {limit / 1e9:.2f} GB even with everything "
        f"recomputed; lower TRAIN.BATCH_SIZE (now {config.TRAIN.BATCH_SIZE}), DATA.CROP_SIZE "
        f"({data.CROP_SIZE}) or DATA.CLIP_LEN ({data.CLIP_LEN})"
    )


def require_step_fits(
    config: Config,
    device: torch.device,
    processes: int = 1,
    reporter: Reporter = SILENT,
    *,
    world: int = 1,
    batches: int | None = None,
) -> Trial:
    """Try a step, and refuse one that is foretold to take more than `SPIKEDEBLUR_MEMORY`.

    Args:
        config: the run's configuration, without a budget.
        device: a CPU; the variable says nothing of a GPU's memory.
        processes: training processes that share the memory.
        reporter: hears what was tried in search of a setting that helps.
        world: processes that train together.
        batches: batches that a process accumulates in a step; None: as configured.

    Raises:
        NotEnoughMemoryError: the step takes more; names the setting that helps, and by how much.
    """
    limit = free_main_memory() // processes
    trial = try_step(config, device, limit=limit, world=world, batches=batches)
    if trial is not None and trial.peak_bytes <= limit:
        return trial
    reporter.note("a step takes too much memory; trying what it takes with parts recomputed")
    taken = "" if trial is None else f"{trial.peak_bytes / 1e9:.2f} GB, "
    each = f" for each of {processes} processes" if processes > 1 else ""
    beside = " without MODEL.RECOMPUTE" if config.MODEL.RECOMPUTE is not None else ""
    train = config.TRAIN.model_copy(update={"MEMORY_BUDGET": int(SHARE * limit)})
    try:
        budgeted = config.model_copy(update={"TRAIN": train})
        recompute, lower = fit_in_budget(budgeted, device, reporter, world=world, batches=batches)
        less = "" if trial is None else f", {1 - lower.peak_bytes / trial.peak_bytes:.0%} less"
        helps = (
            f"set TRAIN.MEMORY_BUDGET=auto{beside}: recomputing {recompute}, a step takes "
            f"{lower.peak_bytes / 1e9:.2f} GB{less}, with the same result"
        )
    except MemoryBudgetError:
        every = {"RECOMPUTE": get_args(RecomputedPart)}
        leanest = {"MODEL": config.MODEL.model_copy(update=every)}
        advice = training_advice(config.model_copy(update=leanest))
        helps = f"recomputing does not suffice; {advice}"
    raise NotEnoughMemoryError(
        f"a step would take {taken}more than {MEMORY} leaves ({limit / 1e9:.2f} GB{each}); {helps}"
    )


def try_step(
    config: Config,
    device: torch.device,
    recompute: Recompute | None = None,
    *,
    limit: int | None = None,
    patience: float = PATIENCE,
    world: int = 1,
    batches: int | None = None,
) -> Trial | None:
    """Try a step of training on random clips, one of the largest phase if there are several.

    Args:
        config: the run's configuration; weights to start from are not read.
        device: device to try it on.
        recompute: parts recomputed; None: those of the configuration.
        limit: most bytes that the step may take before it is stopped; None: what is free.
        patience: seconds that a step may take on a CPU and still be tried in its full size.
        world: processes that train together; memory for the exchange of gradients is taken too,
            but nothing is exchanged.
        batches: batches that a process accumulates in a step; None: as configured.

    Returns:
        None if it took more than the limit, or than there is. An extrapolated peak may lie above
        the limit.

    Raises:
        SpikeDeblurError: the step failed.
    """
    config = largest_phase(config)
    limit = free_memory(device) if limit is None else limit
    spawn = get_context("spawn")
    near, far = spawn.Pipe()
    batches = batches or config.TRAIN.GRADIENT_ACCUMULATION_STEPS
    arguments = (far, config, device, recompute, patience, world, batches)
    process = spawn.Process(target=_answer, args=arguments, daemon=True)
    process.start()
    far.close()  # so that a process that dies is noticed
    try:
        while not near.poll(0.02):
            with suppress(psutil.Error):  # it may just have ended
                taken = psutil.Process(process.pid).memory_info().rss
                if device.type != "cuda" and taken > limit:
                    return None
        outcome = near.recv()
    except EOFError:
        return None  # the system kills who takes too much
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, NotEnoughMemoryError):
        return None
    if isinstance(outcome, Exception):
        raise SpikeDeblurError(f"a trial step failed: {outcome}") from outcome
    assert isinstance(outcome, Trial)
    return outcome


def _answer(link: Connection, *arguments: Any) -> None:
    try:
        link.send(_measure(*arguments))
    except Exception as error:
        link.send(error)


def _measure(
    config: Config,
    device: torch.device,
    recompute: Recompute | None,
    patience: float,
    world: int,
    batches: int,
) -> Trial:
    if config.TRAIN.THREADS is not None:
        torch.set_num_threads(config.TRAIN.THREADS)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    model = build_model(without_pretrained(config))
    if recompute is not None:
        set_recompute(model, recompute)
    precision = Precision.choose(config.TRAIN.AMP, device)
    objective = Objective(config.LOSS).to(device)
    with pretended_group(world, device) as group:
        learner = Learner(config, group, model.to(device), objective, precision)
        return _trial(learner, patience, batches)


def _trial(learner: Learner, patience: float, batches: int) -> Trial:
    config, device = learner.config, learner.group.device
    clips, side = config.TRAIN.BATCH_SIZE, config.DATA.CROP_SIZE
    small = SMALL_SIDE * config.MODEL.TRUNK_SCALE
    times = clips * side * side / small**2
    tried_whole = device.type == "cuda" or times <= 2
    if not tried_whole:
        keep_share_of_freed_memory(1 / times)
        peak, seconds = _steps(learner, 1, small, small)
        tried_whole = times * seconds < patience
        keep_share_of_freed_memory(1 if tried_whole else 2 / times)
    if tried_whole:
        whole_peak, seconds = _steps(learner, clips, side, side)
        return Trial(whole_peak, batches * seconds, extrapolated=False)
    twice_peak, _ = _steps(learner, 1, small, 2 * small)
    keep_share_of_freed_memory(1)
    _, seconds = _steps(learner, 1, small, 2 * small)
    whole_peak = round(peak + (times - 1) * (twice_peak - peak))
    return Trial(whole_peak, batches * times * seconds / 2, extrapolated=True)


def _steps(learner: Learner, clips: int, height: int, width: int) -> tuple[int, float]:
    """Return a process's peak so far after two steps of one batch, and the second's seconds."""
    batch = _random_batch(learner.config, clips, height, width)
    clock = Clock(learner.group.device)
    seconds = 0.0
    for step in range(2):  # the first makes the optimizer's state
        began = time.perf_counter()
        learner.step([batch], step, 0.0, clock, raw=True)  # waits for the gradient's norm
        seconds = time.perf_counter() - began
    return peak_memory(learner.group.device), seconds


def _random_batch(config: Config, clips: int, height: int, width: int) -> dict[str, Any]:
    """Return what the loader gives for crops of a size, with spikes at the trunk's."""
    frames, bins, scale = config.DATA.CLIP_LEN, config.DATA.K, config.MODEL.TRUNK_SCALE

    def bytes_below(limit: int, *shape: int) -> torch.Tensor:
        return torch.randint(limit, (clips, frames, *shape), dtype=torch.uint8)

    return {
        "blur": bytes_below(256, 3, height, width),
        "sharp": bytes_below(256, 3, height, width),
        "voxels": bytes_below(8, bins, height // scale, width // scale),
        "gain": torch.full((clips,), 0.5),
        "samples": torch.full((clips, frames), 8 * bins),
        "changes": list(range(clips)),
        "weight": 1.0,
        "place": 0,
        "seq": ["trial"] * clips,
        "frame_index": [[0] * frames] * clips,
    }
