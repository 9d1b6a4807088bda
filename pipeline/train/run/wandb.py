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
    """Refuse, before a run begins, what TRAIN.WANDB can't have here.

    Raises:
        WandbError: the package is missing.
    """
    if config.TRAIN.WANDB is not None and find_spec("wandb") is None:
        raise WandbError(
            "TRAIN.WANDB: expected the package wandb, found none; pip install "
            "'spikedeblur[wandb]', or set TRAIN.WANDB=null"
        )


class WandbRun:
    """One run; a run folder that is continued goes on with the same one.

    Where and whether it is sent is wandb's own business: WANDB_MODE=offline keeps it in the run
    folder, for `wandb sync`.
    """

    def __init__(self, run: Path, project: str, config: Config) -> None:
        """Begin, or go on.

        Raises:
            WandbError: it refuses, such as without a login.
        """
        import wandb

        # Written where a run begins, so that one begun anew in its folder is another.
        begun = (run / "config.yaml").stat().st_mtime_ns
        named = f"{run.resolve()} {begun}"
        try:
            self._run = wandb.init(
                project=project,
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

    def log(self, values: dict[str, Any], step: int) -> None:
        """Note values, by name, at a step."""
        self._run.log(values, step=step)

    def picture(self, name: str, picture: Any, step: int) -> None:
        """Note a picture (H, W, 3) uint8 at a step."""
        import wandb

        self._run.log({name: wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """Send or keep what is left."""
        self._run.finish()
