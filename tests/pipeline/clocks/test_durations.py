from __future__ import annotations

import pytest

from spikedeblur.pipeline.clocks.durations import TimelineError, describe_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("16ms", 0.016),
        ("16 MS", 0.016),
        ("0.25", 0.25),
        ("0.25s", 0.25),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("40ns", 4e-8),
        ("1/60", 1 / 60),
        ("-3ms", -0.003),
        ("1e-3", 0.001),
        (".5 s", 0.5),
        (0.004, 0.004),
    ],
)
def test_a_duration_is_read_in_its_unit_and_bare_in_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "ms", "16 m", "16mss", "1,5ms", "nan", "inf", "1e999", "1/0", "0x10", "9" * 40]
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(TimelineError, match=r"--shutter: expected a number with a unit.*16ms"):
        parse_duration(text, "--shutter")


def test_durations_are_told_in_the_unit_that_people_use():
    assert [describe_duration(s) for s in (2, 0.016, 0.00025, 4e-8)] == [
        "2 s",
        "16 ms",
        "250 us",
        "40 ns",
    ]
