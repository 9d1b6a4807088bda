"""`spikedeblur simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..pipeline.host.reporter import counted
from .help_page import SIMULATED, SPIKES
from .options import (
    Json,
    exposure_option,
    fps_option,
    instants_option,
    leave_out,
    overwrites,
    seed_option,
    size_option,
    typed,
    workers_option,
)
from .output import command_line, parse_size, report, require_writable

if TYPE_CHECKING:
    from ..pipeline.simulate.calibration import SpikeStand
    from ..pipeline.simulate.flaws import Flaws

CLIPS = "Embedded scenes"
_OF_CLIPS = (
    *("frames", "scenes", "size", "length", "split", "exposure", "stride", "fps", "spike_scale"),
    *("spike_size", "spikes_per_frame", "threshold", "noise", "linear_light", "fastest", "workers"),
)
"""Parameters that say what `--rig` has decided."""


Frames = Annotated[
    Path | None,
    typer.Option(
        help="Sharp frames: DIR/<train|val|test>/<group>/<clip>/0000.png ..., or X4K1000FPS's "
        "videos DIR/encoded_<split>/<group>/<clip>.mp4.",
        metavar="FOLDER",
    ),
]
Scenes = Annotated[
    int | None,
    typer.Option(
        min=1, max=10**6, help="Embedded procedural scenes to render instead.", metavar="N"
    ),
]
Rig = Annotated[
    bool,
    typer.Option(
        "--rig",
        help="An example of your own bench instead: two cameras with clocks of their own, "
        "480x640 frames at 30 Hz through a rolling shutter, 250x400 spikes at 20 kHz, of "
        "unequal pixels.",
    ),
]
Length = Annotated[
    int,
    typer.Option(
        min=1, max=10**6, help="Frames of a scene.", metavar="FRAMES", rich_help_panel=CLIPS
    ),
]
SplitToWrite = Annotated[
    Literal["train", "val", "test", "show"] | None,
    typer.Option(
        help="The split to write, or the only one to take; `show`: scenes for the eye, with "
        "lettering.",
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        min=1,
        max=10**6,
        help="Frames from one blur to the next.",
        metavar="FRAMES",
        rich_help_panel=SIMULATED,
    ),
]
SpikeScale = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        help="Side of a spike pixel, in colour pixels.",
        metavar="PIXELS",
        rich_help_panel=SPIKES,
    ),
]
SpikeSize = Annotated[
    str | None,
    size_option("Size of the spikes over the whole frame, in place of --spike-scale.", SPIKES),
]
SpikesPerFrame = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        help="Spike samples a sharp frame.",
        metavar="N",
        rich_help_panel=SPIKES,
    ),
]
Threshold = Annotated[
    float,
    typer.Option(
        help="Spike camera's threshold; gain is 1 / threshold.",
        metavar="NUMBER",
        rich_help_panel=SPIKES,
    ),
]
Noise = Annotated[
    float,
    typer.Option(
        help="False spikes a pixel and sample, in [0, 1).",
        metavar="SHARE",
        rich_help_panel=SPIKES,
    ),
]
GainSpread = Annotated[
    float,
    typer.Option(
        help="Standard deviation of the spike pixels' gains, as a share: 0.08, say.",
        metavar="SHARE",
        rich_help_panel=SPIKES,
    ),
]
DarkRate = Annotated[
    float,
    typer.Option(
        help="Mean spikes a sample of a spike pixel in the dark.",
        metavar="RATE",
        rich_help_panel=SPIKES,
    ),
]
Hot = Annotated[
    int,
    typer.Option(
        min=0,
        max=10**7,
        help="Spike pixels that fire often in the dark.",
        metavar="N",
        rich_help_panel=SPIKES,
    ),
]
Dead = Annotated[
    int,
    typer.Option(
        min=0,
        max=10**7,
        help="Spike pixels that never fire.",
        metavar="N",
        rich_help_panel=SPIKES,
    ),
]
LinearLight = Annotated[
    bool,
    typer.Option(
        "--linear-light",
        help="Average and record light, not sRGB values.",
        rich_help_panel=SIMULATED,
    ),
]
Fastest = Annotated[
    float,
    typer.Option(
        help="Scenes move up to so many times as fast as usual; 1 to 8.",
        metavar="TIMES",
        rich_help_panel=CLIPS,
    ),
]
Instants = Annotated[
    int,
    instants_option(
        "Sharp frames kept of each exposure; 1 is the one in its middle.", rich_help_panel=SIMULATED
    ),
]


def simulate(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="Folder to add the recordings to.")],
    frames: Frames = None,
    scenes: Scenes = None,
    rig: Rig = False,
    size: Annotated[str, size_option("Size of the scenes, in pixels.", CLIPS)] = "128x128",
    length: Length = 65,
    split: SplitToWrite = None,
    exposure: Annotated[int, exposure_option()] = 33,
    stride: Stride = 15,
    fps: Annotated[float, fps_option()] = 1000.0,
    spike_scale: SpikeScale = 2,
    spike_size: SpikeSize = None,
    spikes_per_frame: SpikesPerFrame = 8,
    threshold: Threshold = 2.0,
    noise: Noise = 0.0,
    gain_spread: GainSpread = 0.0,
    dark_rate: DarkRate = 0.0,
    hot: Hot = 0,
    dead: Dead = 0,
    linear_light: LinearLight = False,
    fastest: Fastest = 1.0,
    instants: Instants = 1,
    seed: Annotated[int, seed_option("scenes, phases and noise")] = 0,
    workers: Annotated[int | None, workers_option("Processes.", "one a core")] = None,
    overwrite: Annotated[bool, overwrites("clips made from other inputs")] = False,
    json: Json = False,
) -> None:
    """Record blurred frames and spikes of sharp video or of embedded scenes.

    Clips already there from the same inputs are kept. With --gain-spread, --dark-rate, --hot or
    --dead, the pixels of the one spike camera differ, and OUT/calibration has its recordings for
    `calibrate`: in the dark, and of a lamp. With --rig they differ unless --gain-spread 0 is given.

    Example: spikedeblur simulate data/my --scenes 8 --split train
    """
    from ..pipeline.simulate.flaws import Flaws

    require_writable(out)
    chosen = Flaws(gain_spread=gain_spread, dark_rate=dark_rate, hot=hot, dead=dead)
    flaws = None if chosen == Flaws() else chosen
    if rig:
        from ..pipeline.simulate.bench import USUAL_FLAWS

        if not typed(context, ("gain_spread", "dark_rate", "hot", "dead")):
            flaws = USUAL_FLAWS
        leave_out(context, _OF_CLIPS, "--rig makes one recording with settings of its own")
        _simulate_bench(out, seed, flaws, overwrite=overwrite, json=json)
        return
    if (frames is None) == (scenes is None):
        number = "none" if frames is None else "both"
        raise typer.BadParameter(
            f"expected one of --frames, --scenes or --rig, got {number}; for example --scenes 8"
        )
    from ..pipeline.simulate import job
    from ..pipeline.simulate.calibration import stand_of
    from ..pipeline.simulate.clips import SPLITS, folder_clips, scene_clips
    from .progress import progress_bar

    if spike_size is not None:
        leave_out(context, ("spike_scale",), "--spike-size says how large spike pixels are")
    cameras = job.Rig(
        exposure=exposure,
        stride=stride,
        fps=fps,
        spike_scale=spike_scale,
        spike_size=None if spike_size is None else parse_size(spike_size, "--spike-size"),
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
            if split == "show":
                raise typer.BadParameter(
                    "`show` is for --scenes; give train, val or test", param_hint="--split"
                )
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
        f"{counted(summary.clips, 'clip')} with {counted(summary.windows, 'blurred frame')} in "
        f"{out}: "
        f"{summary.written} recorded, {summary.kept} kept{pixels}",
        next_command=command_line("align", out, "--layout", "x4k1000fps")
        + f" --exposure {exposure}"
        + (f" --fps {fps:g}" if fps != 1000 else "")
        + (f" --instants {instants}" if instants > 1 else ""),
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
        f"{summary.take}: {counted(summary.frames, 'blurred frame')}, {summary.dropped} more were "
        f"dropped, stamps.csv of the others, and {counted(summary.samples, 'spike sample')}{kept}\n"
        "Known are frames of 30 Hz with a shutter of 12 ms; to be found are the lag of the spikes, "
        "and the readout of the frames' rolling shutter"
        f"{pixels}\n"
        "docs/how-to/own-camera.md goes on with it",
        next_command=command_line("align", out, "--layout", Path(summary.layout)),
        json=json,
    )
