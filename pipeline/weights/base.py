"""The base that a network was trained to correct, where a model says which it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from ...configs.schema.model import ModelConfig
from ...model.motion_deblur import BASE
from .files import CheckpointError

_logger = logging.getLogger(__name__)


def base_of(record: Mapping[str, Any]) -> int:
    """Return the base's version that a checkpoint or an exported model's facts name; absent: 1."""
    base = record.get("base", 1)
    return base if isinstance(base, int) else 1


def describe_base(model: ModelConfig, trained_on: int) -> str:
    """Return what a network corrects, in words, with the base's version then and now."""
    if not model.USE_SPIKE or model.RESIDUAL_BASE == "blur":
        corrected = "blurred frame"
        if not model.USE_SPIKE or not model.SPIKE_MOTION:
            return corrected
        corrected += ", beside the frame sharp along motion (path)"
    elif model.SPIKE_MOTION:
        corrected = "frame sharp along motion (path)"
    else:
        return "blurred frame after spike-guided division (sdm)"
    return f"{corrected}, trained on {trained_on} (now {BASE})"


def require_same_base(
    model: ModelConfig, record: Mapping[str, Any], run: str | os.PathLike[str]
) -> None:
    """Refuse to continue a run whose network corrects another base than it would from now on.

    Args:
        model: the run's configuration.
        record: content of its checkpoint.
        run: its folder, for the message.

    Raises:
        CheckpointError: the base's version is another.
    """
    begun_on = base_of(record)
    if _corrects_motion(model) and begun_on != BASE:
        raise CheckpointError(
            f"{run}: can't continue: the run was begun on base {begun_on}, and this release has "
            f"base {BASE}. Continue with the release that it was begun with, or train on from its "
            f"weights with another --run and --init {run}"
        )


def _corrects_motion(model: ModelConfig) -> bool:
    return model.USE_SPIKE and model.SPIKE_MOTION


def tell_former_base(model: ModelConfig, trained_on: int, path: str | os.PathLike[str]) -> None:
    """Log that a network corrects another base than it was trained on."""
    if _corrects_motion(model) and trained_on != BASE:
        _logger.info(
            "%s: trained on base %d and used on base %d, which is sharper; training on with "
            "`train --init` may gain",
            path,
            trained_on,
            BASE,
        )
