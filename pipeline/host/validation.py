"""What pydantic refuses, in one line for people."""

from __future__ import annotations

from pydantic import ValidationError

_LONGEST = 80


def first_problem(error: ValidationError) -> str:
    """Return the first refused entry: its place, the reason, and the value that was found."""
    first = error.errors(include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    found = repr(first["input"])
    if not isinstance(first["input"], dict) and found not in reason:
        reason += f", found {found if len(found) <= _LONGEST else found[: _LONGEST - 3] + '...'}"
    return f"{place.lstrip('.')}: {reason}" if place else reason
