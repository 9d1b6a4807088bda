"""`spikedeblur voxelize`: a manifest's sequences into a store."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..pipeline.host.reporter import counted
from .options import Force, From, Json, To, between, overwrites, workers_option
from .output import command_line, free_name, print_json, require_writable, say, say_next

if TYPE_CHECKING:
    from ..pipeline.voxelize.estimate import Estimate
    from ..pipeline.voxelize.job import VoxelizeSummary


_SHOWN = 50
WORKERS = "Workers"


Kind = Annotated[
    Literal["packed", "counts"] | None,
    typer.Option(
        help="Content of a Zarr store. packed: the spikes, counted when read, in any number of "
        "bins; counts: counted now.",
        show_default="as the store is, packed in a new one",
    ),
]
Codec = Annotated[
    Literal["lz4", "zstd", "none"] | None,
    typer.Option(
        help="Compression of counts. none: read fastest, takes three times the spikes.",
        show_default="lz4",
    ),
]
OnCluster = Annotated[
    Literal["slurm"] | None,
    typer.Option(
        help="Submit --workers jobs to it, as jobqueue.yaml of Dask's configuration says; "
        "--dry-run prints the script.",
        rich_help_panel=WORKERS,
    ),
]


Manifest = Annotated[
    str,
    typer.Argument(
        help="The manifest that `align` wrote: a file, or a URL whose bucket has the data too."
    ),
]
Store = Annotated[
    str,
    typer.Argument(
        help="Folder or URL (s3://, gs://, az://) to write; a stopped run continues in it."
    ),
]
Bins = Annotated[
    int, typer.Option(min=1, max=4096, help="Temporal bins a window (K).", metavar="N")
]
WorkerCount = Annotated[
    int | None,
    workers_option(
        "Processes, or jobs of --cluster; 1: this process.",
        "one a core; this process alone for a job of seconds",
        rich_help_panel=WORKERS,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="A running Dask scheduler, e.g. tcp://host:8786.",
        rich_help_panel=WORKERS,
    ),
]
Format = Annotated[
    Literal["zarr", "npy"], typer.Option(help="zarr, or npy for the unified layout's files.")
]
Check = Annotated[
    bool, typer.Option("--check", help="Read what is there back; make anew what is damaged.")
]
OnError = Annotated[
    Literal["skip", "stop"],
    typer.Option(help="skip: sequences that can't be made are reported at the end (exit 1)."),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only check, plan, and measure for three seconds what the work would take.",
    ),
]


def voxelize(
    manifest: Manifest,
    store: Store,
    bins: Bins = 32,
    workers: WorkerCount = None,
    scheduler: Scheduler = None,
    cluster: OnCluster = None,
    format: Format = "zarr",
    kind: Kind = None,
    codec: Codec = None,
    overwrite: Annotated[bool, overwrites("sequences that differ")] = False,
    force: Force = False,
    check: Check = False,
    since: From = None,
    until: To = None,
    on_error: OnError = "skip",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Write the spikes and frames of every exposure to a store that training reads.

    Sequences that are there and unchanged are kept; a stopped run continues, inside a sequence
    too. A sequence that can't be made costs only itself: running again makes what is missing.

    Example: spikedeblur voxelize outputs/logs/align_x4k1000fps.json data/spikes.zarr --bins 32
    """
    from ..pipeline.host.allocator import keep_freed_memory
    from ..pipeline.voxelize.job import voxelize_manifest
    from ..pipeline.voxelize.options import VoxelizeOptions
    from ..pipeline.voxelize.slurm import job_script
    from ..pipeline.voxelize.workers import Workers
    from .progress import progress_bar

    if "://" not in store:
        require_writable(Path(store))
    keep_freed_memory()
    options = VoxelizeOptions(
        bins=bins,
        format=format,
        kind=kind,
        codec=codec,
        overwrite=overwrite,
        force=force,
        check=check,
        on_error=on_error,
        between=between(since, until),
        dry_run=dry_run,
    )
    where = Workers(count=workers, scheduler=scheduler, cluster=cluster)
    script = job_script() if cluster is not None and dry_run else None
    with progress_bar("Voxelizing", "windows") as reporter:
        summary = voxelize_manifest(manifest, store, options, where, reporter=reporter)
    if json:
        job = {} if script is None else {"job_script": script}
        print_json(summary.as_dict() | job)
    else:
        _print_summary(summary, manifest, store)
        if script is not None:
            say(f"Each of {counted(workers or 1, 'job')}:\n{script.rstrip()}")
    if summary.failed:
        raise typer.Exit(1)


