"""Frames in the order of their names, and what their numbers tell."""

from __future__ import annotations

import pytest

from spikedeblur.pipeline.clocks.names import (
    describe_gaps,
    gaps_between,
    gaps_in,
    same_number,
    two_kinds_in,
)


@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [
        ([1, 2, 3], []),
        ([16, 49, 115, 148], [("49", "115")]),
        ([5, 6, 8], [("6", "8")]),
        ([5, 7, 9, 13, 15, 19], [("9", "13"), ("15", "19")]),
        ([5, 60], []),
    ],
)
def test_holes_are_where_numbers_are_further_apart_than_usual(numbers, gaps) -> None:
    names = [str(number) for number in numbers]
    assert gaps_between(names, numbers) == gaps
    assert gaps_in([f"a_{name}.png" for name in names]) == [
        (f"a_{a}.png", f"a_{b}.png") for a, b in gaps
    ]


def test_many_holes_are_one_sentence() -> None:
    sentence = describe_gaps([("3.png", "5.png"), ("7.png", "9.png"), ("11.png", "13.png")])
    assert sentence.startswith("after 3.png comes 5.png, and so in 2 more places")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.png", "001.tif", True),
        ("IMG_1.png", "img_01.PNG", True),
        ("1.png", "2.png", False),
        ("a_1.png", "b_1.png", False),
        ("1_2.png", "12.png", False),
        ("cover.png", "cover.jpg", True),
    ],
)
def test_names_are_one_frames_if_they_differ_in_zeros_or_ending(one, other, same) -> None:
    assert same_number(one, other) is same


def test_names_of_two_cameras_are_told_from_those_of_one() -> None:
    assert two_kinds_in(["a_1.png", "a_2.png", "b_1.png", "c_1.png"]) == ("a_1.png", "b_1.png")
    assert two_kinds_in(["IMG_1.png", "img_02.tif", "IMG_10.JPG"]) is None
