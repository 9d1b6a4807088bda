"""Exported models read: a safetensors file with weights, configuration and origin.

`trained.model_file` writes them.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ...configs import ConfigError, check_config
from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ..host.documents import parse_json, parse_yaml
from ..host.header import ProductFormat

if TYPE_CHECKING:  # the header is read without torch
    import torch

    from .checkpoint import Form

MODEL = ProductFormat("spikedeblur.model", 1)
SUFFIX = ".safetensors"
HEADER = "spikedeblur"


class TrainedModelError(SpikeDeblurError):
    """A trained model is missing, or can't be read or written."""


def is_exported(path: Path) -> bool:
    """Whether a safetensors file says that `spikedeblur export` wrote it."""
    try:
        with safe_open(path, framework="numpy") as file:
            return HEADER in (file.metadata() or {})
    except SafetensorError:
        return False


def describe_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the facts in the header of an exported model.

    Raises:
        TrainedModelError: the file is no exported model.
    """
    return _header(Path(path))[0]


def read_exported(path: Path) -> tuple[dict[str, torch.Tensor], Config]:
    """Return the weights of an exported model, which fit its configuration's network."""
    from .base import base_of, tell_former_base
    from .checkpoint import outline_that_fits

    facts, config, recorded = _header(path)
    try:
        with safe_open(path, framework="pt") as file:
            outline_that_fits(config, {name: _form(file, name) for name in file.keys()}, path)  # noqa: SIM118
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise TrainedModelError(f"{path}: can't be read ({error}); get it anew") from error
    if recorded not in (None, weights_checksum(weights)):  # models of earlier releases have none
        raise TrainedModelError(
            f"{path}: damaged: its weights are not what was written; get it anew"
        )
    tell_former_base(config.MODEL, base_of(facts), path)
    return weights, config


_DTYPES = {"F32": "float32", "F64": "float64", "F16": "float16", "I64": "int64"}


def _form(file: Any, name: str) -> Form:
    """Return shape and dtype of a weight from the file's header; no weight is read."""
    import torch

    entry = file.get_slice(name)
    dtype = entry.get_dtype()
    return tuple(entry.get_shape()), getattr(torch, _DTYPES.get(dtype, ""), dtype)


def weights_checksum(weights: dict[str, torch.Tensor]) -> str:
    """Return the CRC-32 of all weights in the order of their names, in hex."""
    import torch

    value = 0
    for name in sorted(weights):
        flat = weights[name].contiguous().view(-1).view(torch.uint8).numpy()
        value = zlib.crc32(flat.tobytes(), value)
    return f"{value:08x}"


def _header(path: Path) -> tuple[dict[str, Any], Config, str | None]:
    if not path.is_file():
        raise TrainedModelError(
            f"{path}: expected an exported model, found no such file; check the path"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            header = parse_json((file.metadata() or {})[HEADER])
        facts = header["facts"]
        config = parse_yaml(header["config"])
        recorded = header.get("crc32")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainedModelError(
            f"{path}: expected a model that `spikedeblur export` wrote, found another file, or a "
            f"part of one ({type(error).__name__}); copy it again; for published "
            "weights set MODEL.PRETRAINED"
        ) from error
    MODEL.require(facts, path, TrainedModelError, "use a model that this release can read")
    try:
        return facts, check_config(config, path), recorded
    except ConfigError as error:
        raise TrainedModelError(
            f"{error}; its configuration does not fit this release (it was written by spikedeblur "
            f"{str(facts.get('version'))[:40]})"
        ) from error
