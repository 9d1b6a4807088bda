"""Checkpoints: all that it takes to go on, or to use the model, in one safe file."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ...configs import ConfigError, check_config, load_config
from ...configs.schema import Config
from ...configs.schema.data import roots_of
from ...model import VRTWithSpike, build_model, outline_model, parameter_table
from ...third_party.VRT import load_torch_file
from ..host.documents import DocumentError, parse_yaml, read_json
from ..host.header import ProductFormat
from ..host.reading import open_file
from ..host.reporter import counted
from .base import base_of, describe_base, tell_former_base
from .files import CheckpointError, find_checkpoint
from .parts import describe_parts
from .same import differences

CHECKPOINT = ProductFormat("spikedeblur.checkpoint", 1)

_HEADER = ("format", "schema_version", "version", "config", "data")
_PLACE = ("step", "epoch", "step_in_epoch", "samples_a_step", "total_steps", "interval")
_VALIDATION = ("validated_step", "best_step", "best_psnr")
_TENSORS = ("model", "ema", "optimizer", "scaler")
KEYS = frozenset((*_HEADER, *_PLACE, *_VALIDATION, *_TENSORS))
"""Entries of every checkpoint; there is `base` too, but in those of earlier releases."""
MORE = frozenset(("phases", "averages", "ema_decay", "validated_on"))
"""Entries of some checkpoints: `validated_on`, hash of what was validated on; `phases`, of a run
with TRAIN.PHASES; `averages` of the weights by their decay, where there are several, and
`ema_decay`, that of `ema`. Those of earlier releases have none."""

Form = tuple[tuple[int, ...], torch.dtype | str]
"""Shape and dtype of a tensor."""


def load_run(run: str | os.PathLike[str], which: str = "best") -> tuple[VRTWithSpike, Config]:
    """Load the model of a run folder that `train` wrote.

    Args:
        run: the run folder.
        which: `best` by validation, or `last`.

    Returns:
        The model in eval mode, with averaged weights where there are any, and its configuration.

    Raises:
        CheckpointError: no such checkpoint, or it can't be used; the message says why.
    """
    path = find_checkpoint(run, which)
    return model_of(read_own(path), path)


def read_own(path: Path) -> dict[str, Any]:
    """Read a run folder's checkpoint, as `read_checkpoint`; refuse one of another run.

    Raises:
        CheckpointError: as `read_checkpoint` and `require_own`.
    """
    state = read_checkpoint(path)
    require_own(state, path)
    return state


def require_own(state: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint that is not of the run in whose folder it is.

    Raises:
        CheckpointError: config.yaml and environment.json beside it name another configuration or
            other data.
    """
    run = path.parent.parent
    differ = []
    # A folder may lack them, and the checkpoint holds what is needed.
    with suppress(OSError, ConfigError):
        differ = differences(load_config(run / "config.yaml"), checkpoint_config(state, path))
    with suppress(OSError, ValueError, KeyError, TypeError):
        data = read_json(run / "environment.json")["data"]["sha256"]
        differ += ["the training data"] * (data != state["data"])
    if differ:
        raise CheckpointError(
            f"{path}: is of another run than this folder's config.yaml and environment.json: "
            f"{'; '.join(differ)}. Put the run's own there, or give the other run's folder"
        )


def model_of(state: dict[str, Any], path: Path) -> tuple[VRTWithSpike, Config]:
    """Return the model that a checkpoint is kept for, in eval mode, and its configuration.

    Args:
        state: content of the checkpoint; averaged weights are taken where there are any.
        path: its file, for the message.

    Raises:
        CheckpointError: its weights do not fit the network of its configuration.
    """
    config = checkpoint_config(state, path)
    weights = best_weights(state)
    outline_that_fits(config, forms_of(weights, path), path)
    tell_former_base(config.MODEL, base_of(state), path)
    return model_with(weights, config), config


def best_weights(state: dict[str, Any]) -> Any:
    """Return what a checkpoint is kept for: averaged weights where there are any."""
    return state["model"] if state["ema"] is None else state["ema"]


def model_with(weights: Mapping[str, torch.Tensor], config: Config) -> VRTWithSpike:
    """Return a configuration's network with weights that fit it, in eval mode."""
    model = build_model(without_pretrained(config))
    model.load_state_dict(weights)
    return model.eval()


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint; code in it is never run, and memory taken for no more than it holds.

    Raises:
        CheckpointError: as `read_torch_file` and `checked_state`.
    """
    return checked_state(read_torch_file(path), path)


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Read a torch file; code in it is never run, and memory taken for no more than it holds.

    Raises:
        CheckpointError: none, cut or damaged, or a pickle that wants to run code or stands for
            more than the file holds.
    """
    _require_whole(Path(path))
    try:
        with warnings.catch_warnings():
            # Pickles that torch did not write are refused below in our own words.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return load_torch_file(path, "cpu")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; check the path") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it holds more than tensors and plain values, and loading it could "
            "run code or take any memory; use a checkpoint that `spikedeblur train` wrote, or save "
            "its state dict alone"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: expected a checkpoint, can't read it ({reason}); copy it again, or train anew"
        ) from error


