"""Weights that a run starts from: any form of them, and only those of its network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from training_sets import SMALL, Listener, make_store

from spikedeblur.cli import main
from spikedeblur.configs import dump_config, load_config
from spikedeblur.configs.schema import Config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import build_model
from spikedeblur.model.motion_deblur import BASE
from spikedeblur.pipeline.host.files import sha256_file
from spikedeblur.pipeline.inspect import inspect
from spikedeblur.pipeline.train import train
from spikedeblur.pipeline.train.dry_run import plan_run
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.trained.model_file import write_model
from spikedeblur.pipeline.weights.checkpoint import load_run, read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path
from spikedeblur.pipeline.weights.find import Init, find_model, weights_file
from spikedeblur.pipeline.weights.initial import InitError, read_weights, start_from

QUICKSTART = "configs/deblur/quickstart.yaml"
CONFIG = load_config(QUICKSTART, SMALL)
Weights = dict[str, Tensor]


def changed(*overrides: str) -> Config:
    return load_config(QUICKSTART, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Weights that half precision holds exactly."""
    torch.manual_seed(5)
    state = build_model(CONFIG).state_dict()
    return {n: v.half().float() if v.is_floating_point() else v for n, v in state.items()}


def others(weights: Weights) -> Weights:
    """The same names with other values: what must not be taken."""
    return {n: v + 1 if v.is_floating_point() else v for n, v in weights.items()}


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def halved(weights: Weights) -> Weights:
    return {n: v.half() if v.is_floating_point() else v for n, v in weights.items()}


def compiled_inside(weights: Weights) -> Weights:
    return {n.replace("vrt.", "vrt._orig_mod.", 1): v for n, v in weights.items()}


def write_run(run: Path, weights: Weights, *, averaged: bool = True, **more: Any) -> Path:
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
        "model": others(weights) if averaged else weights,
        "ema": weights if averaged else None,
        "optimizer": {},
        "scaler": {},
    }
    write_checkpoint(checkpoint_path(run, "best"), state | more)
    (run / "config.yaml").write_text(state["config"])
    return run


def torch_file(content: Callable[[Weights], object]) -> Callable[[Path, Weights], Path]:
    def write(folder: Path, weights: Weights) -> Path:
        torch.save(content(weights), folder / "w.pth")
        return folder / "w.pth"

    return write


def safetensors(folder: Path, weights: Weights) -> Path:
    save_file(prefixed(weights, "module."), folder / "w.safetensors")
    return folder / "w.safetensors"


def exported(folder: Path, weights: Weights) -> Path:
    model = build_model(CONFIG)
    model.load_state_dict(weights)
    write_model(folder / "m.safetensors", model, CONFIG, {"step": 1})
    return folder / "m.safetensors"


