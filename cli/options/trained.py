"""Options about the trained model; `trained_model` takes --run and --model together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..completion import models, offered
from ..help_page import MODEL

Run = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Run folder of a trained model: a path or a URL.",
        rich_help_panel=MODEL,
    ),
]


def model_option(default: str | bool = True) -> Any:
    """Return the option --model; `default`: the model that is taken where it is left out."""
    return typer.Option(
        metavar="MODEL",
        autocompletion=offered(models),
        help="Exported model, a file or a URL; or `small`, which ships.",
        show_default=default,
        rich_help_panel=MODEL,
    )


Model = Annotated[str | None, model_option()]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        min=0,
        max=2**15,
        help="Side of the model's tiles; 0: whole frames.",
        show_default="whole up to 512x512, else 256; less if memory is short",
        rich_help_panel=MODEL,
    ),
]
Flips = Annotated[
    bool,
    typer.Option(
        "--flips",
        help="Mean over four mirrored copies: four times the time, a little better.",
        rich_help_panel=MODEL,
    ),
]


def trained_model(run: str | Path | None, model: str | None) -> Path | None:
    """Return the run folder or the file of an exported model; None: neither is given.

    A URL is fetched first.

    Raises:
        typer.BadParameter: both are given.
        TrainedModelError: no such model.
    """
    if run is not None and model is not None:
        raise typer.BadParameter("--run and --model both name the model; leave one out")
    from ...pipeline.weights.find import fetched, find_model, require_trained

    if run is not None:
        return require_trained(fetched(run))
    return None if model is None else require_trained(find_model(model))
