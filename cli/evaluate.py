"""`spikedeblur evaluate`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..pipeline.evaluate.metrics import Score
    from ..pipeline.evaluate.scores import Evaluation


class Backbone(enum.StrEnum):
    """Networks that LPIPS sees with."""

    ALEX = "alex"
    VGG = "vgg"
    SQUEEZE = "squeeze"


def evaluate(
    store: Annotated[str, typer.Argument(help="Zarr store with sharp frames: a folder or a URL.")],
    run: Annotated[
        str | None, typer.Option(help="Run folder of a trained model: a path or a URL.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Exported model, a file or a URL; or `small`, which ships.")
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(help="Run folder or exported model that was trained without spikes, for rgb."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to evaluate.", show_default="test, or the protocol's"),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: blur, tfp, tfi, sdm, path, rgb, model.",
            show_default="all that can be",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Refuse other data than a published table's: gopro-blur, gopro-blur-gamma, "
            "spk-x4k-33 or s-sdm."
        ),
    ] = None,
    lpips: Annotated[
        Backbone | None,
        typer.Option(help="Measure LPIPS too, with this network's ImageNet weights."),
    ] = None,
    motion: Annotated[
        bool,
        typer.Option(
            "--motion", help="Measure by motion, and how steady frames are; needs OpenCV."
        ),
    ] = False,
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
    flips: Annotated[
        bool,
        typer.Option(
            "--flips", help="Mean over four mirrored copies: four times the time, a little better."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that evaluate didn't write.")
    ] = False,
) -> None:
    """Measure PSNR and SSIM of the blurred input, TFP, TFI, SDM and a trained model.

    Frames of 8 bits, whole, per RGB image; means are over windows. TFP and SDM get the short
    window that serves each best on this split. --control adds a network that sees no spikes.

    Example: spikedeblur evaluate data/quickstart.zarr --run outputs/quickstart
    """
    from ..pipeline.evaluate import job
    from ..pipeline.evaluate import picture as pictures
    from ..pipeline.evaluate import scores as product
    from .options import trained_model
    from .output import say_next
    from .progress import progress_bar

    trained, without_spikes = trained_model(run, model), trained_model(control, None)
    names = None if methods is None else [name.strip() for name in methods.split(",")]
    try:
        given = {"model": trained, "rgb": without_spikes}
        job.checked_methods(names, given={name for name, source in given.items() if source})
    except product.EvaluationError as error:
        raise typer.BadParameter(str(error), param_hint="--methods") from error
    if json is not None:
        product.require_own_json(json, overwrite=overwrite)
    if picture is not None:
        pictures.require_own_picture(picture, overwrite=overwrite)
    with progress_bar("Evaluating", "windows") as on_progress:
        evaluation = job.evaluate(
            store,
            run=trained,
            control=without_spikes,
            split=split,
            methods=names,
            protocol=protocol,
            lpips=lpips.value if lpips is not None else None,
            motion=motion,
            tile=tile,
            flips=flips,
            on_progress=on_progress,
        )
    if json is not None:
        product.write_evaluation(json, evaluation, overwrite=overwrite)
    if picture is not None:
        shown = pictures.before_after(
            store,
            trained,
            evaluation.split,
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
    say_next(_page_command(run, json))


def _page_command(run: str | None, json: Path | None) -> str | None:
    if run is None or json is None or "://" in run:
        return None
    from .output import command_line

    there = json.resolve() == Path(run, "evaluation.json").resolve()
    return command_line("report", run, *(() if there else ("--evaluation", json)))


def _print(evaluation: Evaluation) -> None:
    import shutil
    import sys

    from rich.console import Console

    # A file or pipe has no width of its own, and 80 columns would cut sequences' names.
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False)
    console.print(_table(evaluation))
    if evaluation.motion:
        console.print(_motion_table(evaluation))
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

    table = Table(
        title="PSNR in dB / SSIM"
        + (f" / LPIPS ({evaluation.lpips_backbone})" if evaluation.lpips_backbone else "")
        + f", split {evaluation.split}"
        + (f", blurred frames from {evaluation.blur_kind}" if evaluation.blur_kind else "")
        + (f", protocol {evaluation.protocol}" if evaluation.protocol else ""),
        title_justify="left",
        box=box.SIMPLE,
    )
    table.add_column("sequence", overflow="fold")
    table.add_column("windows", justify="right")
    for name in evaluation.methods:
        table.add_column(name, justify="right", no_wrap=True)
    rows = [(seq, evaluation.windows_of(seq), s) for seq, s in evaluation.sequences.items()]
    for seq, windows, scores in rows:
        cells = [_cell(score) for score in scores.values()]
        table.add_row(seq, str(windows), *cells)
    table.add_section()
    cells = [_cell(mean) for mean in evaluation.methods.values()]
    table.add_row("mean over windows", str(len(evaluation.windows)), *cells, style="bold")
    return table


def _cell(score: Score) -> str:
    figures = f"{score.psnr:.2f} / {score.ssim:.3f}"
    return figures if score.lpips is None else f"{figures} / {score.lpips:.3f}"


def _motion_table(evaluation: Evaluation) -> Table:
    from rich import box
    from rich.table import Table

    classes = list(dict.fromkeys(c for found in evaluation.motion.values() for c in found.psnr))
    table = Table(
        title="PSNR in dB by motion in an exposure, in pixels, and warping error in 1/1000",
        title_justify="left",
        box=box.SIMPLE,
    )
    for name in ("method", *classes, "warping error"):
        table.add_column(name, justify="right" if name != "method" else "left")
    for name, found in evaluation.motion.items():
        cells = [f"{found.psnr[c]:.2f}" if c in found.psnr else "" for c in classes]
        steady = "" if found.warping_error is None else f"{1000 * found.warping_error:.2f}"
        table.add_row(name, *cells, steady)
    return table