FORMS: dict[str, tuple[Callable[[Path, Weights], Path], str]] = {
    "bare": (torch_file(lambda w: w), ""),
    "half precision": (torch_file(halved), "weights in float16 are taken as float32"),
    "params": (torch_file(lambda w: {"params": w}), ""),
    "params_ema": (
        torch_file(lambda w: {"params": others(w), "params_ema": w}),
        "under params_ema are taken, not params",
    ),
    "state_dict": (torch_file(lambda w: {"state_dict": w, "epoch": 3}), "under state_dict"),
    "module.": (torch_file(lambda w: {"params": prefixed(w, "module.")}), "module. is left out"),
    "_orig_mod.": (torch_file(lambda w: prefixed(w, "_orig_mod.")), "_orig_mod. is left out"),
    "best.pt": (lambda f, w: weights_file(write_run(f / "run", w)), "averaged weights are taken"),
    "export": (exported, ""),
    "run": (lambda f, w: write_run(f / "run", w), "averaged weights are taken"),
    "run without averages": (lambda f, w: write_run(f / "run", w, averaged=False), ""),
    "both prefixes": (torch_file(lambda w: prefixed(w, "module._orig_mod.")), "_orig_mod."),
    "a part compiled": (torch_file(compiled_inside), "_orig_mod."),
    "torch's average": (
        torch_file(lambda w: {"n_averaged": torch.tensor(3)} | prefixed(w, "module.")),
        "module. is left out",
    ),
    "safetensors": (safetensors, "module. is left out"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_one_state_dict_loads_to_equal_weights(tmp_path, weights, form):
    write, said = FORMS[form]
    source = write(tmp_path, weights)
    torch.manual_seed(9)
    model, notes = build_model(CONFIG), []
    told = start_from(Init(source), model, CONFIG, notes.append)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert said in " ".join(notes)
    assert bool(notes) == bool(said)
    assert told == {
        "name": str(source),
        "sha256": sha256_file(weights_file(source) if source.is_dir() else source),
        "left_out": [],
        "begun_anew": [],
    }


def test_published_weights_are_understood_in_the_same_forms(tmp_path, weights):
    """MODEL.PRETRAINED: the network alone, renamed as above, and told."""
    alone = {n.removeprefix("vrt."): v for n, v in weights.items() if n.startswith("vrt.")}
    for content in (
        {"params": others(alone), "params_ema": alone},
        {"params": prefixed(alone, "module.")},
        prefixed(alone, "_orig_mod."),
    ):
        torch.save(content, tmp_path / "vrt.pth")
        notes: list[str] = []
        network = build_model(
            changed(f"MODEL.PRETRAINED={tmp_path / 'vrt.pth'}"), note=notes.append
        )
        for name, value in network.vrt.state_dict().items():
            assert torch.equal(value, alone[name]), name
        assert len(notes) == 1
        assert "vrt.pth: " in notes[0]
    with pytest.raises(InitError, match=r"published network alone.*MODEL\.PRETRAINED"):
        start_from(Init(tmp_path / "vrt.pth"), build_model(CONFIG), CONFIG, print)
    run = write_run(tmp_path / "run", weights)
    with pytest.raises(SpikeDeblurError, match=r"best\.pt: expected a state dict.*train --init"):
        build_model(changed(f"MODEL.PRETRAINED={weights_file(run)}"))


def test_each_key_of_another_network_is_named_with_both_values(tmp_path, weights):
    run = write_run(tmp_path / "run", weights)
    config = changed(
        "DATA.K=16",
        "DATA.NUM_VOXEL_BINS=16",
        "DATA.NORM.CORRECT_LAG=false",
        "MODEL.FUSE.HEADS=2",
        # What follows is no other network.
        "MODEL.USE_CHECKPOINT_FFN=true",
        "MODEL.FUSE.CHUNK_SIZE=16",
        "MODEL.VRT.drop_path_rate=0.1",
        "TRAIN.SEED=4",
    )
    with pytest.raises(InitError) as raised:
        start_from(Init(run), build_model(config), config, print)
    said = str(raised.value)
    assert (
        "DATA.K (8 there, 16 here); DATA.NORM.CORRECT_LAG (True there, False here); "
        "MODEL.FUSE.HEADS (4 there, 2 here). Set"
    ) in said
    assert not any(key in said for key in ("CHECKPOINT", "CHUNK", "drop_path", "SEED"))


def test_weights_without_a_configuration_are_compared_by_name_and_shape(tmp_path, weights):
    names = sorted(weights)
    other = {n: v for n, v in weights.items() if n != names[0]} | {"more": torch.zeros(2)}
    other[names[1]] = torch.zeros(7)
    torch.save(other, tmp_path / "w.pt")
    with pytest.raises(InitError) as raised:
        start_from(Init(tmp_path / "w.pt"), build_model(CONFIG), CONFIG, print)
    for said in (f"{names[1]} (7,) there", f"missing: {names[0]};", "unknown: more.", "partial"):
        assert said in str(raised.value)


def test_a_part_is_taken_and_what_is_left_out_is_listed_both_ways(tmp_path, weights):
    names = sorted(weights)
    other = {n: v for n, v in weights.items() if n != names[0]} | {"more": torch.zeros(2)}
    other[names[1]] = torch.zeros(7)
    torch.save(other, tmp_path / "w.pt")
    torch.manual_seed(9)
    model, notes = build_model(CONFIG), []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = start_from(Init(tmp_path / "w.pt", partial=True), model, CONFIG, notes.append)
    assert told["left_out"] == ["more", names[1]] if names[1] > "more" else [names[1], "more"]
    assert told["begun_anew"] == names[:2]
    assert any("2 weights left out: " in note and "more" in note for note in notes)
    assert any(f"2 weights to begin anew: {names[0]}, {names[1]}" in note for note in notes)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in names[:2] else weights[name]), name


def test_a_part_of_another_network_is_taken_with_its_differences_told(tmp_path, weights):
    run = write_run(tmp_path / "run", weights)
    config, notes = changed("MODEL.SPIKE_SKIP=false"), []
    told = start_from(Init(run, partial=True), build_model(config), config, notes.append)
    assert any("MODEL.SPIKE_SKIP (True there, False here)" in note for note in notes)
    assert told["left_out"]
    assert not told["begun_anew"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda w: {"a": torch.zeros(1)}, "none of its 1 names"),
        (lambda w: {"weights": w}, "keys weights"),
        (lambda w: w | {next(iter(w)): next(iter(w.values())) * float("nan")}, "is not finite"),
        (lambda w: w | prefixed(w, "_orig_mod."), "names are there twice"),
        (lambda w: halved(w) | {next(iter(w)): torch.zeros(3, dtype=torch.int64)}, "another form"),
    ],
)
def test_what_is_no_weights_of_this_network_is_refused_by_name(tmp_path, weights, content, said):
    torch.save(content(weights), tmp_path / "w.pt")
    model = build_model(CONFIG)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SpikeDeblurError, match=said) as raised:
        start_from(Init(tmp_path / "w.pt"), model, CONFIG, print)
    assert "w.pt" in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Harmful:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.mkdir, (self.target,)


