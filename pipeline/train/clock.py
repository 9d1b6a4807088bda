"""Time of a run, part by part."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..storage.disk_cache import turn_off
from ..storage.traffic import Traffic
from .data.loader import Batch

StepPart = Literal["data", "to_device", "forward", "backward", "optimizer", "other"]
Part = StepPart | Literal["validation", "saving"]

STEP_PARTS: tuple[StepPart, ...] = get_args(StepPart)
"""Parts of a training step: waiting for a batch; copying and normalising it; network and loss;
their gradient; the update of weights and their average; the rest."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Time of a run's loop, part by part."""

    steps: int
    wall_seconds: float
    """Time from before the first step until after the last checkpoint."""
    seconds: dict[Part, float]
    """Time of each part; together the wall time."""


class Clock:
    """Counts each instant to the part that was started last, so the parts add up.

    Args:
        device: device that computes.
        exact: wait for the device at each change of part. Without it, a GPU's work counts as
            the part in which the process waits for it next.
    """

    def __init__(self, device: torch.device, *, exact: bool = False) -> None:
        self.device = device
        self._waits = exact and device.type == "cuda"
        self._part: Part = "other"
        self._seconds: dict[Part, float] = dict.fromkeys((*STEP_PARTS, "validation", "saving"), 0.0)
        self._steps = 0
        self._is_remote = False
        self._began = self._marked = time.perf_counter()
        self.restart()

    def restart(self) -> None:
        """Begin a new interval."""
        self._before = dict(self._seconds)
        self.samples = self.hits = self.misses = self.steps = 0
        self.traffic = Traffic()

    def start(self, part: Part) -> None:
        """End the part before, and begin this one."""
        if self._waits:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._seconds[self._part] += now - self._marked
        self._part, self._marked = part, now

    def count(self, batches: list[Batch]) -> None:
        """Count a step."""
        self._steps += 1
        self.steps += 1
        for batch in batches:
            self.samples += len(batch["seq"]) if batch["weight"] else 0
            self.hits += batch["cache"][0]
            self.misses += batch["cache"][1]
            self.traffic += batch["traffic"]
        if self.traffic.trouble:
            turn_off(self.traffic.trouble)

    def spent(self, part: Part) -> float:
        """Return seconds of the interval that went into a part which has ended."""
        return self._seconds[part] - self._before[part]

    def total(self, part: Part) -> float:
        """Return seconds since the start that went into a part which has ended."""
        return self._seconds[part]

    @property
    def seconds(self) -> float:
        """Seconds of the interval that went into steps; validating and saving do not count."""
        return max(sum(self.spent(part) for part in STEP_PARTS), 1e-9)

    @property
    def data_wait(self) -> float:
        """Share of the interval's steps that was spent waiting for data, 0 to 1."""
        return self.spent("data") / self.seconds

    def remote(self) -> dict[str, float | None]:
        """Return what the interval took from buckets, for the log; empty: the run reads none.

        Workers read ahead, so an interval of few steps may have read nothing.
        """
        self._is_remote |= self.traffic.used > 0
        if not self._is_remote:
            return {}
        used = self.traffic.used
        return {
            "fetched_over_used": self.traffic.fetched / used if used else None,
            "requests_per_step": self.traffic.requests / max(self.steps, 1),
        }

    def profile(self) -> Profile:
        """Return the time of each part since the start."""
        self.start(self._part)
        return Profile(self._steps, self._marked - self._began, dict(self._seconds))

    def note(self, loss: float, quality: float) -> str:
        """Return loss, PSNR and data wait in a line."""
        return f"loss {loss:.4f}, {quality:.2f} dB, data wait {self.data_wait:.0%}"
