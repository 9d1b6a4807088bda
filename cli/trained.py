"""The trained model that a command is given: `--run` or `--model`."""

from __future__ import annotations

from pathlib import Path

import typer


def trained_model(run: Path | None, model: str | None) -> Path | None:
    """Return the run folder, or the file of an exported model; None where neither is given.

    Raises:
        typer.BadParameter: both are.
        TrainedModelError: no such model.
    """
    if model is None:
        return run
    if run is not None:
        raise typer.BadParameter("--run and --model exclude each other", param_hint="--model")
    from ..pipeline.trained import find_model

    return find_model(model)
