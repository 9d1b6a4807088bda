"""`make bench-model`: the network's speed, memory and share of the machine's peak.

The baseline is the same network in the plain style in which such networks are published
(`plain_vrt.py`), float32. Each run is a process of its own; variants take turns; CPU time on one
thread, the least of the repeats; peak memory above what the process held with its weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from .figures import Figure, resident

CLIP = (1, 6, 3, 64, 64)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain recomputed": {"use_checkpoint_attn": True, "use_checkpoint_ffn": True},
    "ours": {},
    "ours, feed-forward recomputed": {"use_checkpoint_ffn": True},
    "ours, all recomputed": {},
    "ours bf16": {},
}
FUSED = ("baseline with spikes", "baseline without spikes")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    """Above what was held before it began."""


def measure(variant: str, *, training: bool, shape: tuple[int, ...] = CLIP) -> Run:
    """Run a forward pass or a training step in a process of its own."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(theirs, variant, training, shape))
    process.start()
    theirs.close()  # so that a process that dies is noticed
    assert process.pid is not None
    ours.recv()  # weights are there
    before = peak = resident(process.pid)
    ours.send("go")
    while not ours.poll(0.005):
        peak = max(peak, resident(process.pid))
    cpu, wall = ours.recv()
    process.join()
    return Run(cpu, wall, peak - before)


def _run(link: Connection, variant: str, training: bool, shape: tuple[int, ...]) -> None:
    import torch

    from spikedeblur.configs import load_config
    from spikedeblur.model import build_model
    from spikedeblur.third_party.VRT import VRT, Recompute, set_recompute

    from .plain_vrt import PlainVRT

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: Any
    clip, sharp = torch.rand(shape), torch.rand(shape)
    inputs = [clip]
    if variant in FUSED:
        spikes = f"MODEL.USE_SPIKE={str(variant == FUSED[0]).lower()}"
        config = load_config("configs/deblur/vrt_spike_baseline.yaml", (spikes,))
        model = build_model(config).train(training)
        inputs.append(torch.rand(*shape[:2], config.DATA.K, *shape[3:]))
    else:
        kind = PlainVRT if variant.startswith("plain") else VRT
        model = kind(drop_path_rate=0.0, **VARIANTS[variant]).train(training)
    if variant == "ours, all recomputed":
        set_recompute(model, Recompute(True, True, True, True, True))
    link.send("ready")
    link.recv()
    wall, cpu = time.perf_counter(), time.process_time()
    bf16 = variant.endswith("bf16")
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model(*inputs)
        if training:
            ((out.float() - sharp) ** 2 + 1e-6).sqrt().mean().backward()
    link.send((time.process_time() - cpu, time.perf_counter() - wall))


def best(
    variants: list[str], repeats: int, *, training: bool, shape: tuple[int, ...] = CLIP
) -> dict[str, Run]:
    """Measure variants in turn; of each the least of every figure."""
    runs: dict[str, list[Run]] = {variant: [] for variant in variants}
    for _ in range(repeats):
        for variant in variants:
            runs[variant].append(measure(variant, training=training, shape=shape))
    return {
        variant: Run(
            min(r.cpu_seconds for r in found),
            min(r.wall_seconds for r in found),
            min(r.peak_bytes for r in found),
        )
        for variant, found in runs.items()
    }


def matmul_peak() -> float:
    """Return the FLOP/s of a float32 product of 2048x2048 matrices on one thread."""
    import torch

    torch.set_num_threads(1)
    side = 2048
    a, b = torch.rand(side, side), torch.rand(side, side)
    seconds = math.inf
    for _ in range(6):
        began = time.process_time()
        torch.mm(a, b)
        seconds = min(seconds, time.process_time() - began)
    return 2 * side**3 / seconds


