"""What the commands that take one recording ask of its options."""

from __future__ import annotations

from pathlib import Path

import typer


def require_times(log: Path | None, exposure: int | None, fps: float | None) -> None:
    """Refuse options that don't say when frames were exposed, or say it twice.

    Raises:
        typer.BadParameter: says which to give.
    """
    by_number = exposure is not None or fps is not None
    if (log is not None) == by_number or (by_number and (exposure is None or fps is None)):
        raise typer.BadParameter(
            "the frames' times come from an alignment log, or from the exposure and the frame "
            "rate; give --log, or both --exposure and --fps",
            param_hint="--log",
        )
