"""The run folder: its files, and the one process that may write them.

config.yaml        as resolved           metrics.jsonl     one JSON object a line
environment.json   versions, data        events.out.*      the same for TensorBoard
checkpoints/       last.pt, best.pt      samples/          blur | output | sharp
                   stable.pt, stable_best.pt: from before the decay of TRAIN.SCHEDULER.TYPE wsd
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ....configs import ConfigError, dump_config, load_config, override_config
from ....configs.schema import Config
from ...host.documents import read_json
from ...host.files import atomic_write, require_inside, sweep, write_text
from ...host.locks import LOCK, only_writer
from ...host.reading import open_file
from ...weights.files import FOLDER, checkpoint_path
from ...weights.same import differences
from .runs import RunFolderError, read_metrics

_PRODUCTS = (
    f"{FOLDER}/last.pt",  # first: without it, a start that is killed here is no run to resume
    f"{FOLDER}/best.pt",
    f"{FOLDER}/stable.pt",
    f"{FOLDER}/stable_best.pt",
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "events.out.tfevents.*",
    "samples/step_*.png",
    "memory_*.pickle",
    "evaluation.json",  # scores, picture and page of the weights that go
    "before_after.png",
    "report.html",
)


def hold(run: Path) -> AbstractContextManager[None]:
    """Return a context that holds the run folder for writing; a killed process lets go of it.

    Raises:
        HeldError: another process trains in it.
    """
    message = (
        f"{run}: another `spikedeblur train` is writing this run; wait for it, stop it, or use "
        "another --run"
    )
    return only_writer(run, message)


def require_not_held(run: Path) -> None:
    """Refuse a folder that `hold` could not hold now, and leave nothing in it.

    Raises:
        HeldError: another process trains in it.
    """
    if (run / LOCK).exists():
        with hold(run):
            pass


def own_folders(run: Path) -> tuple[Path, ...]:
    """Return the folders that a run writes to, the run folder first.

    Raises:
        UnsafePathError: one of them is a link that leaves the run folder.
    """
    folders = (run, run / FOLDER, run / "samples")
    for folder in folders:
        require_inside(run, folder)
    return folders


def holds_run(run: Path) -> bool:
    """Whether a run was begun in the folder."""
    return (run / "config.yaml").exists() or (run / FOLDER).exists()


def require_new(run: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a run already.

    Raises:
        RunFolderError: it holds one, and `overwrite` is false.
    """
    if holds_run(run) and not overwrite:
        raise RunFolderError(
            f"{run}: holds a run already; continue it with --resume, replace it with "
            "--overwrite, or use another --run"
        )


def read_resumable(run: Path, config: Config) -> dict[str, Any] | None:
    """Return the last checkpoint of a run begun with the same configuration; None: none yet.

    Raises:
        RunFolderError: the configuration differs; names the keys.
        CheckpointError: the checkpoint can't be read, or is of another base.
    """
    path = checkpoint_path(run, "last")
    if path.is_file():
        from ...weights.base import require_same_base
        from ...weights.checkpoint import checkpoint_config, read_checkpoint

        state = read_checkpoint(path)
        require_same(checkpoint_config(state, path), config, run)
        require_same_base(config.MODEL, state, run)
        return state
    if (run / "config.yaml").is_file():
        require_same(load_config(run / "config.yaml"), config, run)
    return None


def require_own_start(run: Path) -> None:
    """Refuse to begin a run anew from random weights that was begun with others (`--init`).

    Raises:
        RunFolderError: it was.
    """
    try:
        init = read_json(run / "environment.json")["init"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    raise RunFolderError(
        f"{run}: was begun with --init {str(init)[:200]} and stopped before its first checkpoint; "
        "give --init again, or replace the run with --overwrite"
    )


def require_same(before: Config, now: Config, run: Path) -> None:
    """Refuse to continue a run with a configuration that is of another run.

    Raises:
        RunFolderError: names the keys that differ, with both values.
    """
    differ = differences(before, now)
    if differ:
        raise RunFolderError(
            f"{run}: can't continue with another configuration: {'; '.join(differ)}. Leave them as "
            "they were (without --config a run has its own), or train on from its weights with "
            f"another --run and --init {run}"
        )


def update_config(run: Path, config: Config, *, begins_anew: bool = False) -> None:
    """Write the configuration of a run that goes on, unless its file says the same.

    Args:
        run: the run folder.
        config: its configuration from now on.
        begins_anew: steps that were recorded are dropped.
    """
    path = run / "config.yaml"
    try:
        if load_config(path) == config:
            return
        begun = path.stat().st_mtime_ns
    except ConfigError:
        begins_anew = True
    write_text(path, dump_config(config))
    if not begins_anew:  # Weights & Biases knows the run by this time
        os.utime(path, ns=(begun, begun))


def own_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that a run has, from its config.yaml or its last checkpoint.

    Args:
        run: the run folder.
        overrides: `SECTION.KEY=VALUE`, as for `load_config`.

    Raises:
        RunFolderError: no run was begun in the folder.
        ConfigError: an override can't be used.
        CheckpointError: config.yaml is missing or damaged, and so is the checkpoint.
    """
    try:
        load_config(run / "config.yaml")
    except ConfigError:
        path = checkpoint_path(run, "last")
        if not path.is_file():
            raise RunFolderError(
                f"{run}: expected a run to go on with, found none; give --config to begin one"
            ) from None
        from ...weights.checkpoint import checkpoint_config, read_checkpoint

        return override_config(checkpoint_config(read_checkpoint(path), path), overrides, path)
    return load_config(run / "config.yaml", overrides)


def begin(run: Path, config: Config) -> None:
    """Clear what an earlier run left in the folder, then write the configuration."""
    if holds_run(run):
        # Only what a run writes, by name: the folder may hold other things of the user's.
        for pattern in _PRODUCTS:
            for path in run.glob(pattern):
                require_inside(run, path.parent)
                path.unlink(missing_ok=True)
    write_text(run / "config.yaml", dump_config(config))


def sweep_run(run: Path) -> None:
    """Remove the half-written files that a killed start left behind.

    Raises:
        UnsafePathError: a folder in the run folder is a link that leaves it.
    """
    for folder in own_folders(run):
        sweep(folder)


def drop_pictures(run: Path, validated_step: int) -> None:
    """Remove the sample pictures of later validations, which come again or are dropped."""
    for path in run.glob("samples/step_*.png"):
        number = path.stem.removeprefix("step_")
        if number.isdecimal() and int(number) > validated_step:
            path.unlink()


class MetricsFile:
    """metrics.jsonl: one object a line, on disk before the run goes on.

    Args:
        run: the run folder.
        step: last step whose lines are kept, as later steps are taken again; -1: none.
        validated_step: last step whose validation is kept.
    """

    def __init__(self, run: Path, step: int, validated_step: int) -> None:
        self.path = run / "metrics.jsonl"
        kept = [
            line
            for line in (read_metrics(run) if step >= 0 else ())
            if line["step"] <= (validated_step if line["kind"] == "val" else step)
        ]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, line: dict[str, Any]) -> None:
        """Append an object.

        Raises:
            OSError: not all of it could be written; names the file.
        """
        try:
            with open_file(self.path, "ab") as file:
                file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        except OSError as error:
            error.filename = str(self.path)
            raise


def write_picture(run: Path, step: int, panels: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as the sample picture of a step."""
    path = run / "samples" / f"step_{step:07d}.png"
    with atomic_write(path) as file:
        Image.fromarray(panels).save(file, format="PNG")
