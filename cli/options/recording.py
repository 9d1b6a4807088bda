"""Options about one recording: its frames, its spikes, and the part of it that is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..help_page import FRAMES

if TYPE_CHECKING:
    from ...pipeline.spikes.between import Between


def _blur(what: str) -> Any:
    return typer.Option(metavar="FOLDER", help=what, rich_help_panel=FRAMES)


def _spikes(what: str) -> Any:
    return typer.Option(metavar="FILE.dat", help=what, rich_help_panel=FRAMES)


Blur = Annotated[
    Path | None,
    _blur("Folder of blurred frames, with --fps named by number (0031.png); one image; an MP4."),
]
Spikes = Annotated[
    Path | None,
    _spikes("The .dat stream that holds their exposures; its parts: a folder, 'rec_*.dat'."),
]
Blurs = Annotated[list[Path], _blur("Folder of blurred frames; may be repeated.")]
SpikesOfEach = Annotated[list[Path], _spikes("The .dat stream of each --blur, in the same order.")]

Curve = Annotated[
    Literal["linear", "srgb"] | None,
    typer.Option(
        help="What the frames' numbers are: codes of sRGB, which are decoded for all work and "
        "encoded again, or linear light.",
        show_default="as the spikes tell",
        rich_help_panel=FRAMES,
    ),
]

Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Go on where the spikes don't fit the frames.",
        rich_help_panel=FRAMES,
    ),
]


def _instant(name: str, what: str, default: str) -> Any:
    """Return an option that takes a TIME on the recording's clock."""

    def parse(text: str) -> float:
        from ...pipeline.clocks.durations import TimelineError, parse_instant

        try:
            return parse_instant(text, name)
        except TimelineError as error:
            raise typer.BadParameter(str(error)) from error

    return typer.Option(
        name, metavar="TIME", parser=parse, help=what, show_default=default, rich_help_panel=FRAMES
    )


From = Annotated[
    float | None,
    _instant(
        "--from",
        "Read the recording from this time on its clock, such as 30s or 250ms.",
        "its first sample",
    ),
]
To = Annotated[
    float | None,
    _instant(
        "--to",
        "Read it up to this time. Frames that are not exposed wholly between are left out.",
        "its last sample",
    ),
]


def between(since: float | None, until: float | None) -> Between | None:
    """Return the part of a recording that --from and --to name; None: all of it.

    Raises:
        typer.BadParameter: the end is not after the start.
    """
    if since is None and until is None:
        return None
    from ...pipeline.spikes.between import Between
    from ...pipeline.spikes.clock import SpikeWindowError

    try:
        return Between(start=since, end=until)
    except SpikeWindowError as error:
        raise typer.BadParameter(str(error), param_hint="--from / --to") from error
