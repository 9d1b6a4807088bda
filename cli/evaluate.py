"""`spikedeblur evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..pipeline.host.reporter import counted
from . import completion, options
from .completion import offered, one_of, protocols, splits
from .help_page import MODEL, OUTPUT
from .options import instants_option, overwrites, trained_model
from .output import command_line, print_json, print_table, require_writable, say, say_next

if TYPE_CHECKING:
    from ..pipeline.evaluate.metrics import Score
    from ..pipeline.evaluate.scores import Evaluation


Store = Annotated[str, typer.Argument(help="Zarr store with sharp frames: a folder or a URL.")]
Control = Annotated[
    str | None,
    typer.Option(
        help="Run folder or exported model that was trained without spikes, for rgb.",
        metavar="MODEL",
        rich_help_panel=MODEL,
    ),
]
SplitName = Annotated[
    str | None,
    typer.Option(
        help="Split to evaluate.",
        show_default="test, or the protocol's",
        metavar="SPLIT",
        autocompletion=offered(splits),
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated: blur, tfp, tfi, sdm, path, rgb, model.",
        show_default="all that can be",
        metavar="NAME,...",
        **one_of(completion.methods, several=True),
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="Refuse other data than a published table's: gopro-blur, gopro-blur-gamma, "
        "spk-x4k-33 or s-sdm.",
        metavar="NAME",
        **one_of(protocols),
    ),
]
Lpips = Annotated[
    Literal["alex", "vgg", "squeeze"] | None,
    typer.Option(help="Measure LPIPS, by this network's ImageNet weights."),
]
Motion = Annotated[
    bool, typer.Option("--motion", help="Measure by motion, and steadiness; needs OpenCV.")
]
Instants = Annotated[
    int | None,
    instants_option(
        "Score so many instants of each exposure too, as `align --instants` named them.",
        "the middle",
    ),
]
Verify = Annotated[
    bool, typer.Option(help="Compare the files of a store in a folder with their checksums.")
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON file to write; - prints it instead of the table.",
        metavar="FILE.json",
        rich_help_panel=OUTPUT,
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        help="PNG to write: blur, SDM, path, model and sharp with a zoomed part, of a scene "
        "for the eye, else of the window whose improvement over blur is the median.",
        metavar="FILE.png",
        rich_help_panel=OUTPUT,
    ),
]


def evaluate(
    store: Store,
    run: options.Run = None,
    model: options.Model = None,
    control: Control = None,
    split: SplitName = None,
    methods: Methods = None,
    protocol: Protocol = None,
    lpips: Lpips = None,
    motion: Motion = False,
    instants: Instants = None,
    verify: Verify = True,
    sensor: Annotated[Path | None, options.sensor_option("as the store records")] = None,
    json: JsonFile = None,
    picture: Picture = None,
    curve: options.Curve = None,
    tile: options.Tile = None,
    flips: options.Flips = False,
    overwrite: Annotated[bool, overwrites("files that evaluate didn't write")] = False,
) -> None:
    """Measure PSNR and SSIM of the blurred input, TFP, TFI, SDM and a trained model.

    Frames of 8 bits, whole, per RGB image; means are over windows. TFP and SDM get the short
    window that serves each best on this split. --control adds a network that sees no spikes.

    Example: spikedeblur evaluate data/quickstart.zarr --run outputs/quickstart
    """
    from ..pipeline.evaluate import job, scores
    from ..pipeline.evaluate.picture import before_after, require_own_picture
    from ..pipeline.host.allocator import keep_freed_memory, share_freed_memory_among_threads
    from .progress import progress_bar

    names = None if methods is None else [name.strip() for name in methods.split(",")]
    try:
        job.checked_methods(names, run=run or model, control=control)
    except scores.EvaluationError as error:
        raise typer.BadParameter(str(error), param_hint="--methods") from error
    trained, without_spikes = trained_model(run, model), trained_model(control, None)
    prints_json = json == Path("-")
    require_writable(None if prints_json else json, picture)
    if json is not None and not prints_json:
        scores.require_own_json(json, overwrite=overwrite)
    if picture is not None:
        require_own_picture(picture, overwrite=overwrite)
    how = job.Evaluating(
        lpips=lpips,
        motion=motion,
        instants=instants,
        verify=verify,
        tile=tile,
        flips=flips,
        sensor=sensor,
        curve=curve,
    )
    keep_freed_memory()
    share_freed_memory_among_threads()
    with progress_bar("Evaluating", "windows") as reporter:
        evaluation = job.evaluate(
            store,
            run=trained,
            control=without_spikes,
            split=split,
            methods=names,
            protocol=protocol,
            how=how,
            reporter=reporter,
        )
    if json is not None and not prints_json:
        scores.write_evaluation(json, evaluation, overwrite=overwrite)
    if picture is not None:
        shown = before_after(
            store,
            trained,
            evaluation.split,
            picture,
            evaluation=evaluation,
            options=how,
            overwrite=overwrite,
        )
    if prints_json:
        print_json(evaluation.to_json())
        return
    _print(evaluation)
    if picture is not None:
        say(f"Picture {picture}: frame {shown.frame_index} of {shown.seq}")
    if json is not None:
        say(f"Figures {json}")
    say_next(_page_command(run, json))


def _page_command(run: str | None, json: Path | None) -> str | None:
    if run is None or json is None or "://" in run:
        return None
    is_beside = json.resolve() == Path(run, "evaluation.json").resolve()
    return command_line("report", run, *(() if is_beside else ("--evaluation", json)))


def _print(evaluation: Evaluation) -> None:
    from ..pipeline.sequences.provenance import warning_of

    backbone = evaluation.lpips_backbone
    figures = "PSNR in dB / SSIM" + (f" / LPIPS ({backbone})" if backbone else "")
    data = {
        "split": evaluation.split,
        "blurred frames from": evaluation.blur_kind,
        "protocol": evaluation.protocol,
    }
    title = ", ".join([figures, *(f"{words} {name}" for words, name in data.items() if name)])
    rows = [("sequence", "windows", *evaluation.methods)]
    for seq, scores in evaluation.sequences.items():
        rows.append((seq, str(evaluation.windows_of(seq)), *map(_cell, scores.values())))
    means = map(_cell, evaluation.methods.values())
    rows.append(("mean over windows", str(len(evaluation.windows)), *means))
    print_table(rows, title=title, has_total=True)
    if evaluation.motion:
        _print_motion(evaluation)
    if evaluation.instants is not None:
        _print_instants(evaluation.instants)
    widths = {"TFP": evaluation.tfp_bins, "SDM": evaluation.sdm_bins}
    chosen = [f"{name} {bins}" for name, bins in widths.items() if bins is not None]
    if chosen:
        say(f"Short window, best on this split, in bins: {', '.join(chosen)}")
    gains = [
        f"{name} {interval[0]:+.2f} to {interval[1]:+.2f}"
        for name, interval in evaluation.gain_intervals().items()
        if interval is not None
    ]
    if gains:
        say(f"Improvement over blur in dB, 95 % interval over sequences: {', '.join(gains)}")
    if evaluation.findings:
        say(warning_of(evaluation.findings), err=True, label="warning")
    if evaluation.misaligned:
        worst, lag = max(evaluation.misaligned.items(), key=lambda item: abs(item[1]))
        say(
            f"the spikes of {counted(len(evaluation.misaligned), 'sequence')} are not where their "
            f"sharp frames are, most of all {worst}: the spikes come "
            f"{'late' if lag > 0 else 'early'} by {abs(lag):.0%} of the exposure; "
            "correct the alignment before you trust the figures",
            err=True,
            label="warning",
        )
    if evaluation.srgb:
        say(
            f"Frames of {counted(len(evaluation.srgb), 'sequence')} taken as sRGB; --curve linear "
            "takes them as light"
        )
    if evaluation.gain_estimated:
        say(
            f"Gain not recorded for {counted(len(evaluation.gain_estimated), 'sequence')}: taken "
            "from the blurred frames' brightness"
        )


def _cell(score: Score) -> str:
    figures = f"{score.psnr:.2f} / {score.ssim:.3f}"
    return figures if score.lpips is None else f"{figures} / {score.lpips:.3f}"


def _print_instants(found: dict[str, Any]) -> None:
    methods = found["methods"]
    rows = [("instant", *methods)]
    for i, time in enumerate(found["times"]):
        scores = (scores["instants"][i] for scores in methods.values())
        rows.append((f"{time:+.3f}", *(f"{s['psnr']:.2f} / {s['ssim']:.3f}" for s in scores)))
    for words, key in (("ends", "psnr_ends"), ("middle third", "psnr_middle_third")):
        rows.append((words, *(f"{scores[key]:.2f}" for scores in methods.values())))
    print_table(rows, title="PSNR in dB / SSIM by instant, in exposures from the middle")


def _print_motion(evaluation: Evaluation) -> None:
    classes = list(dict.fromkeys(c for score in evaluation.motion.values() for c in score.psnr))
    rows = [("method", *classes, "warping error")]
    for name, score in evaluation.motion.items():
        cells = [f"{score.psnr[c]:.2f}" if c in score.psnr else "" for c in classes]
        steady = "" if score.warping_error is None else f"{1000 * score.warping_error:.2f}"
        rows.append((name, *cells, steady))
    title = "PSNR in dB by motion in an exposure, in pixels, and warping error in 1/1000"
    print_table(rows, title=title)
