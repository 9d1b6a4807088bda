"""Which sequence of an alignment log a folder of frames is."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikedeblur.pipeline.sequences.find_seq import find_seq
from spikedeblur.pipeline.sequences.recording import RecordingError


@pytest.mark.parametrize(
    ("folder", "seq", "expected"),
    [
        ("d/test_blurry_33/T1/c", None, "test/T1/c"),
        ("d/val_blurry_65/T1/c", None, "val/T1/c"),
        ("d/test_blurry_33/T1/c", "val/T1/c", "val/T1/c"),
        ("anywhere/T2/c", None, "test/T2/c"),
        ("anywhere/only", None, "test/T1/only"),
        ("anywhere/test/only/blur", None, "test/T1/only"),
        ("anywhere/val/T1/c/blur_gamma", None, "val/T1/c"),
    ],
)
def test_sequence_is_found_by_the_folders_name(folder, seq, expected) -> None:
    seqs = ["test/T1/c", "val/T1/c", "test/T2/c", "test/T1/only"]
    assert find_seq(Path(folder), seqs, seq, "log.txt") == expected


def test_sequences_that_fit_equally_are_listed() -> None:
    seqs = ["test/T1/c", "val/T1/c", "test/T2/c"]
    with pytest.raises(RecordingError, match=r"several.*test/T1/c, val/T1/c;"):
        find_seq(Path("x/T1/c"), seqs, None, "log.txt")
    with pytest.raises(RecordingError, match="no sequence fits"):
        find_seq(Path("x/T1/d"), seqs, None, "log.txt")
    with pytest.raises(RecordingError, match="'train/T1/c'"):
        find_seq(Path("x/train_blurry_33/T1/c"), seqs, None, "log.txt")
    with pytest.raises(RecordingError, match="--seq"):
        find_seq(Path("x/T1/c"), seqs, "nope", "log.txt")