def test_no_code_is_run(tmp_path):
    torch.save({"params": Harmful(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(SpikeDeblurError, match="refused"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_export_and_another_runs_checkpoint_are_refused(tmp_path, weights):
    path = exported(tmp_path, weights)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SpikeDeblurError, match="damaged"):
        read_weights(path)
    run = write_run(tmp_path / "run", weights)
    (run / "config.yaml").write_text(dump_config(changed("TRAIN.SEED=7")))
    with pytest.raises(SpikeDeblurError, match="is of another run"):
        read_weights(run)


def test_the_shipped_model_is_found_by_its_name():
    found = read_weights("small")
    assert found.path == find_model("small")
    assert found.config is not None
    config = load_config("configs/deblur/small.yaml")
    told = start_from(Init("small"), build_model(config), config, lambda note: None)
    assert told["name"] == "small"


def test_a_name_that_is_nothing_says_what_there_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpikeDeblurError, match=r"--init: none: .*that ships \(small\)"):
        read_weights("none")
    (tmp_path / "run").mkdir()
    with pytest.raises(SpikeDeblurError, match=r"best\.pt: expected a checkpoint"):
        read_weights("run")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("init"))


STEPS = ("TRAIN.MAX_STEPS=2", "TRAIN.VAL_INTERVAL=2")


@pytest.mark.slow
def test_a_run_begins_at_the_weights_and_says_so(tmp_path, weights, store):
    source = write_run(tmp_path / "old", weights)
    config = changed(f"DATA.ROOT={store}", *STEPS)
    listener = Listener()
    summary = train(config, tmp_path / "run", init=source, reporter=listener)
    assert summary.step == 2
    start = train(
        changed(
            f"DATA.ROOT={store}",
            "TRAIN.MAX_STEPS=1",
            "TRAIN.OPTIM.LR=1e-30",
            "TRAIN.SCHEDULER.MIN_LR=0",
        ),
        tmp_path / "still",
        init=source,
    )
    assert start.step == 1
    for name, value in load_run(tmp_path / "still")[0].state_dict().items():
        assert torch.allclose(value, weights[name]), name
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["init"]["name"] == str(source)
    assert environment["init"]["sha256"] == sha256_file(weights_file(source))
    began_with = inspect(tmp_path / "run").facts["began with"]
    assert began_with == f"{source} ({environment['init']['sha256'][:12]})"
    # A run that goes on has its own weights, and keeps where they came from.
    shutil.rmtree(source)
    train(config, tmp_path / "run", resume=True, init=source, reporter=listener)
    assert json.loads((tmp_path / "run/environment.json").read_text()) == environment
    with pytest.raises(SpikeDeblurError, match="--init"):
        plan_run(config, init=source)


@pytest.mark.slow
def test_a_run_of_another_base_or_network_is_not_continued_but_begun_from(tmp_path, weights, store):
    config = changed(f"DATA.ROOT={store}", *STEPS)
    run = tmp_path / "run"
    train(config, run)
    path = checkpoint_path(run, "last")
    state = read_checkpoint(path)
    torch.save(state | {"base": BASE - 1}, path)
    with pytest.raises(SpikeDeblurError, match=rf"begun on base {BASE - 1}.*--init {run}"):
        train(config, run, resume=True)
    wider = changed(f"DATA.ROOT={store}", *STEPS, "MODEL.SPIKE_SKIP_SCALES=2")
    with pytest.raises(SpikeDeblurError, match=rf"MODEL\.SPIKE_SKIP_SCALES.*--init {run}"):
        train(wider, run, resume=True)
    shutil.copy(path, checkpoint_path(run, "best"))
    listener = Listener()
    assert train(config, tmp_path / "new", init=run, reporter=listener).step == 2
    assert any(
        f"trained on base {BASE - 1}; this run trains on base {BASE}" in note
        for note in listener.notes
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--init-partial"], 2, "--init-partial needs --init"),
        (["--find-rate", "--init", "small"], 2, "leave out --init"),
        (["--init", "nothing"], 1, "--init: nothing: expected a model that ships"),
    ],
)
def test_wrong_use_is_told_before_anything_is_read(words, code, said, capsys, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a/blur").mkdir(parents=True)
    asked = ["train", "--config", QUICKSTART, "--set", f"DATA.ROOT={tmp_path}", *words]
    assert main([*asked, "--run", str(tmp_path / "run")]) == code
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
