"""`spikedeblur train`: a configuration and a store into a run folder with a trained model."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..pipeline.host.reporter import counted
from .completion import configurations, keys, models, offered
from .options import Json, overwrites
from .output import (
    command_line,
    is_quiet,
    note,
    print_table,
    report,
    require_writable,
    say,
    to_go_on,
    typed,
)

if TYPE_CHECKING:
    from ..pipeline.train.clock import Profile
    from ..pipeline.train.dry_run import RunPlan
    from ..pipeline.train.job import TrainSummary

MOST_GPUS = 1024
"""Most GPUs that --gpus takes."""


def _gpus(value: str | None) -> str | None:
    if value is None or value == "auto":
        return value
    if not (
        value.isascii() and value.isdigit() and len(value) < 10 and 0 < int(value) <= MOST_GPUS
    ):
        raise typer.BadParameter(f"expected a number from 1 to {MOST_GPUS}, or auto, got {value!r}")
    return value


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="YAML",
        autocompletion=offered(configurations),
        help="Configuration, a file here or in the package; with --resume that of the run.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=offered(keys),
        help="Override a key, such as TRAIN.OPTIM.LR=1e-4; may be repeated.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(help="Run folder.", show_default="outputs/<name of the YAML>", metavar="RUN"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        autocompletion=offered(models),
        help="Start from weights: the name of a model that ships, an exported model, a run "
        "folder, a checkpoint, a state dict (.safetensors, .pt, .pth); a path or a URL.",
        show_default=False,
    ),
]
InitPartial = Annotated[
    bool,
    typer.Option("--init-partial", help="Take what fits of --init, and list what is left out."),
]
PrintProfile = Annotated[
    bool, typer.Option("--profile", help="Print the time of each part of the steps.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check all that training checks first, the run folder too if --run names it; "
        "print the memory and time that it would take.",
    ),
]
FindRate = Annotated[
    bool,
    typer.Option("--find-rate", help="Train 100 steps at rising learning rates; suggest one."),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        callback=_gpus,
        help="GPUs of this machine to train on, a process each; without a GPU, N processes. "
        "With --dry-run they need not be there.",
        show_default="1",
    ),
]


def train(
    config: ConfigFile = None,
    overrides: Overrides = None,
    run: RunFolder = None,
    resume: Resume = False,
    init: Init = None,
    init_partial: InitPartial = False,
    overwrite: Annotated[bool, overwrites("a run that is in the folder")] = False,
    profile: PrintProfile = False,
    dry_run: DryRun = False,
    find_rate: FindRate = False,
    gpus: Gpus = None,
    json: Json = False,
) -> None:
    """Train a model on a store, as a configuration says.

    Ctrl-C and SIGTERM write a checkpoint first; --resume goes on from there. A run that goes on may
    be longer, or have another learning rate: --run RUN --resume --set TRAIN.MAX_STEPS=2000.

    Example: spikedeblur train --config configs/deblur/quickstart.yaml --set DATA.ROOT=my.zarr
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other; leave one out")
    if dry_run and find_rate:
        raise typer.BadParameter("--dry-run and --find-rate exclude each other; leave one out")
    if init_partial and init is None:
        raise typer.BadParameter("--init-partial needs --init; add it")
    if find_rate and init is not None:
        raise typer.BadParameter("--find-rate starts from random weights; leave out --init")
    if gpus is not None and find_rate:
        raise typer.BadParameter("--gpus and --find-rate exclude each other; leave one out")
    from ..configs import load_config
    from ..pipeline.train.launch import end_with_launcher, is_launched, launch
    from .progress import progress_bar

    if is_launched():
        end_with_launcher()

    folder = run or (config and Path("outputs", config.stem))
    if folder is None or (config is None and not resume):
        raise typer.BadParameter(
            "expected --config, or --run with --resume; for example --config "
            "configs/deblur/quickstart.yaml"
        )
    writes = None if find_rate or (dry_run and run is None) else folder
    require_writable(writes)
    if config is None:
        from ..pipeline.train.run.folder import own_config

        checked = own_config(folder, overrides or ())
    else:
        checked = load_config(config, overrides or ())
    from ..pipeline.train.early_checks import require_startable

    require_startable(checked, writes, resume=resume, overwrite=overwrite, init=init)
    from ..pipeline.weights.find import Init

    start = None if init is None else Init(init, init_partial)
    processes = None if gpus is None or is_launched() else _processes(gpus, there=not dry_run)
    if dry_run:
        with progress_bar("Trying a step") as reporter:
            from ..pipeline.train.dry_run import plan_run  # with torch: seconds

            plan = plan_run(
                checked,
                folder if run is not None or resume else None,
                resume=resume,
                overwrite=overwrite,
                init=start,
                processes=processes,
                reporter=reporter,
            )
        report(plan, _described(plan), json=json)
        return
    if find_rate:
        with progress_bar("Searching", "steps") as reporter:
            from ..pipeline.train.find_rate import find_rate as search  # with torch: seconds

            rates = search(checked, reporter=reporter)
        more = "" if rates.diverged else "; no learning rate was too high for so few steps"
        report(rates, f"TRAIN.OPTIM.LR={rates.suggested:g}{more}", json=json)
        return
    if processes is not None and processes > 1:
        code = launch(processes, typed.get())
        if code == 128 + signal.SIGKILL:
            say(f"a process of {processes} was killed, most often for lack of memory", err=True)
        raise typer.Exit(code)
    if checked.TRAIN.NUM_WORKERS != 0:
        from ..pipeline.train.data.workers import start_fork_server

        start_fork_server()  # while torch is imported
    with progress_bar("Training", "steps") as reporter:
        from ..pipeline.train.job import train as run_training  # with torch: seconds

        summary = run_training(
            checked,
            folder,
            resume=resume,
            overwrite=overwrite,
            init=start,
            profile=profile,
            reporter=reporter,
        )
    if summary.is_first:
        words: list[str | Path] = ["--run", folder, "--resume"]
        words += [] if gpus is None else ["--gpus", gpus]
        again = command_line("train", *words)
        first = checked.DATA.stores[0].ROOT
        figures = "--run", folder, "--json", folder / "evaluation.json"
        evaluate = command_line("evaluate", first, *figures, *_split_to_evaluate(first))
        _print_summary(summary, again, evaluate, json=json)
    if summary.signal is not None:
        raise typer.Exit(128 + summary.signal)
    if summary.unread:
        raise typer.Exit(1)


