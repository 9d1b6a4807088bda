"""YAML and JSON from anybody."""

from __future__ import annotations

import json

import pytest

from spikedeblur.pipeline.host.documents import DocumentError, parse_json, parse_yaml, shown

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "levels"),
        ('{"a":' * 100_000, "levels"),
        ("[" * 65 + "]" * 65, "levels"),
        ("9" * 6_000, "40 digits"),
        ("-" + "9" * 41, "40 digits"),
        ("NaN", "finite"),
        ("[1e999]", "finite"),
        ("-Infinity", "finite"),
        (b"\xff\xfe", "utf-8"),
        ("{'a': 1}", "property name"),
        ("", "Expecting value"),
    ],
)
def test_what_is_no_plain_json_is_an_error_in_one_line(text: str | bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_brackets_in_texts_and_side_by_side_are_no_depth() -> None:
    many = json.dumps({"a": "[" * 1000 + '\\"', "b": [[] for _ in range(1000)]})
    assert parse_json(many) == json.loads(many)


def test_a_refused_value_is_shown_in_a_few_words() -> None:
    for value in (10**6000, ["x" * 10**6] * 10**6, {"a": {"b": "y" * 10**6}}):
        assert len(shown(value)) < 5000


def test_yaml_of_a_few_hundred_levels_is_too_deep() -> None:
    with pytest.raises(DocumentError, match="nested"):
        parse_yaml("[" * 100 + "]" * 100)
    assert parse_yaml("[" * 30 + "]" * 30) is not None
