from __future__ import annotations

import pytest

from .properties import DOCUMENT, claims, counts, promises


def test_every_promise_names_tests_that_are_there():
    found = promises()
    assert len(found) >= 10
    for promise, names in found:
        for name in names:
            path, _, test = name.partition("::")
            text = (DOCUMENT.parents[1] / path).read_text()
            assert not test or f"def {test}(" in text, (promise, name)


@pytest.mark.slow  # collects a quarter of all tests
def test_the_table_claims_no_more_cases_than_each_promise_has():
    claimed, found = claims(), counts()
    assert claimed.keys() == found.keys()
    for promise, number in claimed.items():
        assert 0 < number <= found[promise], (promise, "run `python -m tests.torture.properties`")