@contextmanager
def timed_parts(parts: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Yield CPU seconds by name, filled while the modules run."""
    seconds = dict.fromkeys(parts, 0.0)
    began: dict[str, float] = {}
    handles = []

    def hooks(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(*_: Any) -> None:
            began[name] = time.process_time()

        def after(*_: Any) -> None:
            seconds[name] += time.process_time() - began[name]

        return before, after

    for name, modules in parts.items():
        before, after = hooks(name)
        for module in modules:
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
    yield seconds
    for handle in handles:
        handle.remove()


def by_part(name: str, side: int, overrides: tuple[str, ...] = ()) -> list[Figure]:
    """CPU seconds of a configuration's forward pass by part."""
    import torch

    from spikedeblur.configs import load_config
    from spikedeblur.model import build_model

    config = load_config(f"configs/deblur/{name}.yaml", overrides)
    model: Any = build_model(config).eval()
    vrt = model.vrt
    stages = [getattr(vrt, f"stage{i}") for i in range(1, 8)]
    parts = {f"stage {i}": [stage] for i, stage in enumerate(stages, 1)}
    parts |= {"reconstruction": list(vrt.stage8)}
    if vrt.pa_frames:
        parts |= {"SpyNet": [vrt.spynet], "alignment": [stage.pa_deform for stage in stages]}
    if model.use_spike:
        parts |= {
            "spike encoder": [model.spike_encoder],
            "spike attention": [model.spike_temporal_sa],
            "fusion": list(model.cross_attn_fuse.fuse_blocks),
        }
    frames = config.DATA.CLIP_LEN
    rgb = torch.rand(1, frames, 3, side, side)
    voxels = torch.rand(1, frames, config.DATA.K, side, side)
    torch.set_num_threads(1)
    with torch.no_grad():
        model(rgb, voxels)
        with timed_parts(parts) as seconds:
            began = time.process_time()
            model(rgb, voxels)
            total = time.process_time() - began
    detail = ", ".join(f"{part} {s:.2f}" for part, s in seconds.items())
    found = [
        Figure(
            f"{name}, 1x{frames}x3x{side}x{side}, forward",
            total,
            "CPU s",
            detail=f"{detail} (alignment is part of the stages)",
        )
    ]
    if model.use_spike:
        spikes = sum(seconds[p] for p in ("spike encoder", "spike attention", "fusion"))
        found.append(
            Figure(
                f"{name}, spike branch and fusion",
                100 * spikes / (total - spikes),
                "% of the VRT's time",
                25 if vrt.pa_frames else None,
                at_most=True,
            )
        )
    return found


def spike_branch(repeats: int) -> list[Figure]:
    """What spike encoder, attention over time and fusion add to the baseline's cost."""
    found = []
    for training, name in ((False, "forward"), (True, "training step")):
        runs = best(list(FUSED), repeats, training=training, shape=(1, 5, 3, 64, 64))
        fused, alone = (runs[variant] for variant in FUSED)
        told = f"{fused.cpu_seconds:.1f} against {alone.cpu_seconds:.1f} CPU s"
        more = 100 * (fused.cpu_seconds / alone.cpu_seconds - 1)
        found.append(
            Figure(f"spike branch, {name}, time", more, "% of the VRT's", 25, told, at_most=True)
        )
        told = f"{fused.peak_bytes / 1e9:.2f} against {alone.peak_bytes / 1e9:.2f} GB"
        more = 100 * (fused.peak_bytes / alone.peak_bytes - 1)
        found.append(
            Figure(f"spike branch, {name}, memory", more, "% of the VRT's", 25, told, at_most=True)
        )
    return found


def compared(repeats: int) -> list[Figure]:
    """Speed and memory against the plain version."""
    from spikedeblur.configs import load_config

    from .device import flops

    baseline = load_config("configs/deblur/vrt_spike_baseline.yaml", ("MODEL.USE_SPIKE=false",))
    peak, work = matmul_peak(), flops(baseline, CLIP[1], CLIP[-1])
    forward = best(["plain", "ours", "ours bf16"], repeats, training=False)
    training = best(
        [
            "plain",
            "ours, feed-forward recomputed",
            "plain recomputed",
            "ours, all recomputed",
        ],
        repeats,
        training=True,
    )
    peak = max(peak, matmul_peak())

    def share(variant: str) -> float:
        return 100 * work / forward[variant].cpu_seconds / peak

    def told(run: Run) -> str:
        return (
            f"{run.cpu_seconds:.1f} CPU s, {run.wall_seconds:.1f} s, {run.peak_bytes / 1e9:.2f} GB"
        )

    fast, lean = training["ours, feed-forward recomputed"], training["ours, all recomputed"]
    plain, plain_lean = training["plain"], training["plain recomputed"]
    base, ours, low = forward["plain"], forward["ours"], forward["ours bf16"]
    return [
        Figure(
            "plain version",
            share("plain"),
            "% of matmul peak",
            15,
            f"{told(base)}; {work / 1e9:.0f} GFLOP, peak {peak / 1e9:.0f} GFLOP/s",
        ),
        Figure("forward", share("ours"), "% of matmul peak", 42, told(ours)),
        Figure("forward", base.cpu_seconds / ours.cpu_seconds, "x the plain version", 2.8),
        Figure(
            "forward, bf16",
            base.cpu_seconds / low.cpu_seconds,
            "x the plain version",
            4.5 if _has_amx() else None,
            told(low) + ("" if _has_amx() else "; this CPU has no AMX"),
        ),
        Figure(
            "forward, peak memory",
            ours.peak_bytes / base.peak_bytes,
            "of the plain version's",
            1.0,
            at_most=True,
        ),
        Figure(
            "training step",
            plain.cpu_seconds / fast.cpu_seconds,
            "x faster than the plain version",
            1.9,
            f"{told(fast)} against {told(plain)}",
        ),
        Figure(
            "training step, memory",
            plain.peak_bytes / fast.peak_bytes,
            "x leaner, at once",
            2.3,
        ),
        Figure(
            "training step, all recomputed, memory",
            plain_lean.peak_bytes / lean.peak_bytes,
            "x leaner than the plain version, recomputed",
            1.3,
            f"{told(lean)} against {told(plain_lean)}",
        ),
        Figure(
            "training step, all recomputed",
            plain_lean.cpu_seconds / lean.cpu_seconds,
            "x faster than that",
            1.0,
        ),
    ]


def linear_cost(repeats: int) -> list[Figure]:
    """What twice the rows, columns or frames take of the time and memory of one pass."""
    shapes = {
        "once": (1, 6, 3, 128, 128),
        "twice the rows": (1, 6, 3, 256, 128),
        "twice the columns": (1, 6, 3, 128, 256),
        "twice the frames (2.2 times the pairs)": (1, 12, 3, 128, 128),
    }
    runs: dict[str, list[Run]] = {name: [] for name in shapes}
    for _ in range(repeats):
        for name, shape in shapes.items():
            runs[name].append(measure("ours", training=False, shape=shape))
    seconds = {name: min(run.cpu_seconds for run in found) for name, found in runs.items()}
    peaks = {name: min(run.peak_bytes for run in found) for name, found in runs.items()}
    found = []
    for name in list(shapes)[1:]:
        most = 2.4 if "frames" in name else 2.2
        told = f"{seconds[name]:.1f} against {seconds['once']:.1f} CPU s"
        found.append(
            Figure(f"{name}, time", seconds[name] / seconds["once"], "of once", most, told, True)
        )
        told = f"{peaks[name] / 1e9:.2f} against {peaks['once'] / 1e9:.2f} GB"
        found.append(
            Figure(f"{name}, memory", peaks[name] / peaks["once"], "of once", most, told, True)
        )
    return found


def _has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="make bench-model", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts-only", action="store_true", help="leave the comparison out")
    options = parser.parse_args()
    figures = [
        *by_part("quickstart", 64),
        *by_part("vrt_spike_baseline", 64, ("MODEL.PRETRAINED=null",)),
    ]
    if not options.parts_only:
        figures += spike_branch(options.repeats)
        figures += linear_cost(options.repeats)
        figures += compared(options.repeats)
    for figure in figures:
        print(figure.line())
    if options.json:
        content = [asdict(figure) | {"passed": figure.passed} for figure in figures]
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
