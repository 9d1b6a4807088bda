from __future__ import annotations

from .properties import DOCUMENT, promises


def test_every_promise_names_tests_that_are_there():
    found = promises()
    assert len(found) >= 10
    for promise, names in found:
        for name in names:
            path, _, test = name.partition("::")
            text = (DOCUMENT.parents[1] / path).read_text()
            assert not test or f"def {test}(" in text, (promise, name)
