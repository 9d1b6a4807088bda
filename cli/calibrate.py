"""`spikedeblur calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .help_page import OUTPUT
from .options import Geometry, Json, overwrites, spike_options
from .output import report, require_writable

Out = Annotated[
    Path,
    typer.Option(
        help="Sensor's file to write, such as sensor.zarr; beside it a PNG.",
        metavar="FILE",
        rich_help_panel=OUTPUT,
    ),
]
Dark = Annotated[
    Path | None,
    typer.Option(help="Recording with the lens covered, a second or more.", metavar="FILE.dat"),
]
Flat = Annotated[
    Path | None,
    typer.Option(
        help="Recording of an even surface under constant light, a second or more.",
        metavar="FILE.dat",
    ),
]
Recording = Annotated[
    list[Path] | None,
    typer.Option(
        help="Recording of a moving scene, where there is no --flat; may be repeated.",
        metavar="FILE.dat",
    ),
]
Even = Annotated[
    bool,
    typer.Option(
        "--even",
        help="The light was even over the frame: smooth differences are the pixels', too.",
    ),
]


def calibrate(
    out: Out,
    dark: Dark = None,
    flat: Flat = None,
    recording: Recording = None,
    geometry: Geometry = None,
    even: Even = False,
    overwrite: Annotated[bool, overwrites("a sensor's file that is there")] = False,
    json: Json = False,
) -> None:
    """Measure a spike camera's pixels: gain, dark rate, hot and dead ones.

    `restore --sensor` and `evaluate --sensor` correct them. Either recording is enough for a part
    of it: --dark finds dark rates and hot pixels, --flat gains and dead ones. Without --flat,
    --recording finds gains, less surely, from any scene that moves over the whole picture.

    Example: spikedeblur calibrate --dark dark.dat --flat flat.dat --out sensor.zarr
    """
    if dark is None and flat is None and not recording:
        raise typer.BadParameter(
            "expected --dark, --flat or --recording, got none; for example --dark dark.dat",
            param_hint="--dark / --flat / --recording",
        )
    if flat is not None and recording:
        raise typer.BadParameter(
            "--flat and --recording both tell gains, and --flat more surely; leave --recording out",
            param_hint="--flat / --recording",
        )
    require_writable(out)
    from ..pipeline.calibrate import job
    from .progress import progress_bar

    with progress_bar("Calibrating", "parts") as reporter:
        summary = job.calibrate(
            out,
            dark=dark,
            flat=flat,
            recordings=recording or (),
            options=spike_options(geometry),
            even=even,
            overwrite=overwrite,
            reporter=reporter,
        )
    words = [f"{summary.out}: {summary.height}x{summary.width} pixels, {summary.hot} hot"]
    words[0] += f", {summary.dead} dead; {summary.filled} of these tell nothing and are filled from"
    words[0] += f" their neighbours; {summary.picture} shows them"
    if summary.dark_rate is not None:
        words.append(f"Dark rate {summary.dark_rate:.3g} spikes a sample")
    if summary.told is not None:
        words.append(
            f"Gains spread by {summary.spread_before:.2%}; the scene tells {summary.told:.0%} of "
            f"them, each to {summary.error:.2%}"
        )
    elif summary.spread_before is not None:
        words.append(
            f"Gains spread by {summary.spread_before:.2%}; one half of --flat, corrected by the "
            f"other, by {summary.spread_after:.2%}; each gain is known to {summary.error:.2%}"
        )
    if summary.uneven is not None:
        words.append(
            f"Over the frame, light changes smoothly by {summary.uneven:.0%}: taken for lamp and "
            "lens, not for gain (--even keeps it)"
        )
    report(summary, "\n".join(words), json=json)
