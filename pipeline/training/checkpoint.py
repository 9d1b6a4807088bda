"""Checkpoints: everything needed to go on, or to use the model, in one safe file."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from ... import __version__
from ...configs.schema import Config
from ...configs.yaml_text import YamlError, read_yaml
from ...errors import SpikeDeblurError
from ...model import VRTWithSpike, build_model, parameter_table
from ..files import atomic_write

FORMAT = "spikedeblur.checkpoint"
SCHEMA_VERSION = 1
FOLDER = "checkpoints"

_HEADER = ("format", "schema_version", "version", "config", "data")
_PLACE = ("step", "epoch", "step_in_epoch", "samples_a_step", "total_steps", "interval")
_VALIDATION = ("validated_step", "best_step", "best_psnr")
_TENSORS = ("model", "ema", "optimizer", "scaler")
_KEYS = frozenset((*_HEADER, *_PLACE, *_VALIDATION, *_TENSORS))


class CheckpointError(SpikeDeblurError):
    """A checkpoint is missing, is not one of ours, or can't be written."""


def checkpoint_path(run: str | os.PathLike[str], which: str) -> Path:
    """Return where a run keeps its `last` or `best` checkpoint."""
    return Path(run) / FOLDER / f"{which}.pt"


def load_run(
    run: str | os.PathLike[str], which: str = "best", device: str | torch.device = "cpu"
) -> tuple[VRTWithSpike, Config]:
    """Load a trained model.

    Args:
        run: the run folder that `train` wrote.
        which: `best` by validation, or `last`.
        device: where the model is put.

    Returns:
        The model in eval mode, with averaged weights where there are any, and its configuration.

    Raises:
        CheckpointError: no such checkpoint, or it can't be used; says why.
    """
    path = checkpoint_path(run, which)
    if not path.is_file():
        there = [w for w in ("best.pt", "last.pt") if path.with_name(w).is_file()]
        raise CheckpointError(
            f"{path}: expected a checkpoint, found {', '.join(there) or 'none in this run'}; "
            "check the run folder, or train it first"
        )
    state = read_checkpoint(path)
    config = checkpoint_config(state, path)
    model = build_model(without_pretrained(config))
    load_weights(model, state["model"] if state["ema"] is None else state["ema"], path)
    return model.to(device).eval(), config


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; it gets its name only after it was read back.

    Raises:
        CheckpointError: it can't be written, or does not read back.
    """
    state = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        **state,
    }
    assert state.keys() == _KEYS
    try:
        with atomic_write(path) as file:
            torch.save(state, file)
            file.flush()
            if read_checkpoint(file.path)["step"] != state["step"]:
                raise CheckpointError(f"{file.path}: reads back as another step")
    except (OSError, RuntimeError, CheckpointError) as error:
        raise CheckpointError(
            f"{path}: could not write the checkpoint of step {state['step']} ({error}); the one "
            "before is whole. Make space or repair the disk, then continue with --resume"
        ) from error


def read_checkpoint(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint; code in it is never run.

    Raises:
        CheckpointError: not a file of ours, cut, from another schema version, or a pickle that
            wants to run code.
    """
    _require_whole(Path(path))
    try:
        with warnings.catch_warnings():
            # Of pickles that torch did not write; they are refused below in our own words.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; check the path") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it holds more than tensors and plain values, and loading it could "
            "run code; use a checkpoint that `spikedeblur train` wrote"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: expected a checkpoint, can't read it ({reason})") from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint of `spikedeblur train`, found {found or 'another'} "
            "file; published weights are named by MODEL.PRETRAINED instead"
        )
    if state.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: expected schema version {SCHEMA_VERSION}, found "
            f"{state.get('schema_version')} (written by spikedeblur {state.get('version')}); use "
            "that release"
        )
    missing = sorted(_KEYS - state.keys())
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; it is damaged")
    return state


def _require_whole(path: Path) -> None:
    """Compare the checksums that torch writes and doesn't read.

    Raises:
        CheckpointError: an entry is damaged, or compressed, as torch's never are.
    """
    try:
        with zipfile.ZipFile(path) as file:
            packed = [info for info in file.infolist() if info.compress_type != zipfile.ZIP_STORED]
            damaged = packed[0].filename if packed else file.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError):
        return  # another format, or cut: loading says which
    if damaged is not None:
        raise CheckpointError(
            f"{path}: damaged: {damaged[:80]} is not what was written; take another checkpoint of "
            "the run (last.pt, best.pt), or a copy"
        )


def describe_checkpoint(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """Return what a checkpoint says of itself, and a table of its parameters by part.

    Raises:
        CheckpointError: it can't be read.
    """
    state = read_checkpoint(path)
    config = checkpoint_config(state, path)
    facts = {
        "written by": f"spikedeblur {state['version']}",
        "step": f"{state['step']} of {state['total_steps']}",
        "epoch": state["epoch"],
        "best validation PSNR (dB)": state["best_psnr"],
        "at step": state["best_step"],
        "clips a step": state["samples_a_step"],
        "averaged weights": state["ema"] is not None,
        "data": config.DATA.ROOT,
        "parameters": 0,
    }
    model = build_model(without_pretrained(config))
    load_weights(model, state["model"], path)
    parts = parameter_table(model)
    facts["parameters"] = sum(count for _, count in parts)
    return facts, [("part", "parameters"), *((name, f"{count:,}") for name, count in parts)]


def checkpoint_config(state: dict[str, Any], path: str | os.PathLike[str]) -> Config:
    """Return the configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: this release can't read it.
    """
    try:
        return Config.model_validate(read_yaml(str(state["config"])))
    except (ValidationError, YamlError) as error:
        raise CheckpointError(
            f"{path}: its configuration does not fit this release (written by spikedeblur "
            f"{state['version']}): {' '.join(str(error).split())}"
        ) from error


def load_weights(model: nn.Module, weights: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Load weights strictly.

    Raises:
        CheckpointError: names or shapes differ; lists some.
    """
    own = model.state_dict()
    names = sorted(own.keys() ^ weights.keys())
    names += [
        name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape
    ]
    if names:
        raise CheckpointError(
            f"{path}: its weights do not fit the model of its configuration: {', '.join(names[:4])}"
            f"{' and more' if len(names) > 4 else ''}"
        )
    model.load_state_dict(weights)


def without_pretrained(config: Config) -> Config:
    """Return the configuration for a model whose weights come from a checkpoint."""
    model = config.MODEL.model_copy(update={"PRETRAINED": None})
    return config.model_copy(update={"MODEL": model})
