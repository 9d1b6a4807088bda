"""All that a GPU is for, measured on the device at hand: `make bench-device`, under ten minutes.

Each part is a process with a time limit of its own; what it measured until then is kept, and the
rest is measured all the same. Prints tables, and writes the rows to a JSON file:

- the network: time and memory of a forward pass and of a training step, the FLOP/s reached, and
  their share of what the device's own matrix product reaches in the same run and precision; in
  float32, bf16 and fp16, as written and with blocks compiled. FLOP are those of the forward pass,
  three times as many for a step; what a step recomputes is work, but not counted.
- light on the device, against NumPy's: at most a step of float16 apart
- `path`: a frame
- the loader: the share of a training step's time in which the device waits for its batch
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spikedeblur.configs import load_config
from spikedeblur.configs.schema import Config
from spikedeblur.model import build_model, constants
from spikedeblur.pipeline.host.device_memory import memory_taken
from spikedeblur.pipeline.train.precision import Precision
from spikedeblur.pipeline.train.step import keep_compiled
from spikedeblur.third_party.VRT import compile_blocks, windows

CHECKOUT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]

MINUTES = 9.0
"""Time for all parts together."""
LIMITS = {
    "off": 70,
    "bf16": 50,
    "fp16": 50,
    "light": 50,
    "path": 60,
    "loader": 90,
    "bf16 compiled": 170,
}
"""Seconds of each part, in order; what is compiled comes last, for it takes longest."""
TINY = (
    "DATA.K=8",
    "DATA.NUM_VOXEL_BINS=8",
    "MODEL.VRT.embed_dims=[8, 8, 8, 8, 8, 8, 8, 8]",
    "MODEL.VRT.num_heads=[2, 2, 2, 2, 2, 2, 2, 2]",
    "MODEL.VRT.depths=[0, 0, 0, 2, 0, 0, 0, 0]",
    "MODEL.CHANNELS_PER_SCALE=[8, 8, 8, 8]",
    "MODEL.SPIKE_MOTION=false",
    "MODEL.SPIKE_ENCODER.SEES_RESIDUES=false",
)
"""What makes quickstart.yaml small enough to try this script on a CPU (`--quick`)."""


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


def matmul_peak(device: torch.device, dtype: torch.dtype, *, quick: bool = False) -> float:
    """Return the FLOP/s of a product of large square matrices."""
    side = 256 if quick else 2048 if device.type == "cpu" else 8192
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * side**3 / seconds(lambda: torch.mm(a, b), device, 10)


def flops(config: Config, frames: int, side: int) -> float:
    """Return the FLOP of a forward pass, counted on tensors without contents.

    On those of a CPU, whose deformable convolution is a product, with attention written out and
    without oneDNN's own convolution, since nothing else is counted.
    """
    model = build_model(config).eval()
    trunk = side // config.MODEL.TRUNK_SCALE
    kept = (windows._plans, constants._made)  # real tensors must not meet these, nor the other way
    for made in kept:
        made.clear()
    try:
        with (
            torch.no_grad(),
            mock.patch("spikedeblur.model.spike_encoder._by_onednn", return_value=False),
            FakeTensorMode(allow_non_fake_inputs=True),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            rgb = torch.rand(1, frames, 3, side, side)
            model(rgb, torch.rand(1, frames, config.DATA.K, trunk, trunk))
    finally:
        for made in kept:
            made.clear()
    return float(counter.get_total_flops())


def network(part: str, options: argparse.Namespace) -> Iterator[Row]:
    """Measure every crop and number of frames; a row that needs too much memory says so."""
    amp, *compiled = part.split()
    device = torch.device(options.device)
    precision = Precision.choose(amp, device)
    config = load_config(options.config, options.set)
    peak = matmul_peak(device, precision.dtype or torch.float32, quick=options.quick)
    yield {"what": "matrix product", "TFLOP/s": peak / 1e12}
    for frames in options.frames:
        for crop in options.crops:
            forward_flops = flops(config, frames, crop)
            for what in ("training step",) if compiled else ("forward", "training step"):
                row: Row = {"what": what, "frames": frames, "crop": crop}
                torch.manual_seed(0)
                model = build_model(config).to(device).train(what != "forward")
                run = _pass(model, config, precision, frames, crop, device)
                try:
                    taken = memory_taken(run, device)  # before there is freed memory to use again
                    if compiled:
                        keep_compiled()
                        compile_blocks(model, "eager" if options.quick else "inductor")
                        began = time.perf_counter()
                        run()
                        wait(device)
                        row["first s"] = time.perf_counter() - began
                        taken = memory_taken(run, device) if device.type == "cuda" else taken
                    best = seconds(run, device, options.repeats)
                except (torch.OutOfMemoryError, MemoryError) as error:
                    yield row | {"failed": f"out of memory: {str(error)[:60]}"}
                    continue
                work = forward_flops * (1 if what == "forward" else 3) / best
                yield row | {
                    "ms": 1e3 * best,
                    "GB": taken / 1e9,  # above weights, gradients and inputs
                    "TFLOP/s": work / 1e12,
                    "of peak": work / peak,
                }


def _pass(
    model: Any, config: Config, precision: Precision, frames: int, side: int, device: torch.device
) -> Callable[[], object]:
    trunk = side // config.MODEL.TRUNK_SCALE
    rgb, sharp = (torch.rand(1, frames, 3, side, side, device=device) for _ in range(2))
    voxels = torch.rand(1, frames, config.DATA.K, trunk, trunk, device=device)

    def forward() -> Tensor:
        with nullcontext() if model.training else torch.no_grad(), precision.autocast():
            out: Tensor = model(rgb, voxels)
        return out

    scaler = precision.scaler()

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        scaler.scale((forward().float() - sharp).abs().mean()).backward()

    return step if model.training else forward


def light(part: str, options: argparse.Namespace) -> Iterator[Row]:
    """Make the light of packed spikes on the device, and compare it with NumPy's."""
    from spikedeblur.model.packed_spikes import light_of_packed
    from spikedeblur.pipeline.spikes.intervals import light_of_spikes

    device, bins, samples, beside = torch.device(options.device), 32, 257, 64
    height, width = (16, 24) if options.quick else (180, 320)
    random = np.random.default_rng(0).random((samples + 2 * beside, height, width))
    for rate in (0.01, 0.3):
        spikes = (random < rate).astype(np.uint8)
        packed = torch.from_numpy(np.packbits(spikes, axis=-1, bitorder="little")).to(device)
        made: list[Tensor] = []

        def run(packed: Tensor = packed, made: list[Tensor] = made) -> None:
            made[:] = [light_of_packed(packed, bins, beside, samples)]

        taken = memory_taken(run, device)
        best = seconds(run, device, options.repeats)
        began = time.perf_counter()
        expected = light_of_spikes(spikes, bins, beside, samples).astype(np.float16)
        numpy_seconds = time.perf_counter() - began
        found = made[0].to(torch.float16).cpu().numpy()
        # Numbers of one sign are as many steps apart as their bits, read as whole numbers.
        steps = np.abs(found.view(np.int16).astype(int) - expected.view(np.int16).astype(int))
        yield {
            "what": f"light of {rate:g} spikes a sample, {height}x{width}",
            "ms": 1e3 * best,
            "GB": taken / 1e9,
            "NumPy ms": 1e3 * numpy_seconds,
            "float16 steps apart": int(steps.max()),
        }


