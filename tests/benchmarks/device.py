"""The network on the device at hand: `python -m tests.benchmarks.device`.

Prints, for each crop and number of frames, the time and the memory of a forward pass and of a
training step, the FLOP/s reached, and their share of what the device's own matrix product
reaches in the same run and the same precision. FLOP are those of the network's forward pass, and
three times as many for a step; what a step recomputes is work, but not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spikedeblur.configs import load_config
from spikedeblur.configs.schema import Config
from spikedeblur.model import build_model
from spikedeblur.pipeline.host.device_memory import memory_taken
from spikedeblur.pipeline.train.precision import Precision
from spikedeblur.third_party.VRT import windows


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table."""

    what: str
    frames: int
    crop: int
    ms: float
    gigabytes: float
    """Above what weights, gradients and inputs take."""
    tflops: float
    share_of_peak: float


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the least time of several runs."""
    found = []
    for _ in range(repeats):
        wait(device)
        began = time.perf_counter()
        run()
        wait(device)
        found.append(time.perf_counter() - began)
    return min(found)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a product of large square matrices."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * side**3 / seconds(lambda: torch.mm(a, b), device, 10)


def flops(config: Config, frames: int, side: int) -> float:
    """Return the FLOP of a forward pass, counted on tensors without contents.

    On those of a CPU, whose deformable convolution is a product, and with attention written out,
    since nothing else is counted.
    """
    model = build_model(config).eval()
    trunk = side // config.MODEL.TRUNK_SCALE
    windows._plans.clear()  # plans of real tensors must not meet these, nor the other way about
    try:
        with (
            torch.no_grad(),
            FakeTensorMode(allow_non_fake_inputs=True),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            rgb = torch.rand(1, frames, 3, side, side)
            model(rgb, torch.rand(1, frames, config.DATA.K, trunk, trunk))
    finally:
        windows._plans.clear()
    return float(counter.get_total_flops())


def measure(
    config: Config, device: torch.device, precision: Precision, options: argparse.Namespace
) -> list[Measured]:
    """Measure every crop and number of frames; a row that needs too much memory is left out."""
    peak = matmul_peak(device, precision.dtype or torch.float32)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{name}, {precision.dtype or torch.float32}, torch {torch.__version__}", end="")
    print(f", matrix product {peak / 1e12:.2f} TFLOP/s, compiled: {options.compile}")
    print(f"{'':14}   T  crop        ms      GB  TFLOP/s  of peak")
    rows = []
    for frames in options.frames:
        for crop in options.crops:
            forward_flops = flops(config, frames, crop)
            for what in ("forward", "training step"):
                torch.manual_seed(0)
                model = build_model(config).to(device).train(what != "forward")
                run = _pass(model, config, precision, frames, crop, device)
                try:
                    taken = memory_taken(run, device)  # before there is freed memory to use again
                    if options.compile:
                        model.compile(fullgraph=True, dynamic=False)
                        run()
                        taken = memory_taken(run, device) if device.type == "cuda" else taken
                    best = seconds(run, device, options.repeats)
                except (torch.OutOfMemoryError, MemoryError) as error:
                    print(f"{what:14} {frames:3} {crop:5}  out of memory: {str(error)[:60]}")
                    continue
                work = forward_flops * (1 if what == "forward" else 3)
                row = Measured(
                    what,
                    frames,
                    crop,
                    1000 * best,
                    taken / 1e9,
                    work / best / 1e12,
                    work / best / peak,
                )
                rows.append(row)
                print(
                    f"{what:14} {frames:3} {crop:5} {row.ms:9.1f} {row.gigabytes:7.2f} "
                    f"{row.tflops:8.2f} {row.share_of_peak:8.0%}",
                    flush=True,
                )
    return rows


def _pass(
    model: Any,
    config: Config,
    precision: Precision,
    frames: int,
    side: int,
    device: torch.device,
) -> Callable[[], object]:
    trunk = side // config.MODEL.TRUNK_SCALE
    rgb, sharp = (torch.rand(1, frames, 3, side, side, device=device) for _ in range(2))
    voxels = torch.rand(1, frames, config.DATA.K, trunk, trunk, device=device)

    def forward() -> Tensor:
        with nullcontext() if model.training else torch.no_grad(), precision.autocast():
            out: Tensor = model(rgb, voxels)
        return out

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        (forward().float() - sharp).abs().mean().backward()

    return step if model.training else forward


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.device", description=__doc__)
    parser.add_argument("--config", default="configs/deblur/vrt_spike_baseline.yaml")
    parser.add_argument("--set", action="append", default=[], help="override a key: KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--amp", default="auto", help="as TRAIN.AMP")
    parser.add_argument("--crops", type=int, nargs="+", default=[192, 256])
    parser.add_argument("--frames", type=int, nargs="+", default=[5, 6])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    device = torch.device(options.device)
    precision = Precision.choose(options.amp, device)
    rows = measure(load_config(options.config, options.set), device, precision, options)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
