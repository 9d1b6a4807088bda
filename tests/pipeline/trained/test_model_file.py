"""Exported models: one file that holds all it takes to use them, and nothing that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_sets import SMALL

from spikedeblur.configs import dump_config, load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import build_model
from spikedeblur.model.motion_deblur import BASE
from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.trained import model_file as trained
from spikedeblur.pipeline.weights import checkpoint
from spikedeblur.pipeline.weights.checkpoint import load_run, read_checkpoint
from spikedeblur.pipeline.weights.exported import describe_model
from spikedeblur.pipeline.weights.files import checkpoint_path
from spikedeblur.pipeline.weights.find import find_model, source_name, weights_file

CONFIG = load_config("configs/deblur/quickstart.yaml", SMALL)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = {
        "config": dump_config(CONFIG),
        "data": "ab",
        "samples_a_step": 4,
        "total_steps": 9,
        "epoch": 1,
        "step_in_epoch": 0,
        "step": 7,
        "validated_step": 7,
        "best_step": 7,
        "best_psnr": 30.0,
        "interval": {"loss": 0.5, "psnr": 20.0, "steps": 1},
        "model": build_model(CONFIG).state_dict(),
        "ema": build_model(CONFIG).state_dict(),
        "optimizer": {},
        "scaler": {},
    }
    write_checkpoint(checkpoint_path(tmp_path / "run", "best"), state)
    return tmp_path / "run"


def test_an_exported_model_is_the_runs_best_with_its_configuration(run, tmp_path):
    out = tmp_path / "m.safetensors"
    facts = trained.export_model(run, out)
    assert facts == describe_model(out)
    assert (facts["step"], facts["validation_psnr"], facts["data_sha256"]) == (7, 30.0, "ab")
    (ours, config), (theirs, _) = trained.load_trained(out), load_run(run)
    assert config == CONFIG
    assert not ours.training
    for (name, value), other in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    assert weights_file(out) == out
    shown = inspect(out)
    assert (shown.kind, shown.facts["step"]) == ("model", 7)
    assert find_model(out) == out


def test_a_model_may_see_other_clips_than_in_training(run, tmp_path):
    out = tmp_path / "m.safetensors"
    trained.export_model(run, out, clip_len=CONFIG.DATA.CLIP_LEN + 3)
    _, config = trained.load_trained(out)
    assert config.DATA.CLIP_LEN == CONFIG.DATA.CLIP_LEN + 3
    assert config.MODEL == CONFIG.MODEL


def test_a_model_says_which_base_it_was_trained_on(run, tmp_path, caplog):
    """Files of earlier releases say nothing; theirs is base 1."""
    out = tmp_path / "m.safetensors"
    assert trained.export_model(run, out)["base"] == BASE == 2
    with caplog.at_level("INFO"):
        trained.load_trained(out)
    assert not caplog.messages
    for path in (out, run / "checkpoints/best.pt"):
        assert inspect(path).facts["base"].endswith("(path), trained on 2 (now 2)")

    state = read_checkpoint(run / "checkpoints/best.pt")
    torch.save({name: value for name, value in state.items() if name != "base"}, run / "old.pt")
    (run / "old.pt").replace(run / "checkpoints/best.pt")
    (run / "config.yaml").write_text(dump_config(CONFIG))
    for path in (run, run / "checkpoints/best.pt"):
        assert inspect(path).facts["base"].endswith("trained on 1 (now 2)")
    assert trained.export_model(run, out, overwrite=True)["base"] == 1
    assert inspect(out).facts["base"].endswith("trained on 1 (now 2)")


def test_the_shipped_model_runs_on_the_base_of_today_and_says_which_was_its_own(caplog):
    path = find_model("small")
    with caplog.at_level("INFO"):
        model, config = trained.load_trained("small")
    own = describe_model(path).get("base", 1)
    assert inspect(path).facts["base"].endswith(f"trained on {own} (now {BASE})")
    said = [message for message in caplog.messages if f"trained on base {own}" in message]
    assert len(said) == (own != BASE)
    with torch.inference_mode():
        out = model(torch.rand(1, 3, 3, 32, 48), torch.zeros(1, 3, config.DATA.K, 16, 24))
    assert out.isfinite().all()


def test_nothing_is_replaced_or_left_half_written(run, tmp_path, monkeypatch):
    out = tmp_path / "m.safetensors"
    trained.export_model(run, out)
    before = out.read_bytes()
    with pytest.raises(SpikeDeblurError, match="is there already"):
        trained.export_model(run, out)

    monkeypatch.setattr("safetensors.torch.save", lambda weights, metadata: before[:100])
    with pytest.raises(SpikeDeblurError, match="a part of one"):
        trained.export_model(run, out, overwrite=True)
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "run"]


def test_another_ending_is_refused(run, tmp_path):
    with pytest.raises(SpikeDeblurError, match=r"ends in \.safetensors"):
        trained.export_model(run, tmp_path / "m.pt")


def test_files_that_are_none_of_ours_are_refused(run, tmp_path):
    good = tmp_path / "good.safetensors"
    trained.export_model(run, good)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-1000])
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"a": 1}, pickled)
    for path in (cut, foreign, pickled):
        with pytest.raises(SpikeDeblurError, match=f"{path.name}: expected a model that"):
            trained.load_trained(path)
    with pytest.raises(SpikeDeblurError, match="no such file"):
        trained.load_trained(tmp_path / "none.safetensors")


def test_a_model_is_loaded_by_the_name_that_it_ships_with(tmp_path, monkeypatch, run):
    _, config = trained.load_trained("small")
    assert config == trained.load_trained(find_model("small"))[1]
    assert weights_file("small") == find_model("small")
    assert source_name("small") == "small"
    monkeypatch.chdir(tmp_path)
    run.rename("small")  # a folder of that name comes first
    assert trained.load_trained("small")[1] == CONFIG
    with pytest.raises(SpikeDeblurError, match=r"nothing: .* one that ships \(small\)"):
        trained.load_trained("nothing")


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(SpikeDeblurError, match="nonsense: expected a model that ships"):
        find_model("nonsense")


def test_weights_are_compared_by_the_header_and_then_read(run, tmp_path, monkeypatch):
    out = tmp_path / "m.safetensors"
    trained.export_model(run, out)
    other = load_config("configs/deblur/quickstart.yaml", [*SMALL, "MODEL.SPIKE_SKIP_SCALES=2"])
    wrong = tmp_path / "wrong.safetensors"
    with pytest.raises(SpikeDeblurError, match="do not fit the model of its configuration"):
        trained.write_model(wrong, build_model(CONFIG), other, {})
    assert not wrong.exists()

    def never(config):
        raise AssertionError("built before it was compared")

    half = {name: value.half() for name, value in build_model(CONFIG).state_dict().items()}
    with safe_open(out, framework="pt") as file:
        header = file.metadata()
    save_file(half, wrong, metadata=header)
    monkeypatch.setattr(checkpoint, "build_model", never)
    with pytest.raises(SpikeDeblurError, match=r"wrong\.safetensors: its weights do not fit"):
        trained.load_trained(wrong)


def test_the_shipped_model_computes_its_tables_as_a_network_that_is_built_alone(tmp_path):
    """Outlining one first leaves nothing behind: buffers are computed, not empty."""
    path = find_model("small")
    loaded, config = trained.load_trained(path)
    alone = build_model(config)
    alone.load_state_dict(load_file(path))
    for (name, value), wanted in zip(
        loaded.named_buffers(), dict(build_model(config).named_buffers()).values(), strict=True
    ):
        assert torch.equal(value, wanted), name
    random = torch.Generator().manual_seed(0)
    rgb = torch.rand(1, 3, 3, 32, 48, generator=random)
    voxels = torch.rand(1, 3, config.DATA.K, 16, 24, generator=random) - 0.5
    with torch.inference_mode():
        assert torch.equal(loaded(rgb, voxels), alone.eval()(rgb, voxels))