def _print_summary(summary: VoxelizeSummary, manifest: str, store: str) -> None:
    verb = "would be written" if summary.dry_run else "written"
    say(
        f"{store}: {counted(summary.sequences_written, 'sequence')} {verb} "
        f"({counted(summary.windows, 'window')}), {summary.sequences_kept} kept unchanged"
        + (f", {len(summary.failed)} failed" if summary.failed else "")
        + (f"; {counted(summary.left_out, 'frame')} outside left out" if summary.left_out else "")
    )
    if summary.sequences_continued:
        would = "would be " if summary.dry_run else ""
        say(
            f"{summary.sequences_continued} of these {would}continued: "
            f"{counted(summary.shards_kept, 'shard')} ({summary.bytes_kept / 1e6:.1f} MB) kept "
            "from a stopped run"
        )
    for failure in summary.failed[:_SHOWN]:
        why = failure.error.removeprefix(f"{failure.seq}: ")
        say(f"failed: {failure.seq}: {why}", err=True)
    if len(summary.failed) > _SHOWN:
        say(f"and {len(summary.failed) - _SHOWN} more; --json lists all", err=True)
    if summary.estimate is not None:
        _print_estimate(summary.estimate)
    if summary.dry_run or not summary.sequences_written + summary.sequences_kept:
        return
    if summary.windows_per_second is not None and summary.compression is not None:
        say(
            f"{summary.bytes_in / 1e6:.1f} MB of packed spikes in, {summary.bytes_out / 1e6:.1f} "
            f"MB out (spikes {summary.bytes_voxels / 1e6:.1f} MB, {summary.compression:.1f}x less "
            f"than their counts), {summary.windows_per_second:.1f} windows/s"
        )
    say_next(_next_command(summary, manifest, store))


def _next_command(summary: VoxelizeSummary, manifest: str, store: str) -> str:
    """Return the command that trains on a store, or what training on it still lacks."""
    if "train" in summary.splits and "val" in summary.splits:
        return _training_command(store, summary.bins)
    if summary.splits.get("train", 0) > 1 and "://" not in manifest:
        return command_line("split", manifest, *(() if summary.scenes > 1 else ("--by", "clip")))
    split = next(name for name in ("test", "val", *summary.splits) if name in summary.splits)
    return command_line("evaluate", store, *(() if split == "test" else ("--split", split)))


def _training_command(store: str, bins: int) -> str:
    """Return the command that trains on a store what this machine can train."""
    from ..pipeline.host.machine import has_gpu

    name = "vrt_spike_baseline" if has_gpu() else "quickstart"
    run = free_name(Path("outputs", PurePosixPath(store).stem or "run"))
    words = ["train", "--config", f"configs/deblur/{name}.yaml", "--run", str(run)]
    words += ["--set", f"DATA.ROOT={store}"]
    if bins != 32:  # what both files say, under one or both names
        words += ["--set", f"DATA.K={bins}", "--set", f"DATA.NUM_VOXEL_BINS={bins}"]
    return command_line(*words)


def _print_estimate(expected: Estimate) -> None:
    from ..pipeline.host.reporter import duration

    times = ", ".join(f"{counted(n, 'worker')} {duration(expected.seconds(n))}" for n in (1, 8, 64))
    say(
        f"About {expected.bytes_in / 1e9:.2f} GB to read and {expected.bytes_out / 1e9:.2f} GB to "
        f"write. On cores like this one: {times}, if disks "
        f"and network keep up ({100 * expected.measured:.2g} % of it was done to measure)"
    )
