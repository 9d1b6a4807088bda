"""`spikedeblur restore`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import require_times
from .output import report, require_local


class Bits(StrEnum):
    """Of a channel."""

    EIGHT = "8"
    SIXTEEN = "16"


def restore(
    out: Annotated[
        Path, typer.Option(help="Folder for the sharp frames: <frame>.png, or <seq>/<frame>.png.")
    ],
    blur: Annotated[
        Path | None,
        typer.Option(help="Folder of blurred frames such as 0031.png, by number; or an MP4."),
    ] = None,
    spikes: Annotated[
        Path | None, typer.Option(help="The .dat stream that holds their exposures.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Instead of one recording: all that `align` put in this manifest."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of the manifest: train, val or test.", show_default="all"),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Run folder of a trained model: a path or a URL.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Exported model, a file or a URL; or `small`, which ships.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Without a model: path, sdm, tfp, tfi or blur.", show_default="model"),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Alignment log with the frames' times.")] = None,
    seq: Annotated[
        str | None,
        typer.Option(help="Sequence in the log.", show_default="by the folder's name"),
    ] = None,
    exposure: Annotated[
        int | None, typer.Option(min=1, help="Without a log: sharp frames in a blurred one; odd.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Without a log: sharp frames a second, in Hz.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Spike samples a second, in Hz.", show_default="side file or preset"),
    ] = None,
    geometry: Annotated[
        str | None,
        typer.Option(
            help="Preset or HxW,bottom-up|top-down[,padded][,drop=START:STOP].",
            show_default="side file",
        ),
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(help="Spikes a sample at unit luminance.", show_default="side file or preset"),
    ] = None,
    first: Annotated[
        float | None,
        typer.Option(
            help="Time of the first spike sample, in seconds.", show_default="side file, else 0"
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="JSON or YAML: homography from spike to frame pixels.",
            show_default="as found by align",
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Side of the model's tiles, in pixels; 0: whole frames.",
            show_default="whole up to 512x512, else 256; less if memory is short",
        ),
    ] = None,
    flips: Annotated[
        bool,
        typer.Option(
            "--flips", help="Mean over four mirrored copies: four times the time, a little better."
        ),
    ] = False,
    short_bins: Annotated[
        int, typer.Option(min=1, help="Short window of sdm and tfp, in bins of 32 an exposure.")
    ] = 5,
    frames_per_exposure: Annotated[
        int, typer.Option(min=1, help="Sharp frames from each blurred one, <frame>_<m>.png.")
    ] = 1,
    step: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of an MP4: sharp frames from one blurred frame to the next.",
            show_default="the exposure",
        ),
    ] = None,
    bits: Annotated[
        Bits, typer.Option(help="Of a channel in the PNGs; 16 needs OpenCV.")
    ] = Bits.EIGHT,
    video: Annotated[
        Path | None,
        typer.Option(help="MP4 to write of all sharp frames; needs PyAV."),
    ] = None,
    video_fps: Annotated[
        float, typer.Option(min=0.1, help="Frames a second at which it plays.")
    ] = 30.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace frames made from other inputs.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Restore a sharp frame from each blurred one and its spikes.

    Needs a trained model (--model small, or --run), or a method without one (--method sdm). A run
    that was stopped goes on where it was.

    Example: spikedeblur restore --model small --blur frames --spikes spike.dat --exposure 33
    --fps 1000 --out sharp

    All recordings of a data set: spikedeblur restore --model small --manifest manifest.json
    --split test --out sharp
    """
    from ..pipeline.frames.video import require_new_video, write_video
    from ..pipeline.restore import job
    from ..pipeline.restore.record import restored_files
    from .options import trained_model
    from .progress import progress_bar

    require_local(out, "--out")
    if video is not None:
        if bits is Bits.SIXTEEN:
            raise typer.BadParameter("an MP4 is made of 8-bit frames", param_hint="--bits")
        require_new_video(video, overwrite=overwrite)
    trained = trained_model(run, model)
    try:
        name = job.checked_method(method, has_run=trained is not None)
    except job.RestoreError as error:
        raise typer.BadParameter(str(error), param_hint="--run / --model / --method") from error
    way: Any = {
        "run": trained,
        "method": name,
        "tile": tile,
        "flips": flips,
        "short_bins": short_bins,
        "frames_per_exposure": frames_per_exposure,
        "bits": 16 if bits is Bits.SIXTEEN else 8,
        "overwrite": overwrite,
    }
    if manifest is not None:
        for_one = {
            "--blur": blur,
            "--spikes": spikes,
            "--log": log,
            "--seq": seq,
            "--exposure": exposure,
            "--fps": fps,
            "--rate": rate,
            "--geometry": geometry,
            "--gain": gain,
            "--first": first,
            "--calibration": calibration,
            "--step": step,
            "--video": video,
        }
        if given := [option for option, value in for_one.items() if value is not None]:
            raise typer.BadParameter(
                f"a manifest says it all of each recording; leave out {', '.join(given)}",
                param_hint="--manifest",
            )
        if split not in (None, "train", "val", "test"):
            raise typer.BadParameter(f"expected train, val or test, got {split!r}")
        with progress_bar("Restoring", "frames") as on_progress:
            of_all = job.restore_manifest(
                manifest, out, split=split, on_progress=on_progress, **way
            )
        for warning in dict.fromkeys(w for one in of_all.recordings for w in one.warnings):
            typer.echo(f"Warning: {warning}", err=True)
        report(
            of_all,
            f"{of_all.restored} frames of {len(of_all.recordings)} recordings restored by {name} "
            f"in {out}" + _kept(of_all.kept),
            json=json,
        )
        return
    if blur is None or spikes is None or split is not None:
        raise typer.BadParameter(
            "one recording needs --blur and --spikes; or give --manifest, and --split of it",
            param_hint="--blur / --spikes / --manifest",
        )
    require_times(log, exposure, fps)
    with progress_bar("Restoring", "frames") as on_progress:
        summary = job.restore(
            blur,
            spikes,
            out,
            log=log,
            seq=seq,
            exposure=exposure,
            fps=fps,
            rate=rate,
            geometry=geometry,
            gain=gain,
            first=first,
            calibration=calibration,
            step=step,
            on_progress=on_progress,
            **way,
        )
    if video is not None:
        write_video(video, restored_files(out), video_fps, overwrite=overwrite)
    for warning in summary.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    tiles = f" in tiles of {summary.tile}" if summary.tile else ""
    report(
        summary,
        f"{summary.restored} frames restored by {summary.method}{tiles} in {out}"
        + _kept(summary.kept)
        + (f"; {video}" if video is not None else ""),
        json=json,
    )


def _kept(frames: int) -> str:
    return f", {frames} there already" if frames else ""
