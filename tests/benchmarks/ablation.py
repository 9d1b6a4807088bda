"""`make bench-ablation`: what each part of the small network is worth.

Each variant is trained anew on the embedded scenes for the same number of steps, and measured on
scikit-learn's photographs in motion, as in `make bench-quality`; and on scenes of validation, in
which, unlike in photographs, things move apart. Stopped, it goes on where it was: give the same
--work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from spikedeblur.configs import load_config
from spikedeblur.model import build
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.evaluate.job import evaluate_sequences
from spikedeblur.pipeline.evaluate.scores import Evaluation
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import folder_clips, scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.voxelize import voxelize_manifest
from spikedeblur.third_party.VRT import VRT

from .quality import MAIN, write_frames

CONFIG = Path("configs/deblur/quickstart.yaml")


class WithoutTrunk(VRT):
    """The network without its stages: first convolution, late skip and last convolution remain."""

    def _body(self, first: Tensor, flows: Any, fuse: Any) -> Tensor:
        return torch.zeros_like(first)


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table."""

    name: str
    overrides: tuple[str, ...] = ()
    spike_scale: int = 2
    trunk: bool = True


FULL_ATTENTION = "MODEL.VRT.depths=[1, 1, 1, 1, 1, 1, 1, 1]"
WITHOUT_MOTION = "MODEL.SPIKE_MOTION=false"

VARIANTS = (
    Variant("quickstart.yaml"),
    Variant("without spikes", ("MODEL.USE_SPIKE=false",)),
    Variant(
        "without spikes, as many parameters",
        (
            "MODEL.USE_SPIKE=false",
            FULL_ATTENTION,
            "MODEL.VRT.embed_dims=[76, 76, 76, 76, 76, 76, 76, 76]",
        ),
    ),
    Variant(
        "fusion instead of the late skip", ("MODEL.SPIKE_SKIP=false", "MODEL.FUSE.ENABLED=true")
    ),
    Variant("without fusion", ("MODEL.FUSE.ENABLED=false",)),
    Variant("without mutual attention", ("MODEL.VRT.mul_attn_ratio=0",)),
    Variant(
        "late skip alone",
        (
            "MODEL.FUSE.ENABLED=false",
            "MODEL.VRT.mul_attn_ratio=0",
            "MODEL.SPIKE_TSA.ENABLED=false",
        ),
    ),
    Variant("without the residues", ("MODEL.SPIKE_ENCODER.SEES_RESIDUES=false",)),
    Variant("late skip of the full scale alone", ("MODEL.SPIKE_SKIP_SCALES=1",)),
    Variant("spike encoder without the blurred frame", ("MODEL.SPIKE_ENCODER.SEES_BLUR=false",)),
    Variant("without temporal attention", ("MODEL.SPIKE_TSA.ENABLED=false",)),
    Variant("without trunk", trunk=False),
    Variant("trunk with attention at full scale", (FULL_ATTENTION,)),
    Variant("corrected from the blurred frame", ("MODEL.RESIDUAL_BASE=blur",)),
    Variant("without motion", (WITHOUT_MOTION,)),
    Variant(
        "without motion, corrected from the blurred frame",
        (WITHOUT_MOTION, "MODEL.RESIDUAL_BASE=blur"),
    ),
    Variant(
        "the same, log1p", (WITHOUT_MOTION, "MODEL.RESIDUAL_BASE=blur", "DATA.NORM.MODE=log1p")
    ),
    Variant("spikes of the frames' size", spike_scale=1),
    Variant("flow and deformable alignment", ("MODEL.VRT.pa_frames=2",)),
)


def store(work: Path, spike_scale: int, *, scenes: int) -> Path:
    """Return a store of training and validation scenes and of the test's photographs."""
    path = work / f"spikes{spike_scale}.zarr"
    data = work / f"spikes{spike_scale}"
    rig = Rig(spike_scale=spike_scale)
    for split, number in (("train", scenes), ("val", 8)):
        simulate(data, scene_clips(split, number, size=(128, 128), length=65), rig)
    if not (work / "frames").exists():
        write_frames(work / "frames", MAIN)
    simulate(data, folder_clips(work / "frames"), rig)
    log, manifest = work / f"spikes{spike_scale}.txt", work / f"spikes{spike_scale}.json"
    options = AlignOptions(verify=False)
    align(data, "x4k1000fps", log=log, manifest=manifest, options=options)
    voxelize_manifest(manifest, path)
    return path


def measure(
    variant: Variant, work: Path, steps: int, number: int, keys: Sequence[str]
) -> tuple[Evaluation, float, float, float]:
    """Train a variant; return its evaluation, dB on scenes, millions of parameters, ms a step."""
    root = store(work, variant.spike_scale, scenes=number)
    overrides = (
        f"DATA.ROOT={root}",
        f"TRAIN.MAX_STEPS={steps}",
        f"TRAIN.VAL_INTERVAL={steps}",
        *keys,
        *variant.overrides,
    )
    config = load_config(CONFIG, overrides)
    run = work / variant.name.replace(" ", "-")
    network = VRT if variant.trunk else WithoutTrunk
    with mock.patch.object(build, "VRT", network):
        began = time.process_time()
        if train(config, run, resume=True).signal is not None:
            sys.exit("stopped; the same command goes on")
        busy = time.process_time() - began
        model = ModelOptions().open(run)
        size = sum(
            parameter.numel()
            for name, parameter in build.build_model(config).named_parameters()
            if variant.trunk or not name.startswith("vrt.stage")
        )
    trained = {"model": model}
    found = evaluate_sequences(open_store(root, "test"), ("blur", "sdm", "model"), trained=trained)
    scenes = evaluate_sequences(open_store(root, "val"), ("model",), trained=trained)
    return found, scenes.methods["model"].psnr, size / 1e6, 1000 * busy / steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="make bench-ablation", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("outputs/ablation"))
    parser.add_argument("--steps", type=int, default=600, help="of each variant")
    parser.add_argument("--scenes", type=int, default=240)
    parser.add_argument("--set", dest="keys", action="append", default=[], help="of all variants")
    parser.add_argument("--only", help="variants whose name holds this")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    found = {}
    print(
        f"| {options.steps} steps | parameters | CPU, ms a step | PSNR, dB | SSIM | over blur | "
        "over best SDM | scenes, dB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for variant in VARIANTS:
        if options.only and options.only not in variant.name:
            continue
        evaluation, on_scenes, millions, pace = measure(
            variant, options.work, options.steps, options.scenes, options.keys
        )
        blur, sdm, model = (evaluation.methods[name] for name in ("blur", "sdm", "model"))
        print(
            f"| {variant.name} | {millions:.2f} M | {pace:.0f} | {model.psnr:.2f} | "
            f"{model.ssim:.3f} | {model.psnr - blur.psnr:+.2f} | {model.psnr - sdm.psnr:+.2f} | "
            f"{on_scenes:.2f} |",
            flush=True,
        )
        found[variant.name] = {
            "psnr": model.psnr,
            "ssim": model.ssim,
            "blur": blur.psnr,
            "scenes": on_scenes,
        }
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