def path(part: str, options: argparse.Namespace) -> Iterator[Row]:
    """Make frames sharp along the motion, as `--method path` does, on random spikes."""
    from spikedeblur.model.motion_deblur import sharp_along_motion

    device = torch.device(options.device)
    for height, width in ((32, 48),) if options.quick else ((192, 192), (720, 1280)):
        blur = torch.rand(1, 3, height, width, device=device)
        voxels = torch.rand(1, 32, height // 2, width // 2, device=device) - 0.5

        def run(blur: Tensor = blur, voxels: Tensor = voxels) -> None:
            sharp_along_motion(blur, voxels)

        with torch.inference_mode():
            taken = memory_taken(run, device)
            best = seconds(run, device, options.repeats)
        yield {"what": f"path, {height}x{width}", "ms": 1e3 * best, "GB": taken / 1e9}


def loader(part: str, options: argparse.Namespace) -> Iterator[Row]:
    """Feed training steps of quickstart.yaml from a store, by the trainer's own loader."""
    from spikedeblur.pipeline.sequences import open_store
    from spikedeblur.pipeline.sequences.light import seen_by
    from spikedeblur.pipeline.train.data.loader import open_loader
    from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
    from spikedeblur.pipeline.train.data.samples import ClipSamples
    from spikedeblur.pipeline.train.objective import to_inputs

    from .feeding import _made

    tiny = (*TINY, "DATA.K=32", "DATA.NUM_VOXEL_BINS=32", "DATA.CLIP_LEN=1")
    config = load_config("configs/deblur/quickstart.yaml", tiny if options.quick else ())
    device, norm, batch = torch.device(options.device), config.DATA.NORM, config.TRAIN.BATCH_SIZE
    precision = Precision.choose("auto", device)
    model = build_model(config).to(device).train()
    steps = 3 if options.quick else 60
    with tempfile.TemporaryDirectory() as folder:
        sequences = seen_by(norm, open_store(str(_made(Path(folder)))))
        index = ClipIndex.every_start([s.length for s in sequences], config.DATA.CLIP_LEN)
        samples = ClipSamples(sequences, index, crop_size=config.DATA.CROP_SIZE, augment=True)
        plan = StepPlan(index, batch)
        for workers in (1,) if options.quick else (1, 4, 8):
            waited = 0.0
            pin = device.type == "cuda"
            with open_loader(samples, plan, 0, steps + 2, workers=workers, pin=pin) as batches:
                for number in range(steps + 2):
                    if number == 2:  # workers have started, and kernels are chosen
                        wait(device)
                        began = time.perf_counter()
                    asked = time.perf_counter()
                    [one] = next(batches)
                    waited += time.perf_counter() - asked if number >= 2 else 0
                    given = to_inputs(one, device, norm)
                    with precision.autocast():
                        out = model(given.blur, given.voxels)
                    (out.float() - given.sharp).abs().mean().backward()
                    wait(device)
            whole = time.perf_counter() - began
            yield {
                "what": f"a step fed by {workers} loading processes",
                "ms": 1e3 * whole / steps,
                "of it waiting": waited / whole,
            }


PARTS = dict.fromkeys(LIMITS, network) | {"light": light, "path": path, "loader": loader}


def one_part(part: str, options: argparse.Namespace) -> None:
    """Measure a part in this process, and print its rows as lines of JSON."""
    for row in PARTS[part](part, options):
        print(json.dumps(row), flush=True)


def measured(part: str, arguments: list[str], limit: float) -> dict[str, Any]:
    """Return the rows of a part, measured in a process that is ended at its limit."""
    began, failed = time.perf_counter(), None
    command = [sys.executable, "-m", "tests.benchmarks.device", "--part", part, *arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=out, stderr=errors, start_new_session=True
        )
        try:
            if process.wait(limit):
                errors.seek(0)
                said = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
                failed = said[-1][:200]
        except subprocess.TimeoutExpired:
            failed = f"ended after {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
        out.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
    rows = [json.loads(line) for line in lines]
    return {"part": part, "rows": rows, "seconds": time.perf_counter() - began, "failed": failed}


def show(part: dict[str, Any]) -> None:
    """Print the table of a part."""
    print(f"\n{part['part']} ({part['seconds']:.0f} s)", flush=True)
    for row in part["rows"]:
        numbers = (f"{name} {_short(name, x)}" for name, x in row.items() if name != "what")
        print(f"  {row['what']:40} {'  '.join(numbers)}")
    if part["failed"]:
        print(f"  NOT WHOLE: {part['failed']}")


def _short(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1%}" if name.startswith("of ") else f"{value:.3g}"
    return str(value)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.device", description=__doc__)
    parser.add_argument("--config", default="configs/deblur/vrt_spike_baseline.yaml")
    parser.add_argument("--set", action="append", default=[], help="override a key: KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--crops", type=int, nargs="+", default=[192, 256])
    parser.add_argument("--frames", type=int, nargs="+", default=[5])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tries the script itself")
    parser.add_argument("--json", type=Path, default=Path("outputs/device.json"))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.config, options.set = "configs/deblur/quickstart.yaml", list(TINY)
        options.crops, options.frames, options.repeats = [16], [1], 1
    if options.part:
        one_part(options.part, options)
        return 0
    device = torch.device(options.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{card}, torch {torch.__version__}, {options.config}")
    arguments = ["--device", options.device, *(["--quick"] if options.quick else [])]
    if not options.quick:
        arguments += ["--config", options.config, "--repeats", str(options.repeats)]
        arguments += ["--crops", *map(str, options.crops), "--frames", *map(str, options.frames)]
        arguments += [word for key in options.set for word in ("--set", key)]
    found: dict[str, Any] = {"device": card, "torch": torch.__version__, "parts": []}
    found["config"] = options.config
    options.json.parent.mkdir(parents=True, exist_ok=True)
    last = time.perf_counter() + 60 * options.minutes
    for part in options.parts:
        if part == "fp16" and device.type != "cuda":
            continue
        limit = min(LIMITS[part], last - time.perf_counter())
        if limit < 1:
            skipped = {"part": part, "rows": [], "seconds": 0.0, "failed": "no time was left"}
            found["parts"].append(skipped)
        else:
            found["parts"].append(measured(part, arguments, limit))
        show(found["parts"][-1])
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\n{options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
