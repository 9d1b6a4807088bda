"""What a training configuration may say: every key, its unit, its default, its effect.

Keys are UPPER_CASE as in the YAML, except the arguments of the published network under
`MODEL.VRT`, which keep their own names. Unknown keys are refused, and values that can't
work together are refused here, before any data is read.

A configuration may come from outside, inside a model file say. So every number has an upper
bound, and every text and list a greatest length: about a hundred times what is in use.
"""

from __future__ import annotations

from collections.abc import Iterator

from .data import DataConfig, NormConfig
from .model import ModelConfig
from .train import LossConfig, TrainConfig
from .values import Section

__all__ = ["Config", "NormConfig"]


class Config(Section):
    """A training configuration."""

    DATA: DataConfig = DataConfig()
    """Samples."""
    MODEL: ModelConfig = ModelConfig()
    """Network."""
    TRAIN: TrainConfig = TrainConfig()
    """Run."""
    LOSS: LossConfig = LossConfig()
    """Objective."""

    def misfits(self) -> Iterator[str]:
        """Yield why values of several sections do not fit each other."""
        model, multiple, schedule = self.MODEL, 8 * self.MODEL.TRUNK_SCALE, self.TRAIN.SCHEDULER
        if self.DATA.CROP_SIZE % multiple:
            yield (
                f"DATA.CROP_SIZE: expected a multiple of {multiple} (8 * MODEL.TRUNK_SCALE), "
                f"got {self.DATA.CROP_SIZE}"
            )
        for phase in self.TRAIN.PHASES:
            if phase.CROP_SIZE is not None and phase.CROP_SIZE % multiple:
                yield (
                    f"TRAIN.PHASES: from step {phase.FROM} on: CROP_SIZE: expected a multiple of "
                    f"{multiple} (8 * MODEL.TRUNK_SCALE), got {phase.CROP_SIZE}"
                )
        if schedule.MIN_LR > self.TRAIN.OPTIM.LR:
            yield (
                "TRAIN.SCHEDULER.MIN_LR: expected at most TRAIN.OPTIM.LR "
                f"({self.TRAIN.OPTIM.LR:g}), got {schedule.MIN_LR:g}"
            )
        if model.RECOMPUTE is not None and self.TRAIN.MEMORY_BUDGET is not None:
            yield (
                "expected MODEL.RECOMPUTE or TRAIN.MEMORY_BUDGET, which chooses it, got both; set "
                "one of them to null"
            )
        if self.DATA.INSTANTS and not (model.USE_SPIKE and model.SPIKE_MOTION):
            yield (
                "DATA.INSTANTS needs MODEL.USE_SPIKE and MODEL.SPIKE_MOTION, whose frames move to "
                "an instant; set these to true, or it to false"
            )
        if model.USE_SPIKE:
            yield from self._spike_misfits()
        elif self.TRAIN.OPTIM.BACKBONE_FROZEN_STEPS:
            yield (
                "TRAIN.OPTIM.BACKBONE_FROZEN_STEPS: without MODEL.USE_SPIKE there is nothing else "
                "to train; set it to 0"
            )

    def _spike_misfits(self) -> Iterator[str]:
        model, mode = self.MODEL, self.DATA.NORM.MODE
        for needs_relative, key in (
            (model.RESIDUAL_BASE == "sdm", "MODEL.RESIDUAL_BASE: sdm"),
            (model.SPIKE_MOTION, "MODEL.SPIKE_MOTION"),
        ):
            if needs_relative and mode != "relative":
                yield f"{key} needs DATA.NORM.MODE relative, got {mode}; set one of them"
        channels, stages = list(model.CHANNELS_PER_SCALE), list(model.VRT.embed_dims[:4])
        if channels != stages:
            yield (
                "MODEL.CHANNELS_PER_SCALE: expected the network's embed_dims of stages 1 to 4, "
                f"{stages}, got {channels}"
            )
        if not model.FUSE.ENABLED and not model.SPIKE_SKIP:
            yield (
                "MODEL.FUSE.ENABLED: false leaves only MODEL.SPIKE_SKIP for spikes to enter by, "
                "which is false; set it true, or MODEL.USE_SPIKE false"
            )
        for name, part in (("SPIKE_TSA", model.SPIKE_TSA), ("FUSE", model.FUSE)):
            if any(c % part.HEADS for c in channels):
                yield (
                    f"MODEL.{name}.HEADS: {part.HEADS} heads do not divide "
                    f"MODEL.CHANNELS_PER_SCALE {channels}"
                )
        strides = list(model.SPIKE_ENCODER.TEMPORAL_STRIDES or (1, 1, 1))
        if strides != [1, 1, 1]:
            yield (
                "MODEL.SPIKE_ENCODER.TEMPORAL_STRIDES: fusion needs a spike feature for each "
                f"frame, so expected [1, 1, 1] or null, got {strides}"
            )