def _split_to_evaluate(store: str) -> list[str]:
    """Return the option of `evaluate` for a store in a folder that has no test split."""
    from ..pipeline.storage.locate import open_storage
    from ..pipeline.store.records import read_splits

    moved = {} if "://" in store else read_splits(open_storage(store))
    lacks_test = Path(store).is_dir() and not Path(store, "test").is_dir()
    return ["--split", "val"] if lacks_test and "test" not in moved.values() else []


def _processes(gpus: str, *, there: bool) -> int:
    """Return the number of processes that --gpus asks for; `there`: on GPUs of this machine.

    Raises:
        typer.BadParameter: no such GPUs, or one process of several already.
    """
    if "WORLD_SIZE" in os.environ:
        raise typer.BadParameter(
            "this process is one of several already (WORLD_SIZE is set, as torchrun does); leave "
            "out --gpus",
            param_hint="--gpus",
        )
    import torch

    found = torch.cuda.device_count()
    if gpus == "auto":
        if not found:
            note("--gpus auto: no GPU here, so one process trains on the CPU")
        return max(found, 1)
    if there and 0 < found < int(gpus):
        raise typer.BadParameter(
            f"expected at most the {found} GPUs of this machine, got {gpus}", param_hint="--gpus"
        )
    return int(gpus)


def _print_summary(summary: TrainSummary, again: str, evaluate: str, *, json: bool) -> None:
    if summary.profile is not None and not json:
        _print_profile(summary.profile)
    if summary.signal is not None:
        say(
            f"stopped after step {summary.step} of {summary.total_steps}, the checkpoint is "
            f"written; go on with: {to_go_on(again)}",
            err=True,
        )
        return
    if summary.was_finished and not json:
        return
    best = ""
    if summary.best_psnr is not None:
        best = f"; best validation PSNR {summary.best_psnr:.2f} dB at step {summary.best_step}"
    if summary.psnr_blur is not None:
        best += f" (blurred input {summary.psnr_blur:.2f} dB)"
    report(
        summary,
        f"{summary.run}: {counted(summary.step, 'step')}{best}",
        json=json,
        next_command=evaluate,
    )
    for seq, why in summary.unread.items():
        say(f"left out: {seq}: {why}", err=True)
    if not json and not is_quiet.get():
        say(f"Curves: {shlex.join(('tensorboard', '--logdir', str(summary.run)))}")


def _print_profile(profile: Profile) -> None:
    wall = profile.wall_seconds
    rows = [
        (part, f"{s:.2f}", f"{1000 * s / max(profile.steps, 1):.1f}", f"{100 * s / wall:.1f}")
        for part, s in (*profile.seconds.items(), ("wall time", wall))
    ]
    print_table([("part", "seconds", "ms a step", "%"), *rows])


def _described(plan: RunPlan) -> str:
    how = "from smaller trial steps" if plan.extrapolated else "a step was tried"
    seconds = round(plan.seconds)
    clips = plan.clips_a_step, *plan.later_clips_a_step
    each = " a GPU" if plan.processes > 1 else ""
    left = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    lines = [
        f"network  {plan.parameters / 1e6:.2f} M parameters, {plan.precision} on {plan.device}",
        f"data     {counted(plan.clips, 'clip')} in {counted(plan.sequences, 'sequence')}",
        f"run      {counted(plan.steps, 'step')} of {', then '.join(map(str, clips))} clips, "
        f"{plan.epochs:.1f} epochs",
        f"memory   {plan.peak_bytes / 1e9:.2f} GB{each} ({how}); recomputed: {plan.recomputed}",
        f"         and at most {plan.cache_bytes / 1e9:.2f} GB of main memory{each} for windows "
        "that are kept (DATA.CACHE_SIZE_GB)",
        f"time     {plan.seconds_a_step:.2f} s a step, {left} in all without validation ({how})",
    ]
    if not plan.cache_bytes:
        del lines[4]
    if plan.processes > 1:
        rounds = "1 batch" if plan.batches_a_step == 1 else f"{plan.batches_a_step} batches"
        lines.insert(3, f"gpus     {plan.processes} processes, {rounds} a step each")
    if plan.pretended:
        lines.append(
            "         measured: the first process with the gradients' exchange set up (DDP), on "
            f"{plan.device}; not measured: the exchange, what NCCL takes for it"
            + (", and a GPU" if plan.device == "cpu" else "")
        )
    return "\n".join(lines)
