"""Types of values, each with both bounds, and the base class of sections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    model_validator,
)


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, got a truth value")
    return value


Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Number = Annotated[float, BeforeValidator(_no_bool)]

PositiveInt = Annotated[Int, Field(ge=1, le=10**9)]
PositiveFloat = Annotated[Number, Field(gt=0, le=1e9)]
NaturalFloat = Annotated[Number, Field(ge=0, le=1e9)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=4096)]

Extent = Annotated[Int, Field(ge=1, le=2**15)]
Windows = Annotated[Int, Field(ge=1, le=2000)]


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused, finite numbers only."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, data: Any) -> Any:
        # A heading whose keys are all commented out is null in YAML.
        return {} if data is None else data

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other; sections with such rules have their own."""
        yield from ()

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        for reason in self.misfits():
            raise ValueError(reason)
        return self
