"""YAML and JSON from anybody."""

from __future__ import annotations

import pytest

from spikedeblur.pipeline.host.documents import DocumentError, parse_yaml

BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)),
    ]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "aliases"),
        ("&a [*a]", "aliases"),
        ("[" * 5_000, "nested"),
        ("x: " + "9" * 5_000, "digits"),
        ("x: 2001-99-99", "can't be read"),
        ("? [a]\n: b", "name as key"),
        ("a: 1\na: 2", "given twice"),
        ("a: \x00", "not allowed"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("x" * 2**20 + "x", "characters"),
    ],
)
def test_what_is_no_plain_value_is_an_error_in_one_line(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_anchors_within_bounds_are_read() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}, e: 2}") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"d": 1, "e": 2},
    }
