"""Files that pydantic checks, and what it refuses, in one line for people."""

from __future__ import annotations

import difflib
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ...errors import SpikeDeblurError
from .documents import DocumentError, read_yaml, shown
from .reading import StrPath

Model = TypeVar("Model", bound=BaseModel)


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return the first refused entry: its place, the reason, and the value that was found.

    Args:
        error: what pydantic refused.
        model: the mapping that it was checked against; None: keys like unknown ones aren't named.
    """
    first = error.errors(include_url=False)[0]
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p[:80]}" for p in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")[:400]
    if first["type"] == "extra_forbidden":
        near = _nearest_key(first["loc"], model)
        reason = "no such key" + (f", did you mean {near}?" if near else "")
    found = shown(first["input"])
    if not isinstance(first["input"], dict) and found not in reason:
        reason += f", found {found}"
    return f"{place.lstrip('.')}: {reason}" if place else reason


def _nearest_key(place: tuple[int | str, ...], model: type[BaseModel] | None) -> str | None:
    """Return the key of a model that an unknown key, given by its place, is most like."""
    *above, wrong = place
    for part in above:
        field = model.model_fields.get(str(part)) if model else None
        inner = () if field is None else (field.annotation, *get_args(field.annotation))
        model = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), None)
    if model is None:
        return None
    near = difflib.get_close_matches(str(wrong), list(model.model_fields), n=1, cutoff=0.6)
    return near[0] if near else None


def read_checked(
    path: StrPath, model: type[Model], error: type[SpikeDeblurError], what: str, remedy: str
) -> Model:
    """Return the content of a YAML or JSON file, with every value checked.

    Args:
        path: the file.
        model: the mapping that it must hold.
        error: class to raise.
        what: name of such a file with its article, for messages: "a calibration".
        remedy: what to do about a refused file, in the imperative.

    Raises:
        SpikeDeblurError: missing, not YAML, no mapping, or an entry that is missing, unknown or
            impossible; names the entry.
    """
    try:
        content = read_yaml(path)
    except OSError as problem:
        raise error(f"{path}: can't read {what} ({problem.strerror}); check the path") from problem
    except DocumentError as problem:
        raise error(f"{path}: expected {what} in YAML or JSON ({problem}); {remedy}") from problem
    if not isinstance(content, dict):
        raise error(f"{path}: expected {what}, found {type(content).__name__}; {remedy}")
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        raise error(f"{path}: {first_problem(problem, model)}; {remedy}") from problem
