"""`spikedeblur evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..pipeline.evaluate import Evaluation


def evaluate(
    store: Annotated[
        str, typer.Argument(help="Zarr store with sharp frames: a folder or an s3:// URL.")
    ],
    run: Annotated[Path | None, typer.Option(help="Run folder of a trained model.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Exported model, a file; or `small`, which ships.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to evaluate.")] = "test",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: blur, tfp, tfi, sdm, model.",
            show_default="all that can be",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="PNG to write: blur, SDM, model and sharp side by side, on the window whose "
            "gain over blur is the median."
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that evaluate didn't write.")
    ] = False,
) -> None:
    """Measure PSNR and SSIM of the blurred input, TFP, TFI, SDM and a trained model.

    Frames of 8 bits, whole, per RGB image; means are over windows. TFP and SDM get the short
    window that serves each best on this split.

    Example: spikedeblur evaluate data/quickstart.zarr --run outputs/quickstart
    """
    from ..pipeline import evaluate as job
    from .progress import progress_bar
    from .trained import trained_model

    trained = trained_model(run, model)
    names = None if methods is None else [name.strip() for name in methods.split(",")]
    try:
        job.checked_methods(names, has_run=trained is not None)
    except job.EvaluationError as error:
        raise typer.BadParameter(str(error), param_hint="--methods") from error
    if json is not None:
        job.require_own_json(json, overwrite=overwrite)
    if picture is not None:
        job.require_own_picture(picture, overwrite=overwrite)
    with progress_bar("Evaluating") as on_progress:
        evaluation = job.evaluate(
            store, run=trained, split=split, methods=names, tile=tile, on_progress=on_progress
        )
    if json is not None:
        job.write_evaluation(json, evaluation, overwrite=overwrite)
    if picture is not None:
        shown = job.before_after(
            store,
            trained,
            split,
            picture,
            evaluation=evaluation,
            tile=tile,
            overwrite=overwrite,
        )
    _print(evaluation)
    if picture is not None:
        typer.echo(f"Picture {picture}: frame {shown.frame_index} of {shown.seq}")
    if json is not None:
        typer.echo(f"Figures {json}")


def _print(evaluation: Evaluation) -> None:
    import shutil
    import sys

    from rich.console import Console

    # A file or pipe has no width of its own, and 80 columns would cut sequences' names.
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False)
    console.print(_table(evaluation))
    widths = {"TFP": evaluation.tfp_bins, "SDM": evaluation.sdm_bins}
    chosen = [f"{name} {bins}" for name, bins in widths.items() if bins is not None]
    if chosen:
        console.print(f"Short window, best on this split, in bins: {', '.join(chosen)}")
    spread = {
        name: interval
        for name in evaluation.methods
        if name != "blur" and "blur" in evaluation.methods
        if (interval := evaluation.interval(name, "blur")) is not None
    }
    if spread:
        gains = [f"{name} {low:+.2f} to {high:+.2f}" for name, (low, high) in spread.items()]
        console.print(f"Gain over blur in dB, 95 % interval over sequences: {', '.join(gains)}")
    if evaluation.misaligned:
        worst = max(evaluation.misaligned, key=lambda seq: abs(evaluation.misaligned[seq]))
        lag = evaluation.misaligned[worst]
        console.print(
            f"Warning: the spikes of {len(evaluation.misaligned)} sequences are not where their "
            f"sharp frames are, most of all {worst}: {abs(lag):.0%} of the exposure too "
            f"{'late' if lag > 0 else 'early'}; correct the alignment before you trust the figures"
        )
    if evaluation.gain_estimated:
        console.print(
            f"Gain not recorded for {len(evaluation.gain_estimated)} sequences: taken from the "
            "blurred frames' brightness"
        )


def _table(evaluation: Evaluation) -> Table:
    from rich import box
    from rich.table import Table

    kind = f", blurred frames from {evaluation.blur_kind}" if evaluation.blur_kind else ""
    title = f"PSNR in dB / SSIM, split {evaluation.split}{kind}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("sequence", overflow="fold")
    table.add_column("windows", justify="right")
    for name in evaluation.methods:
        table.add_column(name, justify="right", no_wrap=True)
    rows = [(seq, evaluation.windows_of(seq), s) for seq, s in evaluation.sequences.items()]
    for seq, windows, scores in rows:
        cells = [f"{score.psnr:.2f} / {score.ssim:.3f}" for score in scores.values()]
        table.add_row(seq, str(windows), *cells)
    table.add_section()
    cells = [f"{mean.psnr:.2f} / {mean.ssim:.3f}" for mean in evaluation.methods.values()]
    table.add_row("mean over windows", str(len(evaluation.windows)), *cells, style="bold")
    return table
