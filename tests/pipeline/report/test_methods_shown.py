"""Which methods a report can show, by what each needs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from spikedeblur.pipeline.methods.make_method import UNTRAINED, Untrained
from spikedeblur.pipeline.methods.tfp_tfi_sdm import BlurMethod
from spikedeblur.pipeline.report.pictures import choose_methods


def shown(*, raw: bool = True, spikes: bool = True, restore: bool = True) -> list[str]:
    """Return the methods that a report without an evaluation or a model shows."""
    sequence = SimpleNamespace(windows_are_raw=raw, has_spikes=spikes)
    run = SimpleNamespace(evaluation={}, has_model=False)
    material = SimpleNamespace(runs=[run], sequences=[sequence], display=[])
    return [name for name, _ in choose_methods(material, restore)]


def test_a_method_is_shown_where_the_store_has_what_it_needs() -> None:
    assert shown() == ["blur", "TFP", "TFI", "SDM", "path"]
    assert shown(spikes=False) == ["blur", "TFP", "SDM", "path"]
    assert shown(raw=False) == ["blur"]
    assert shown(restore=False) == ["blur", "TFP", "TFI", "SDM"]


def test_a_new_method_is_shown_by_its_entry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UNTRAINED, "new", Untrained(make=BlurMethod, needs_spikes=True))
    run = SimpleNamespace(evaluation={"methods": ["blur", "new"]}, has_model=False)
    for spikes, names in ((True, ["blur", "new"]), (False, ["blur"])):
        sequence = SimpleNamespace(windows_are_raw=True, has_spikes=spikes)
        material = SimpleNamespace(runs=[run], sequences=[sequence], display=[])
        assert [name for name, _ in choose_methods(material, restore=True)] == names
