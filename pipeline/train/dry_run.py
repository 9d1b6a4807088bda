"""Steps, memory and time of a run, found without training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ..host.reporter import SILENT, Reporter
from ..weights.find import Init
from .distributed import pretended_group, process_group
from .memory_budget import try_step
from .phases import epochs_at, relative_time
from .run import folder as run_folder
from .session import Session, find_start


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """Steps, memory and time of a run."""

    parameters: int
    """Parameters of the network that are trained."""
    device: str
    precision: str
    sequences: int
    """Sequences to train on."""
    clips: int
    """Clips in these sequences."""
    steps: int
    epochs: float
    clips_a_step: int
    """Clips of all processes together."""
    later_clips_a_step: tuple[int, ...]
    """The same of each further of TRAIN.PHASES."""
    processes: int
    """Processes that train, one for each GPU."""
    pretended: bool
    """The other processes were not there: nothing was exchanged with them, and NCCL took nothing.
    """
    batches_a_step: int
    """Batches of a process in a step."""
    recomputed: str
    """Parts of the network that a step computes twice."""
    peak_bytes: int
    """Most memory that a step takes of one process: all of it; on a GPU, what torch takes there."""
    cache_bytes: int
    """Most main memory beside it: windows that a process keeps, `DATA.CACHE_SIZE_GB`."""
    seconds_a_step: float
    """Time of a step, the largest if there are phases, without waiting for data."""
    seconds: float
    """Time of all steps that are left, without validation."""
    extrapolated: bool
    """Memory and time follow from smaller steps."""


def plan_run(
    config: Config,
    run: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init: Init | str | os.PathLike[str] | None = None,
    processes: int | None = None,
    reporter: Reporter = SILENT,
) -> RunPlan:
    """Refuse what `train` refuses before its first step, and try a step; nothing is written.

    Args:
        config: the whole configuration.
        run: run folder to check; None: none.
        resume: the run would go on from the folder's last checkpoint.
        overwrite: the run would replace one that is in the folder.
        init: weights that a new run would start from.
        processes: processes of one machine that would train; the first of them is tried, with
            PyTorch's fake process group for the others. None: those that are there.
        reporter: hears which parts are recomputed.

    Raises:
        SpikeDeblurError: `train` would not start, or would run out of memory.
    """
    with process_group() if processes is None else pretended_group(processes) as group:
        state, folder = None, Path() if run is None else Path(run)
        if run is not None:
            group.on_first(lambda: run_folder.require_not_held(folder))
            state = find_start(
                config,
                group,
                folder,
                resume=resume,
                overwrite=overwrite,
                has_init=init is not None,
            )
        start = None if init is None else Init.of(init)
        session = Session.open(
            config, group, run=folder, state=state, init=start, reporter=reporter
        )
        for sentence in session.continuation.sentences if session.continuation else ():
            reporter.note(sentence)
        batches = session.largest_phase.plan.batches_a_step
        trial = session.trial or try_step(config, group.device, world=group.world, batches=batches)
        if trial is None:
            raise SpikeDeblurError(
                "a step takes more memory than there is; set TRAIN.MEMORY_BUDGET=auto, or lower "
                "TRAIN.BATCH_SIZE, DATA.CROP_SIZE or DATA.CLIP_LEN"
            )
        if session.state is not None:
            session.learner()  # its optimizer may be of another release
        done = session.state["step"] if session.state else 0
        device, data, steps = group.device, config.DATA, session.steps
        return RunPlan(
            parameters=sum(p.numel() for p in session.model.parameters() if p.requires_grad),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            precision=str(session.precision.dtype or torch.float32).removeprefix("torch."),
            sequences=len(session.training.sequences),
            clips=len(session.training.index),
            steps=steps,
            epochs=epochs_at(session.phases, steps),
            clips_a_step=session.plan.samples_a_step,
            later_clips_a_step=tuple(p.plan.samples_a_step for p in session.phases[1:]),
            processes=group.world,
            pretended=processes is not None and group.world > 1,
            batches_a_step=batches,
            recomputed=str(session.recompute),
            peak_bytes=trial.peak_bytes,
            cache_bytes=int(data.USE_RAM_CACHE * data.CACHE_SIZE_GB * 2**30),
            seconds_a_step=trial.seconds,
            seconds=relative_time(session.phases, done, steps) * trial.seconds,
            extrapolated=trial.extrapolated,
        )
