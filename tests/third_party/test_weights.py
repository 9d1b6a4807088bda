from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from spikedeblur.third_party.VRT import VRT, WeightsError, load_pretrained


@pytest.fixture(scope="module")
def published(oracle_case):
    """Weights with the oracle's names, shapes and types, and the model's configuration."""
    case = oracle_case("tiny")
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.rand(shape, generator=generator)
        if kind == "float32"
        else torch.zeros(shape, dtype=torch.int64)
        for name, (shape, kind) in case.facts["state_dict"].items()
    }
    return case.config, weights


@pytest.mark.parametrize("form", ["params", "bare", "safetensors"])
def test_published_names_load_strictly(published, tmp_path, form):
    config, weights = published
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"params": weights} if form == "params" else weights, path)
    model = VRT(**config)
    assert load_pretrained(model, path) == ([], [])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_other_names_are_listed_and_nothing_is_loaded(published, tmp_path):
    config, weights = published
    changed = dict(weights)
    changed["first_conv.weight"] = changed.pop("conv_first.weight")
    torch.save({"params": changed}, tmp_path / "w.pth")
    model = VRT(**config)
    before = model.conv_last.weight.clone()
    with pytest.raises(WeightsError, match=r"missing: conv_first\.weight; .*first_conv\.weight"):
        load_pretrained(model, tmp_path / "w.pth")
    assert torch.equal(model.conv_last.weight, before)
    assert load_pretrained(model, tmp_path / "w.pth", strict=False) == (
        ["conv_first.weight"],
        ["first_conv.weight"],
    )
    assert torch.equal(model.conv_last.weight, weights["conv_last.weight"])


@pytest.mark.parametrize("strict", [True, False])
def test_another_shape_is_named(published, tmp_path, strict):
    config, weights = published
    torch.save({**weights, "norm.bias": torch.zeros(7)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"norm\.bias \(7,\) instead of \(20,\)"):
        load_pretrained(VRT(**config), tmp_path / "w.pth", strict=strict)


class Harmful:
    """Its pickle would call a function when read."""

    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found none"),
        (b"not weights", "refused|not a readable"),
        (b"", "refused|not a readable"),
        ({"params": Harmful()}, "could run code"),
        ({"model": {"a": torch.zeros(1)}}, "keys model"),
        ([torch.zeros(1)], "type list"),
        ({"a": torch.zeros(1)}, "missing"),
    ],
)
def test_what_is_not_weights_is_refused(published, tmp_path, capsys, content, message):
    config, _ = published
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=message) as raised:
        load_pretrained(VRT(**config), path)
    assert str(path) in str(raised.value)
    assert capsys.readouterr().out == ""


def test_nothing_in_common_is_an_error_even_if_not_strict(published, tmp_path):
    config, _ = published
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="none of its 1 names"):
        load_pretrained(VRT(**config), tmp_path / "w.pth", strict=False)


def test_a_cut_safetensors_file_is_refused(published, tmp_path):
    config, _ = published
    (tmp_path / "w.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_pretrained(VRT(**config), tmp_path / "w.safetensors")
