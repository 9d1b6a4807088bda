"""Options about the work itself and what it prints, and which of them were typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from ..help_page import OUTPUT

Split = Literal["train", "val", "test"]

Json = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=OUTPUT)
]


def overwrites(what: str) -> Any:
    """Return the option --overwrite of a command; `what` says in its help what is replaced."""
    return typer.Option("--overwrite", help=f"Replace {what}.", rich_help_panel=OUTPUT)


def workers_option(what: str, default: str, **more: Any) -> Any:
    """Return the option --workers; `default`: how many there are where it is left out."""
    return typer.Option(metavar="N", min=1, max=1024, help=what, show_default=default, **more)


def seed_option(of: str) -> Any:
    """Return the option --seed; `of`: what is drawn by it."""
    return typer.Option(metavar="N", min=0, max=2**63 - 1, help=f"Seed of {of}.")


def size_option(what: str, panel: str, default: str | bool = True) -> Any:
    """Return an option that takes a size in pixels, HxW; `parse_size` reads it."""
    return typer.Option(metavar="HxW", help=what, show_default=default, rich_help_panel=panel)


def leave_out(context: typer.Context, parameters: Sequence[str], because: str) -> None:
    """Refuse options (exit code 2) that were typed though another one makes them needless."""
    needless = [f"--{name.replace('_', '-')}" for name in typed(context, parameters)]
    if needless:
        raise typer.BadParameter(f"{because}; leave out {', '.join(needless)}")


def typed(context: typer.Context, parameters: Sequence[str]) -> list[str]:
    """Return those of some parameters that were given on the command line."""
    # By name, because the class is click's or Typer's own, by Typer's version.
    return [
        name
        for name in parameters
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
