"""Which parts of the published network, and of its fusion with spikes, a configuration turns on."""

from __future__ import annotations

from collections.abc import Iterator

from ...configs.schema.model import ModelConfig

_BODY = 7
"""Stages of VRT before stage 8, which consists of groups."""


def describe_parts(model: ModelConfig) -> dict[str, str]:
    """Return the names of the parts that are `on`, and of those that are `off`."""
    named = list(_parts(model))
    return {
        word: "; ".join(name for name, on in named if on is wanted) or "nothing"
        for word, wanted in (("on", True), ("off", False))
    }


def _parts(model: ModelConfig) -> Iterator[tuple[str, bool]]:
    spikes, depths = model.USE_SPIKE, model.VRT.depths
    yield "spike encoder", spikes
    yield "spikes' attention over time", spikes and model.SPIKE_TSA.ENABLED
    yield "fusion of spikes after stages 1 to 4", spikes and model.FUSE.ENABLED
    mutual = [int(depth * model.VRT.mul_attn_ratio) for depth in depths[:_BODY]]
    yield "mutual attention of frames", any(mutual)
    blocks = [*depths[:_BODY], sum(depths[_BODY:])]
    for on in (True, False):
        stages = ", ".join(str(i) for i, depth in enumerate(blocks, 1) if bool(depth) is on)
        if stages:
            yield f"attention in stages {stages}", on
    yield "flow and deformable alignment", bool(model.VRT.pa_frames)
    yield "late skip of spikes", spikes and model.SPIKE_SKIP
    yield "frame made sharp along the motion", spikes and model.SPIKE_MOTION
