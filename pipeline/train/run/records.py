"""Position of a run, and its records: metrics, TensorBoard, pictures."""

from __future__ import annotations

import json
import math
import platform
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from ....configs.schema.train import TrainConfig
from ....version import __version__
from ...host.device_memory import peak_memory
from ...host.documents import read_json
from ...host.files import write_text
from ...weights.same import leaves
from ..clock import STEP_PARTS, Clock
from ..flops import Work
from ..phases import epochs_at
from ..session import Session
from ..step import StepResult
from . import folder as run_folder
from .wandb import open_wandb


@dataclass
class Interval:
    """Sums since the last training line of metrics.jsonl."""

    loss: float = 0.0
    psnr: float = 0.0
    steps: int = 0


@dataclass
class Position:
    """Step, best validation and sums of a run: all that changes beside the learner."""

    step: int = 0
    validated_step: int = -1
    """Last step that was validated; -1: none."""
    best_step: int | None = None
    best_psnr: float | None = None
    interval: Interval = field(default_factory=Interval)

    @classmethod
    def of(cls, state: dict[str, Any] | None) -> Position:
        """Return the position that a checkpoint holds; None: the start."""
        if state is None:
            return cls()
        known = {field.name: state[field.name] for field in fields(cls)}
        return cls(**known | {"interval": Interval(**state["interval"])})

    def note_step(self, result: StepResult) -> None:
        """Count a step and its mean loss and PSNR; they are NaN where it was left out."""
        self.step += 1
        if not math.isnan(result.loss):
            self.interval.loss += result.loss
            self.interval.psnr += result.psnr
            self.interval.steps += 1

    def note_validation(self, psnr: float) -> bool:
        """Remember that this step is validated; returns whether it is the best so far."""
        self.validated_step = self.step
        best = math.isfinite(psnr) and (self.best_psnr is None or psnr > self.best_psnr)
        if best:
            self.best_step, self.best_psnr = self.step, psnr
        return best

    def is_stale(self, options: TrainConfig) -> bool:
        """Whether so many validations were no better that the run should end."""
        if options.EARLY_STOP is None or self.best_step is None:
            return False
        return self.validated_step - self.best_step >= options.EARLY_STOP * options.VAL_INTERVAL


@contextmanager
def open_records(session: Session, at: Position) -> Iterator[Records]:
    """Yield the records of a run: in its folder on the first process, nowhere on the others."""
    if not session.group.is_first:
        yield Records(session, at)
        return
    run = session.run
    run_folder.sweep_run(run)
    if session.state is None:
        run_folder.begin(run, session.config)
    else:
        run_folder.drop_pictures(run, at.validated_step)
    _write_environment(session, at.step)
    with closing(RunRecords(session, at)) as records:
        yield records


def _write_environment(session: Session, step: int) -> None:
    """Record software and device of this start of the run, and nothing of the host."""
    path = session.run / "environment.json"
    try:
        before = read_json(path)
        starts, init = list(before["starts"]), before.get("init")
    except (OSError, ValueError, KeyError, TypeError):
        starts, init = [], None
    if session.state is None:
        init = session.init
    device = session.group.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    starts.append(
        {
            "step": step,
            "spikedeblur": __version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "torch": torch.__version__,
            "cuda": torch.version.cuda if gpu else None,
            "numpy": np.__version__,
            "device": gpu or "cpu",
            "processes": session.group.world,
            "threads": torch.get_num_threads(),
        }
    )
    if session.continuation is not None and session.continuation.changed:
        starts[-1]["changed"] = "; ".join(session.continuation.changed)
    content = {"data": session.data, "starts": starts} | ({} if init is None else {"init": init})
    write_text(path, json.dumps(content, indent=2) + "\n")


class Records:
    """Counts the intervals of a run, and writes nothing."""

    def __init__(self, session: Session, at: Position) -> None:
        self._session, self._at = session, at

    def training_if_due(
        self, learning_rate: float, norm: float, clock: Clock, work: Work | None = None
    ) -> None:
        """After TRAIN.LOG_INTERVAL steps, write the interval's means and begin a new one.

        Args:
            learning_rate: learning rate of the step.
            norm: norm of its gradient.
            clock: time and clips of the interval.
            work: what a clip costs; None: not counted.
        """
        at, interval = self._at, self._at.interval
        if at.step % self._session.config.TRAIN.LOG_INTERVAL and at.step != self._session.steps:
            return
        clock.start("saving")
        world = self._session.group.world
        rate = clock.samples / clock.seconds * world
        values = {
            "loss": interval.loss / interval.steps if interval.steps else None,
            "psnr": interval.psnr / interval.steps if interval.steps else None,
            "lr": learning_rate,
            "grad_norm": norm if math.isfinite(norm) else None,
            "data_wait": clock.data_wait,
            "samples_per_s": rate,
            "tflops": None if work is None else work.tflops(rate),
            "peak_share": None if work is None else work.share(rate, world),
            "seconds": clock.seconds,
            "cache_hits": clock.hits,
            "cache_misses": clock.misses,
            "peak_memory": peak_memory(clock.device),
        }
        values |= clock.remote()
        values |= {f"seconds_{part}": clock.spent(part) for part in STEP_PARTS}
        self._write("train", values | {"seconds_saving": clock.spent("saving")})
        clock.start("other")
        at.interval = Interval()
        clock.restart()

    def validation(self, values: dict[str, Any], picture: np.ndarray | None) -> None:
        """Write the values of a validation, and its picture (H, W, 3) uint8."""

    def unread(self, seq: str, why: str) -> None:
        """Write which sequence has a clip that can't be read."""

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        """Write values of this step."""


class RunRecords(Records):
    """Writes metrics.jsonl, TensorBoard, sample pictures, and Weights & Biases for TRAIN.WANDB."""

    def __init__(self, session: Session, at: Position) -> None:
        super().__init__(session, at)
        self._run = session.run
        begun = session.state is not None
        kept = (at.step, at.validated_step) if begun else (-1, -1)
        self._metrics = run_folder.MetricsFile(self._run, *kept)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies' deprecations are none of ours
            from torch.utils.tensorboard import SummaryWriter

        # What an interrupted start wrote after the checkpoint is hidden by TensorBoard.
        self._board = SummaryWriter(str(self._run), purge_step=at.step + 1 if begun else None)
        self._wandb = open_wandb(self._run, session.config)

    def close(self) -> None:
        """Close the TensorBoard file and the run on Weights & Biases."""
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def unread(self, seq: str, why: str) -> None:
        """Write which sequence has a clip that can't be read."""
        self._metrics.write({"kind": "unread", "step": self._at.step, "seq": seq, "error": why})

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        step = self._at.step
        epoch = epochs_at(self._session.phases, step)
        self._metrics.write({"kind": kind, "step": step, "epoch": epoch, **values})
        flat = leaves(values)
        known = {f"{kind}/{name}": value for name, value in flat.items() if value is not None}
        for name, value in known.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()
        if self._wandb is not None:
            self._wandb.log(known, step=step)

    def validation(self, values: dict[str, Any], picture: np.ndarray | None) -> None:
        """Write the values of a validation, and its picture (H, W, 3) uint8."""
        self._write("val", values)
        if picture is None:
            return
        step = self._at.step
        run_folder.write_picture(self._run, step, picture)
        self._board.add_image("val/sample", picture, step, dataformats="HWC")
        if self._wandb is not None:
            import wandb

            self._wandb.log({"val/sample": wandb.Image(picture)}, step=step)
