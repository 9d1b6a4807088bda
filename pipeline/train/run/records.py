"""Where a run is, and what it says of itself while it runs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....configs.schema import Config, TrainConfig
from ...host.device_memory import peak_memory
from ..clock import STEP_PARTS, Clock
from ..data.order import StepPlan
from ..validation import Validation
from . import folder as run_folder
from .wandb import WandbRun

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass
class Interval:
    """Sums since the last line of metrics.jsonl."""

    loss: float = 0.0
    psnr: float = 0.0
    steps: int = 0


@dataclass
class Position:
    """How far the run is: what changes and is neither weights nor optimizer."""

    step: int = 0
    validated_step: int = 0
    best_step: int | None = None
    best_psnr: float | None = None
    interval: Interval = field(default_factory=Interval)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Position:
        """Return the position that a checkpoint holds."""
        return cls(
            state["step"],
            state["validated_step"],
            state["best_step"],
            state["best_psnr"],
            Interval(**state["interval"]),
        )

    def note_step(self, loss: float, quality: float) -> None:
        """Count a step and its mean loss and PSNR."""
        self.step += 1
        self.interval.loss += loss
        self.interval.psnr += quality
        self.interval.steps += 1

    def note_left_out(self) -> None:
        """Count a step that changed nothing."""
        self.step += 1

    def note_validation(self, found: Validation) -> bool:
        """Remember that this step is validated; returns whether it is the best so far."""
        self.validated_step = self.step
        best = math.isfinite(found.psnr) and (self.best_psnr is None or found.psnr > self.best_psnr)
        if best:
            self.best_step, self.best_psnr = self.step, found.psnr
        return best

    def is_stale(self, options: TrainConfig) -> bool:
        """Whether so many validations were no better that the run should end."""
        if options.EARLY_STOP is None or self.best_step is None:
            return False
        return self.validated_step - self.best_step >= options.EARLY_STOP * options.VAL_INTERVAL


class Records:
    """What a run says of itself while it runs.

    metrics.jsonl, TensorBoard, sample pictures, and Weights & Biases where TRAIN.WANDB is set.
    """

    def __init__(self, run: Path, step: int, config: Config) -> None:
        self.run = run
        self.metrics = run_folder.MetricsFile(run, step)
        self.board = _summary_writer(run, step)
        project = config.TRAIN.WANDB
        self.wandb = None if project is None else WandbRun(run, project, config)
        self._validating = 0.0

    def close(self) -> None:
        """Close the TensorBoard file and the run on Weights & Biases."""
        self.board.close()
        if self.wandb is not None:
            self.wandb.close()

    def training(
        self, at: Position, plan: StepPlan, learning_rate: float, norm: float, clock: Clock
    ) -> None:
        """Write the means of the interval that ends with this step."""
        steps = at.interval.steps
        values = {
            "loss": at.interval.loss / steps if steps else None,
            "psnr": at.interval.psnr / steps if steps else None,
            "lr": learning_rate,
            "grad_norm": norm if math.isfinite(norm) else None,
            "data_wait": clock.data_wait,
            "samples_per_s": clock.samples / clock.seconds * plan.world,
            "seconds": clock.seconds,
            "cache_hits": clock.hits,
            "cache_misses": clock.misses,
            "peak_memory": peak_memory(clock.device),
        }
        values |= {f"seconds_{part}": clock.spent(part) for part in STEP_PARTS}
        values["seconds_saving"] = clock.spent("saving")
        self._write("train", at, plan, values)

    def validation(
        self, at: Position, plan: StepPlan, found: Validation, best: bool, clock: Clock
    ) -> None:
        """Write what a validation found, how long it took, and its picture."""
        seconds = clock.total("validation") - self._validating
        self._validating += seconds
        values = {
            "seconds": seconds,
            "psnr": found.psnr if math.isfinite(found.psnr) else None,
            "psnr_blur": found.psnr_blur,
            "windows": found.windows,
            "best": best,
        }
        self._write("val", at, plan, values)
        if found.picture is not None:
            run_folder.write_picture(self.run, at.step, found.picture)
            self.board.add_image("val/sample", found.picture, at.step, dataformats="HWC")
            if self.wandb is not None:
                self.wandb.picture("val/sample", found.picture, at.step)

    def unread(self, at: Position, seq: str, why: str) -> None:
        """Write which sequence has a clip that can't be read."""
        self.metrics.write({"kind": "unread", "step": at.step, "seq": seq, "error": why})

    def _write(self, kind: str, at: Position, plan: StepPlan, values: dict[str, Any]) -> None:
        epoch = at.step / plan.steps_an_epoch
        self.metrics.write({"kind": kind, "step": at.step, "epoch": epoch, **values})
        known = {f"{kind}/{name}": value for name, value in values.items() if value is not None}
        for name, value in known.items():
            self.board.add_scalar(name, value, at.step)
        self.board.flush()
        if self.wandb is not None:
            self.wandb.log(known, at.step)


def _summary_writer(run: Path, step: int) -> SummaryWriter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations are none of ours
        from torch.utils.tensorboard import SummaryWriter

    # What an interrupted start wrote after the checkpoint is hidden by TensorBoard.
    return SummaryWriter(str(run), purge_step=step + 1 if step else None)
