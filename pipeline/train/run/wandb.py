"""A run's metrics on Weights & Biases, beside TensorBoard's; needs the extra `wandb`."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ....configs.schema import Config
from ....errors import SpikeDeblurError


class WandbError(SpikeDeblurError):
    """Weights & Biases can't be written to."""


def require_wandb(config: Config) -> None:
    """Refuse TRAIN.WANDB before a run begins, if it can't work here.

    Raises:
        WandbError: the package is missing.
    """
    if config.TRAIN.WANDB is not None and find_spec("wandb") is None:
        raise WandbError(
            "TRAIN.WANDB: expected the package wandb, found none; pip install "
            "'spikedeblur[wandb]', or set TRAIN.WANDB=null"
        )


def open_wandb(run: Path, config: Config) -> Any | None:
    """Begin the run of TRAIN.WANDB, or go on with that of the same run folder; None without it.

    Whether and where it is sent is decided by wandb: WANDB_MODE=offline keeps it in the run
    folder, for `wandb sync`.

    Raises:
        WandbError: wandb refuses, such as without a login.
    """
    if config.TRAIN.WANDB is None:
        return None
    import wandb

    # Written where a run begins, so that one begun anew in its folder is another.
    begun = (run / "config.yaml").stat().st_mtime_ns
    named = f"{run.resolve()} {begun}"
    try:
        return wandb.init(
            project=config.TRAIN.WANDB,
            name=run.name,
            id=hashlib.sha256(named.encode()).hexdigest()[:12],
            resume="allow",
            dir=str(run),
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True),
        )
    except wandb.Error as error:
        raise WandbError(
            f"TRAIN.WANDB: {error}; log in with `wandb login`, or set WANDB_MODE=offline"
        ) from error
