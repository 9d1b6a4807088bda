from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from spikedeblur.pipeline.evaluate.protocols import (
    PROTOCOLS,
    ProtocolError,
    protocol_split,
    require_protocol,
)


def sequence(kind: str = "blur_gamma", **changed: Any) -> Any:
    """Return what a protocol looks at, as of Spk-GoPro."""
    facts = {"voxel_shape": (360, 640), "shortest_window": 81, "longest_window": 81}
    record = SimpleNamespace(**({"blur_kind": kind} | facts | changed))
    return SimpleNamespace(seq="test/GOPR0384_11_00", record=record)


def test_the_data_of_a_protocol_pass() -> None:
    require_protocol("gopro-blur-gamma", "test", [sequence()])
    require_protocol("gopro-blur", "test", [sequence("blur")])


@pytest.mark.parametrize(
    ("name", "split", "found", "message"),
    [
        ("gopro-blur", "test", sequence(), "found blurred frames from blur_gamma"),
        ("gopro-blur", "val", sequence("blur"), "expected the split test .* got val"),
        ("s-sdm", "test", sequence(voxel_shape=(180, 320)), "exposures of 81 samples"),
        ("spk-x4k-33", "val", sequence(), "spikes of 360x640"),
        ("gopro-blur", "test", sequence(blur_kind=None), "another data set"),
        ("spk-x4k", "val", sequence(), "among gopro-blur, gopro-blur-gamma"),
    ],
)
def test_other_data_are_refused_by_name(name, split, found, message) -> None:
    with pytest.raises(ProtocolError, match=message):
        require_protocol(name, split, [found])


def test_two_kinds_of_blur_are_not_mixed() -> None:
    with pytest.raises(ProtocolError, match="blur_gamma"):
        require_protocol("gopro-blur", "test", [sequence("blur"), sequence()])


def test_each_protocol_names_its_split() -> None:
    assert {protocol_split(name) for name in PROTOCOLS} == {"test", "val"}
