"""What integers decide is, bit for bit, what was recorded when it was last changed on purpose."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.compare_commits import FROZEN, HASHES, differences, digest, frozen_hashes


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, str]:
    return frozen_hashes(tmp_path_factory.mktemp("frozen") / "work")


@pytest.mark.slow
@pytest.mark.parametrize("row", FROZEN)
def test_the_result_is_the_recorded_one(made, row):
    assert made[row] == json.loads(HASHES.read_text())[row], (
        f"{row!r} gives other bytes than recorded; if that was meant, say so in CHANGELOG.md and "
        "run `python -m tests.compare_commits --record`"
    )


def test_every_recorded_row_is_compared():
    assert json.loads(HASHES.read_text()).keys() == FROZEN.keys()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"spikes", b"spikeS"),
        ("a line\nanother", "a line\nanothe"),
        ("a line", "a line\n"),
        (np.zeros(3), np.array([0.0, -0.0, 0.0])),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(3, np.int32), np.zeros(3, np.float32)),
        ({"file": b""}, {}),
        ({"a": {"b": "1"}}, {"a": {"b": "2"}}),
    ],
)
def test_a_difference_is_seen_by_comparison_and_by_hash(old, new):
    assert list(differences(old, old)) == []
    assert list(differences(old, new))
    assert digest({"made": old}) != digest({"made": new})
