"""`spikedeblur adapt`: a trained model fitted to a camera of which there are no sharp frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import exposure_times, spike_options
from .output import command_line, report


def adapt(
    out: Annotated[Path, typer.Argument(help="Model to write, *.safetensors.")],
    blur: Annotated[
        list[Path], typer.Option(help="Folder of blurred frames named by number; may be repeated.")
    ],
    spikes: Annotated[
        list[Path], typer.Option(help="The .dat stream of each --blur, in the same order.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Model to start from: `small`, or a file.", show_default="small"),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder to start from, instead of --model.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Alignment log with the frames' times.")] = None,
    exposure: Annotated[
        int | None, typer.Option(min=1, help="Without a log: sharp frames in a blurred one; odd.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Without a log: sharp frames a second, in Hz.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Spike samples a second, in Hz.", show_default="from the side file"),
    ] = None,
    geometry: Annotated[
        str | None,
        typer.Option(help="HxW,bottom-up or a preset's name.", show_default="from the side file"),
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(help="Spikes a sample at unit luminance.", show_default="from the side file"),
    ] = None,
    first: Annotated[
        float | None,
        typer.Option(
            help="Time of the first spike sample, in seconds.", show_default="side file, else 0"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps; 300 take minutes on one core.")] = 300,
    learning_rate: Annotated[float, typer.Option(help="At the start.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="Of clips and crops.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that is there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Fit a trained model to your own camera by its blurred frames and spikes alone.

    The restored frames of an exposure must add up to the blurred frame, and have the luminance
    that the spikes saw. Recordings are of one camera.

    Example: spikedeblur adapt mine.safetensors --blur frames --spikes spike.dat --exposure 33
    --fps 1000
    """
    from ..pipeline.adapt import adapt as job
    from ..pipeline.sequences.find_recording import find_recording
    from .options import trained_model
    from .progress import progress_bar

    if len(blur) != len(spikes):
        raise typer.BadParameter(
            f"expected one --spikes for each --blur, got {len(spikes)} for {len(blur)}",
            param_hint="--spikes",
        )
    times = exposure_times(log, exposure=exposure, fps=fps)
    options = spike_options(geometry, rate, gain, first)
    source = trained_model(run, model) or trained_model(None, "small")
    assert source is not None
    recordings = [
        find_recording(folder, dat, times, options)
        for folder, dat in zip(blur, spikes, strict=True)
    ]
    with progress_bar("Adapting", "steps") as on_progress:
        summary = job(
            source,
            recordings,
            out,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    report(
        summary,
        f"{out}: adapted to {summary.exposures} exposures of {summary.recordings} recordings in "
        f"{summary.steps} steps, loss {summary.loss_before:.4f} to {summary.loss_after:.4f}",
        json=json,
        next_command=command_line(
            *("restore", "--model", out, "--blur", blur[0], "--spikes", spikes[0]),
            *(("--log", log) if log is not None else ()),
            *(("--exposure", str(exposure), "--fps", f"{fps:g}") if fps is not None else ()),
            *("--out", out.with_suffix("")),
        ),
    )
