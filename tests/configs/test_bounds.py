"""Every number of the schema has both bounds, every text and list a greatest length."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ByteSize, StringConstraints
from pydantic.fields import FieldInfo

from spikedeblur.configs import Config, ConfigError, check_config, load_config
from spikedeblur.configs.schema.values import Section


def constraints(metadata: tuple[Any, ...]) -> set[str]:
    """Names of what is bounded: ge, gt, le, lt, max_length."""
    found = set()
    for one in metadata:
        if isinstance(one, FieldInfo):
            found |= constraints(tuple(one.metadata))
        for name in ("ge", "gt", "le", "lt", "max_length"):
            if getattr(one, name, None) is not None:
                found.add(name)
    return found


def unbounded(annotation: Any, metadata: tuple[Any, ...], where: str) -> Iterator[str]:
    """Yield the places of a type where anything of any size may be."""
    bounds = constraints(metadata)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from unbounded(arguments[0], (*arguments[1:], *metadata), where)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from unbounded(argument, metadata, where)
    elif origin is tuple:
        if arguments[-1] is Ellipsis and "max_length" not in bounds:
            yield f"{where}: a list of any length"
        for argument in arguments:
            if argument is not Ellipsis:
                yield from unbounded(argument, (), f"{where}[]")
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from unbounded_keys(annotation, f"{where}.")
    elif annotation in (int, float, ByteSize):
        if not (bounds & {"ge", "gt"} and bounds & {"le", "lt"}):
            yield f"{where}: a number without bounds"
    elif annotation is str:
        if "max_length" not in bounds:
            yield f"{where}: a text of any length"
    elif not (annotation in (bool, type(None)) or origin is Literal):
        yield f"{where}: {annotation}, which this test does not know"


def unbounded_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield from unbounded(field.annotation, tuple(field.metadata), prefix + name)


def test_nothing_in_a_configuration_may_be_of_any_size() -> None:
    assert list(unbounded_keys(Config)) == []


def test_a_key_without_a_bound_would_be_found() -> None:
    class Below(Section):
        NUMBERS: Annotated[tuple[int, ...], StringConstraints(max_length=3)]
        SIZE: ByteSize | None
        NAME: str

    class Above(Section):
        BELOW: Below
        HALF: Annotated[float, FieldInfo(ge=0)]
        ANY: dict[str, str]

    assert [found.partition(":")[0] for found in unbounded_keys(Above)] == [
        "BELOW.NUMBERS[]",
        "BELOW.SIZE",
        "BELOW.NAME",
        "HALF",
        "ANY",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("MODEL.VRT.window_size=[6, 3000, 3000]", "at most 8192 tokens"),
        ("MODEL.VRT.depths=[200, 200, 200, 200, 200, 0, 0, 1]", "at most 1000 blocks in all"),
        ("DATA.K=1000000000", "DATA.K: input should be less than or equal to 4096, got 1000000000"),
        ("TRAIN.MEMORY_BUDGET=9000TB", "TRAIN.MEMORY_BUDGET"),
        ("TRAIN.OPTIM.LR=.inf", "finite number"),
        (f"DATA.ROOT={'x' * 5000}", "at most 4096 characters"),
    ],
)
def test_what_is_beyond_is_refused_by_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        load_config("configs/deblur/quickstart.yaml", [override])
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "override",
    [
        "MODEL.VRT.window_size=[8, 32, 32]",
        "MODEL.VRT.window_size=[16, 16, 16]",
        "DATA.K=1024",
        "TRAIN.MEMORY_BUDGET=80GB",
        "TRAIN.MAX_STEPS=100000000",
        "DATA.CACHE_SIZE_GB=2000",
    ],
)
def test_what_somebody_may_want_is_within(override: str) -> None:
    load_config("configs/deblur/quickstart.yaml", [override])


def test_a_message_is_short_whatever_it_tells_of() -> None:
    """A text of a megabyte that two thousand places name is one object, and would be 2 GB."""
    text = "x" * 10**6
    data = {"DATA": {"ALIGN_LOG_PATHS": [text] * 2000, "K": 16**6000, "ROOT": {"a": [text]}}}
    with pytest.raises(
        ConfigError, match=r"model\.safetensors: DATA.*also DATA\.ALIGN_LOG_PATHS"
    ) as refused:
        check_config(data, "model.safetensors")
    assert len(str(refused.value)) < 10_000