def checked_state(state: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a checkpoint, once it is one.

    Raises:
        CheckpointError: another file, or of another schema version.
    """
    remedy = (
        "use a checkpoint that this release's `spikedeblur train` wrote; published weights are "
        "named by MODEL.PRETRAINED, others by `train --init`"
    )
    CHECKPOINT.require(state, path, CheckpointError, remedy)
    missing = sorted(KEYS - state.keys())
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; it is damaged")
    return dict(state)


def _require_whole(path: Path) -> None:
    """Compare the checksums that torch writes and doesn't read.

    Raises:
        CheckpointError: an entry is damaged, or compressed, as torch's never are.
    """
    try:
        with open_file(path) as opened, zipfile.ZipFile(opened) as file:
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
    """Return facts about a checkpoint, and a table of its parameters by part.

    Raises:
        CheckpointError: it can't be read.
    """
    state = read_checkpoint(path)
    config = checkpoint_config(state, path)
    parts = parameter_table(outline_that_fits(config, forms_of(state["model"], path), path))
    facts = {
        "written by": f"spikedeblur {state['version']}",
        "step": f"{state['step']} of {state['total_steps']}",
        "epoch": state["epoch"],
        "best validation PSNR (dB)": state["best_psnr"],
        "at step": state["best_step"],
        "clips a step": state["samples_a_step"],
        "averaged weights": state.get("ema_decay", state["ema"] is not None),
        "base": describe_base(config.MODEL, base_of(state)),
        "data": ", ".join(roots_of(config.DATA.ROOT)),
        "parameters": sum(count for _, count in parts),
    } | describe_parts(config.MODEL)
    return facts, [("part", "parameters"), *((name, f"{count:,}") for name, count in parts)]


def checkpoint_config(state: dict[str, Any], path: str | os.PathLike[str]) -> Config:
    """Return the configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: this release can't read it.
    """
    try:
        return check_config(parse_yaml(str(state["config"])), path)
    except (ConfigError, DocumentError) as error:
        where = "" if isinstance(error, ConfigError) else f"{path}: "
        raise CheckpointError(
            f"{where}{error}; its configuration does not fit this release (it was written by "
            f"spikedeblur {str(state['version'])[:40]})"
        ) from error


def outline_that_fits(
    config: Config, forms: Mapping[str, Form], path: str | os.PathLike[str]
) -> VRTWithSpike:
    """Return the outline of a configuration's network, if a file's weights fit it.

    A configuration that came with weights may name any size, so nothing of its size is made
    before this comparison.

    Args:
        config: configuration in the file.
        forms: shape and dtype of the file's weights, by name.
        path: the file, for the message.

    Raises:
        CheckpointError: names, shapes or dtypes differ; lists some.
    """
    if sum(config.MODEL.VRT.depths) > len(forms):
        raise CheckpointError(
            f"{path}: its {counted(len(forms), 'weight')} can't fit the model of its "
            "configuration, which "
            f"has {sum(config.MODEL.VRT.depths)} blocks; get the file anew"
        )
    outline = outline_model(config)
    expected = forms_of(outline.state_dict(), path)
    names = sorted(expected.keys() ^ forms.keys())
    names += [n for n in sorted(expected.keys() & forms.keys()) if expected[n] != forms[n]]
    if names:
        shown = ", ".join(name[:80] for name in names[:4])
        raise CheckpointError(
            f"{path}: its weights do not fit the model of its configuration: {shown}"
            f"{' and more' if len(names) > 4 else ''}"
        )
    return outline


def forms_of(weights: object, path: str | os.PathLike[str]) -> dict[str, Form]:
    """Return shape and dtype of weights, by name.

    Raises:
        CheckpointError: they are no names with tensors.
    """
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise CheckpointError(
            f"{path}: expected weights as names and tensors, found something else; it is damaged"
        )
    return {name: (tuple(value.shape), value.dtype) for name, value in weights.items()}


def without_pretrained(config: Config) -> Config:
    """Return the configuration for a model whose weights come from a checkpoint."""
    model = config.MODEL.model_copy(update={"PRETRAINED": None})
    return config.model_copy(update={"MODEL": model})
