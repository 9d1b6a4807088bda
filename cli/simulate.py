"""`spikedeblur simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Split, leave_out, overwrites
from .output import command_line, parse_size, report

if TYPE_CHECKING:
    from ..pipeline.simulate.calibration import SpikeStand
    from ..pipeline.simulate.flaws import Flaws

_OF_CLIPS = (
    *("frames", "scenes", "size", "length", "split", "exposure", "stride", "fps", "spike_scale"),
    *("spikes_per_frame", "threshold", "noise", "linear_light", "fastest", "workers"),
)
"""Parameters that say what `--rig` has decided."""


def simulate(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Folder to add the recordings to.")],
    frames: Annotated[
        Path | None,
        typer.Option(
            help="Sharp frames: DIR/<train|val|test>/<group>/<clip>/0000.png ..., or X4K1000FPS's "
            "videos DIR/encoded_<split>/<group>/<clip>.mp4."
        ),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(min=1, max=10**6, help="Embedded procedural scenes to render instead."),
    ] = None,
    rig: Annotated[
        bool,
        typer.Option(
            "--rig",
            help="An example of your own bench instead: two cameras with clocks of their own, "
            "480x640 frames at 30 Hz through a rolling shutter, 240x320 spikes at 20 kHz.",
        ),
    ] = False,
    size: Annotated[str, typer.Option(help="HxW of the scenes, in pixels.")] = "128x128",
    length: Annotated[int, typer.Option(min=1, max=10**6, help="Frames of a scene.")] = 65,
    split: Annotated[
        Split | None, typer.Option(help="The split to write, or the only one to take.")
    ] = None,
    exposure: Annotated[int, typer.Option(min=1, max=10**6, help="Frames in one blur; odd.")] = 33,
    stride: Annotated[
        int, typer.Option(min=1, max=10**6, help="Frames from one blur to the next.")
    ] = 15,
    fps: Annotated[float, typer.Option(help="Sharp frames a second, in Hz.")] = 1000.0,
    spike_scale: Annotated[
        int, typer.Option(min=1, max=1000, help="Side of a spike pixel, in colour pixels.")
    ] = 2,
    spikes_per_frame: Annotated[
        int, typer.Option(min=1, max=1000, help="Spike samples a sharp frame.")
    ] = 8,
    threshold: Annotated[
        float, typer.Option(help="Spike camera's threshold; gain is 1 / threshold.")
    ] = 2.0,
    noise: Annotated[float, typer.Option(help="False spikes a pixel and sample, in [0, 1).")] = 0.0,
    gain_spread: Annotated[
        float,
        typer.Option(help="Standard deviation of the spike pixels' gains, as a share: 0.08, say."),
    ] = 0.0,
    dark_rate: Annotated[
        float, typer.Option(help="Mean spikes a sample of a spike pixel in the dark.")
    ] = 0.0,
    hot: Annotated[
        int, typer.Option(min=0, max=10**7, help="Spike pixels that fire often in the dark.")
    ] = 0,
    dead: Annotated[int, typer.Option(min=0, max=10**7, help="Spike pixels that never fire.")] = 0,
    linear_light: Annotated[
        bool, typer.Option("--linear-light", help="Average and record light, not sRGB values.")
    ] = False,
    fastest: Annotated[
        float, typer.Option(help="Scenes move up to so many times as fast as usual; 1 to 8.")
    ] = 1.0,
    instants: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Sharp frames kept of each exposure; 1 is the one in its middle."
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of scenes, phases and noise.")
    ] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes; all cores by default.")
    ] = None,
    overwrite: Annotated[bool, overwrites("clips made from other inputs")] = False,
    json: Json = False,
) -> None:
    """Record blurred frames and spikes of sharp high-speed frames, or of embedded scenes.

    Clips already there from the same inputs are kept. With --gain-spread, --dark-rate, --hot or
    --dead, the pixels of the one spike camera differ, and OUT/calibration has its recordings for
    `calibrate`: in the dark, and of a lamp.

    Example: spikedeblur simulate data/my --scenes 8 --split train
    """
    from ..pipeline.simulate.flaws import Flaws

    chosen = Flaws(gain_spread=gain_spread, dark_rate=dark_rate, hot=hot, dead=dead)
    flaws = None if chosen == Flaws() else chosen
    if rig:
        leave_out(context, _OF_CLIPS, "--rig makes one recording with settings of its own")
        _simulate_bench(out, seed, flaws, overwrite=overwrite, json=json)
        return
    if (frames is None) == (scenes is None):
        number = "none" if frames is None else "both"
        raise typer.BadParameter(f"expected one of --frames, --scenes or --rig, got {number}")
    from ..pipeline.simulate import job
    from ..pipeline.simulate.calibration import stand_of
    from ..pipeline.simulate.clips import SPLITS, folder_clips, scene_clips
    from .progress import progress_bar

    cameras = job.Rig(
        exposure=exposure,
        stride=stride,
        fps=fps,
        spike_scale=spike_scale,
        spikes_per_frame=spikes_per_frame,
        threshold=threshold,
        noise=noise,
        linear_light=linear_light,
        seed=seed,
        flaws=flaws,
        instants=instants,
    )
    with progress_bar("Simulating", "clips") as reporter:
        if frames is not None:
            clips = folder_clips(frames, (split,) if split else SPLITS, reporter)
        else:
            clips = scene_clips(split or "train", scenes or 0, parse_size(size), length, fastest)
        stand = stand_of(out, clips, cameras)
        summary = job.simulate(
            out, clips, cameras, workers=workers, overwrite=overwrite, reporter=reporter
        )
    pixels = _record_calibration(out, stand, overwrite=overwrite)
    report(
        summary,
        f"{summary.clips} clips with {summary.windows} blurred frames in {out}: "
        f"{summary.written} recorded, {summary.kept} kept{pixels}",
        next_command=command_line("align", out, "--layout", "x4k1000fps")
        + f" --exposure {exposure}"
        + (f" --fps {fps:g}" if fps != 1000 else ""),
        json=json,
    )


def _record_calibration(out: Path, stand: SpikeStand | None, *, overwrite: bool) -> str:
    """Record the dark and a lamp where pixels differ, and return a line about it."""
    if stand is None:
        return ""
    from ..pipeline.simulate.calibration import simulate_calibration

    folder = simulate_calibration(out, stand, overwrite=overwrite)
    return f"\n{folder}: recordings in the dark and of a lamp, for `calibrate`"


def _simulate_bench(
    out: Path, seed: int, flaws: Flaws | None, *, overwrite: bool, json: bool
) -> None:
    from ..pipeline.simulate.bench import Bench, simulate_bench
    from .progress import progress_bar

    bench = Bench(seed=seed, flaws=flaws)
    with progress_bar("Recording", "frames") as reporter:
        summary = simulate_bench(out, bench, overwrite=overwrite, reporter=reporter)
    pixels = _record_calibration(out, bench.stand(), overwrite=overwrite)
    kept = "" if summary.written else ", there already"
    report(
        summary,
        f"{summary.take}: {summary.frames} blurred frames, {summary.dropped} more were dropped, "
        f"stamps.csv of the others, and {summary.samples} spike samples{kept}\n"
        "Known are frames of 30 Hz with a shutter of 12 ms; to be found are the time by which they "
        "come late on the spikes' clock, and the readout of their rolling shutter"
        f"{pixels}\n"
        "docs/how-to/own-camera.md goes on with it",
        next_command=command_line("align", out, "--layout", Path(summary.layout)),
        json=json,
    )
