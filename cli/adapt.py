"""`spikedeblur adapt`: fit a trained model to a camera without sharp frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..pipeline.host.reporter import counted
from . import options
from .options import camera_clock, exposure_times, overwrites, spike_options, trained_model
from .output import command_line, free_name, report, require_writable

Out = Annotated[
    Path, typer.Argument(help="Model to write, *.safetensors.", metavar="OUT.safetensors")
]
Steps = Annotated[
    int,
    typer.Option(
        min=1, max=10**7, help="Training steps; 300 take minutes on one core.", metavar="N"
    ),
]
LearningRate = Annotated[
    float, typer.Option(help="Learning rate at the start; it falls to 0.", metavar="RATE")
]


def adapt(
    out: Out,
    blur: options.Blurs,
    spikes: options.SpikesOfEach,
    model: Annotated[str | None, options.model_option("small")] = None,
    run: options.Run = None,
    frame_rate: options.FrameRate = None,
    shutter: options.Shutter = None,
    start: options.Start = None,
    readout: options.Readout = None,
    times: options.TimesOfEach = None,
    log: options.Log = None,
    seq: options.SeqOfEach = None,
    exposure: options.Exposure = None,
    fps: options.Fps = None,
    rate: options.Rate = None,
    geometry: options.Geometry = None,
    gain: options.Gain = None,
    first: options.First = None,
    calibration: options.Calibration = None,
    sensor: options.Sensor = None,
    curve: options.Curve = None,
    steps: Steps = 300,
    learning_rate: LearningRate = 1e-3,
    seed: Annotated[int, options.seed_option("random clips and crops")] = 0,
    force: options.Force = False,
    overwrite: Annotated[bool, overwrites("a model that is there")] = False,
    json: options.Json = False,
) -> None:
    """Fit a trained model to your own camera by its blurred frames and spikes alone.

    The restored frames of an exposure must add up to the blurred frame, and have the luminance
    that the spikes saw. All recordings must be of one camera.

    Example: spikedeblur adapt mine.safetensors --blur frames --spikes spike.dat --frame-rate 30
    --shutter 16ms
    """
    from ..pipeline.sequences.find_recording import find_recording
    from ..pipeline.trained.model_file import require_model_file
    from .progress import progress_bar

    if not 0 < learning_rate <= 1:
        raise typer.BadParameter(
            f"expected a rate above 0, at most 1, got {learning_rate:g}; for example 1e-3",
            param_hint="--learning-rate",
        )
    if len(blur) != len(spikes):
        raise typer.BadParameter(
            f"expected one --spikes for each --blur, got {len(spikes)} for {len(blur)}",
            param_hint="--spikes",
        )
    if times and len(times) != len(blur):
        raise typer.BadParameter(
            f"expected one --times for each --blur, got {len(times)} for {len(blur)}",
            param_hint="--times",
        )
    if seq and len(seq) != len(blur):
        raise typer.BadParameter(
            f"expected one --seq for each --blur, got {len(seq)} for {len(blur)}",
            param_hint="--seq",
        )
    files: list[Path | None] = [*times] if times else [None] * len(blur)
    names: list[str | None] = [*seq] if seq else [None] * len(blur)
    clocks = [camera_clock(frame_rate, shutter, start, file, fps, exposure) for file in files]
    exposed = [
        exposure_times(log, name, exposure, fps, camera=clock)
        for clock, name in zip(clocks, names, strict=True)
    ]
    spiking = spike_options(geometry, rate, gain, first, calibration, readout, sensor)
    require_writable(out)
    require_model_file(out, overwrite=overwrite)
    source = trained_model(run, "small" if model is None and run is None else model)
    assert source is not None
    triples = zip(blur, spikes, exposed, strict=True)
    recordings = [find_recording(folder, dat, when, spiking) for folder, dat, when in triples]
    with progress_bar("Adapting", "trials and steps") as reporter:
        from ..pipeline.adapt import Adapting  # with torch: seconds
        from ..pipeline.adapt import adapt as job

        how = Adapting(
            steps=steps, learning_rate=learning_rate, seed=seed, force=force, curve=curve
        )
        summary = job(source, recordings, out, how=how, overwrite=overwrite, reporter=reporter)
    report(
        summary,
        f"{out}: adapted to {counted(summary.exposures, 'exposure')} of "
        f"{counted(summary.recordings, 'recording')} in {counted(summary.steps, 'step')}, "
        f"loss {summary.loss_before:.4f} to {summary.loss_after:.4f}",
        json=json,
        next_command=command_line(
            *("restore", "--model", out, "--blur", blur[0], "--spikes", spikes[0]),
            *(("--geometry", geometry) if geometry is not None else ()),
            *(("--rate", f"{rate:.9g}") if rate is not None else ()),
            *(("--gain", f"{gain:.9g}") if gain is not None else ()),
            *(("--first", f"{first:.9g}") if first is not None else ()),
            *(("--calibration", calibration) if calibration is not None else ()),
            *(("--sensor", sensor) if sensor is not None else ()),
            *(("--log", log) if log is not None else ()),
            *(("--seq", seq[0]) if seq else ()),
            *(("--exposure", str(exposure), "--fps", f"{fps:g}") if fps is not None else ()),
            *(("--frame-rate", f"{frame_rate:g}") if frame_rate is not None else ()),
            *(("--times", times[0]) if times else ()),
            *(("--shutter", f"{shutter:.9g}") if shutter is not None else ()),
            *(("--start", f"{start:.9g}") if start is not None else ()),
            *(("--readout", f"{readout:.9g}") if readout is not None else ()),
            *(("--curve", curve) if curve is not None else ()),
            *("--out", free_name(out.with_suffix(""))),
        ),
    )
