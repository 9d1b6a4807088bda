"""The trained model that a command is given: `--run` or `--model`."""

from __future__ import annotations

from pathlib import Path

import typer


def trained_model(run: str | Path | None, model: str | None) -> Path | None:
    """Return the run folder, or the file of an exported model; None where neither is given.

    What is given by URL is fetched.

    Raises:
        typer.BadParameter: both are.
        TrainedModelError: no such model.
    """
    if run is not None and model is not None:
        raise typer.BadParameter("--run and --model exclude each other", param_hint="--model")
    if model is not None:
        from ..pipeline.trained.model_file import find_model

        return find_model(model)
    if run is not None:
        from ..pipeline.trained.model_file import fetched

        return fetched(run)
    return None
