"""`spikedeblur align`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..pipeline.host.reporter import counted
from .completion import LAYOUT_NAMES, layouts, offered
from .help_page import OUTPUT, SIMULATED
from .options import (
    Calibration,
    FrameRate,
    From,
    Gain,
    Geometry,
    Json,
    Rate,
    Readout,
    Sensor,
    Shutter,
    Start,
    Times,
    To,
    between,
    camera_clock,
    exposure_option,
    fps_option,
    instants_option,
    overwrites,
    spike_options,
)
from .output import command_line, free_name, note, report, require_writable, store_beside

if TYPE_CHECKING:
    from ..pipeline.align.summary import AlignSummary


_MOST_CORRECTIONS = 4
"""Most sequences of which the corrected clock is printed."""


def _layout(value: str) -> str:
    if value not in ("auto", *LAYOUT_NAMES) and not value.lower().endswith((".yaml", ".yml")):
        from .mistakes import did_you_mean

        near = did_you_mean(value, LAYOUT_NAMES)
        raise typer.BadParameter(
            f"expected auto, {', '.join(LAYOUT_NAMES)}, or a layout file FILE.yaml, got {value!r}"
            + (f"; {near}" if near else "")
        )
    return value


Layout = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE.yaml",
        callback=_layout,
        autocompletion=offered(layouts),
        help=f"How its folders are laid out: {', '.join(LAYOUT_NAMES)}; auto finds out and "
        "says; or a layout file for other folders, see docs/datasets.md.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Where there are two kinds: blur_gamma or blur (spk-gopro), spike_data or "
        "spike_full (s-sdm).",
        show_default="the first that is there",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        help="Alignment log to write.",
        show_default="outputs/logs/align_<layout>.txt",
        metavar="FILE.txt",
        rich_help_panel=OUTPUT,
    ),
]
ManifestFile = Annotated[
    Path | None,
    typer.Option(
        help="Manifest to write.",
        show_default="beside the log, .json",
        metavar="FILE.json",
        rich_help_panel=OUTPUT,
    ),
]
Verify = Annotated[bool, typer.Option(help="Measure each sequence's lag against its frames.")]
Estimate = Annotated[
    bool,
    typer.Option("--estimate", help="Correct clocks by the lag and drift that are proved."),
]
EstimateSpace = Annotated[
    Literal["similarity", "affine", "homography"] | None,
    typer.Option(help="Find --calibration from the frames, by this model."),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        help="HTML page to write: pictures and correlation curves by sequence.",
        metavar="FILE.html",
        rich_help_panel=OUTPUT,
    ),
]
Instants = Annotated[
    int | None,
    instants_option(
        "Keep sharp frames at so many instants of each exposure, for `evaluate --instants`; "
        "blurred frames must be averages of them.",
        "the middle",
        rich_help_panel=SIMULATED,
    ),
]
Overwrite = Annotated[bool, overwrites("a log or manifest that align didn't write")]


def align(
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    layout: Layout = "auto",
    variant: Variant = None,
    log: LogFile = None,
    manifest: ManifestFile = None,
    frame_rate: FrameRate = None,
    shutter: Shutter = None,
    start: Start = None,
    readout: Readout = None,
    times: Times = None,
    exposure: Annotated[int | None, exposure_option("33; GoPro: by name")] = None,
    fps: Annotated[float | None, fps_option("the layout's own")] = None,
    rate: Rate = None,
    geometry: Geometry = None,
    gain: Gain = None,
    verify: Verify = True,
    estimate: Estimate = False,
    calibration: Calibration = None,
    sensor: Sensor = None,
    since: From = None,
    until: To = None,
    estimate_space: EstimateSpace = None,
    plot: Plot = None,
    instants: Instants = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings as errors.")] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Pair blurred frames with their spikes, and verify the times from the frames.

    Writes the alignment log and, beside it, the manifest that voxelize starts from. Files that
    have not changed since the last run are not read again.

    Example: spikedeblur align data/my --layout x4k1000fps
    """
    from ..pipeline import align as stage
    from ..pipeline.align.layouts import choose_layout
    from ..pipeline.align.summary import summarise
    from .progress import progress_bar

    camera = camera_clock(frame_rate, shutter, start, times, fps, exposure)
    chosen, reason = choose_layout(root, layout)
    if reason is not None:
        note(f"Layout {chosen.NAME}, by {reason}")
    stem = f"align_{chosen.NAME}" + (f"_{variant}" if variant else "")
    log = log or Path("outputs/logs") / f"{stem}.txt"
    manifest = manifest or log.with_suffix(".json")
    require_writable(log, manifest, plot)
    options = stage.AlignOptions(
        exposure=exposure,
        fps=fps,
        camera=camera,
        variant=variant,
        spikes=spike_options(
            geometry, rate, gain, None, calibration, readout, sensor, between(since, until)
        ),
        instants=instants,
        verify=verify,
        estimate=estimate,
        estimate_space=estimate_space,
        plot=plot,
        strict=strict,
    )
    with progress_bar("Aligning", "sequences") as reporter:
        result = stage.align(
            root,
            chosen.NAME if reason else layout,
            log=log,
            manifest=manifest,
            options=options,
            overwrite=overwrite,
            reporter=reporter,
        )
    summary = summarise(result, log, manifest, reporter.warnings)
    if any(window.sharp for sequence in result.sequences for window in sequence.windows):
        following = command_line("voxelize", manifest, store_beside(root))
    else:  # nothing to train on
        following = command_line(
            *(
                "restore",
                "--model",
                "small",
                "--manifest",
                manifest,
                "--out",
                free_name(Path("sharp")),
            )
        )
    report(
        summary,
        _in_words(summary, verify or estimate) + (f"\nPictures {plot}" if plot else ""),
        json=json,
        next_command=following,
    )


def _in_words(summary: AlignSummary, verify: bool) -> str:
    lines = [
        f"{counted(summary.sequences, 'sequence')}, {counted(summary.windows, 'exposure')}, "
        f"{counted(summary.spikes, 'spike')}; "
        f"layout {summary.layout} at {summary.fps:g} frames a second"
        + (f", blurred frames from {summary.blur_kind}" if summary.blur_kind else "")
    ]
    if not verify:
        lines.append("Not verified (--no-verify)")
    elif not summary.verification:
        lines.append("Not verified: no sharp frames, and recordings end with the exposures")
    else:
        line = (
            f"Lag proved by the images in {summary.verified} of "
            f"{counted(summary.sequences, 'sequence')}; spikes fit the frames in {summary.fitting}"
        )
        if summary.worst_lag_seconds is not None:
            line += (
                f"; largest {1000 * summary.worst_lag_seconds:+.3f} ms "
                f"({summary.worst_lag_frames:+.1f} samples) in {summary.worst_lag_seq}"
            )
        lines.append(line)
    if summary.corrected:
        lines.append(
            f"Clock corrected in {counted(summary.corrected, 'sequence')}, as the manifest says"
        )
        shown = list(summary.corrections.items())[:_MOST_CORRECTIONS]
        lines += [f"  {seq}, restored without it: {options}" for seq, options in shown]
    lines.append(f"Log {summary.log}, manifest {summary.manifest}")
    return "\n".join(lines)
