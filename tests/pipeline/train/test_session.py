"""Mistakes that are found before a first step: alike by `train`, a dry run and `find_rate`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from training_sets import SMALL, Listener, MemorySequence

from spikedeblur.configs import load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.train import dry_run, memory_budget, session
from spikedeblur.pipeline.train.dry_run import plan_run
from spikedeblur.pipeline.train.find_rate import find_rate
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.run import folder as run_folder
from spikedeblur.pipeline.train.run import wandb
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint
from spikedeblur.pipeline.weights.files import checkpoint_path


class Turned(MemorySequence):
    """Its frames stand, and its voxels lie."""

    @property
    def frame_shape(self) -> tuple[int, int]:
        return 32, 24


@dataclass
class Case:
    """A mistake, and what is said of it."""

    message: str
    overrides: tuple[str, ...] = ()
    arrange: Callable[[Setting], None] = lambda setting: None
    options: dict[str, bool] = field(default_factory=dict)
    """Of `train`."""


@dataclass
class Setting:
    """Where a case is arranged."""

    run: Path
    begun: Path
    """Folder of a run that was stopped after two steps."""
    monkeypatch: pytest.MonkeyPatch
    opened: ExitStack

    def sequences(self, *training: MemorySequence) -> None:
        splits = list(training), [MemorySequence("val/d", 3)]
        self.monkeypatch.setattr(session, "open_splits", lambda config: splits)

    def continued(self) -> None:
        shutil.copytree(self.begun, self.run)

    def rewrite(self, change: Callable[[dict[str, Any]], None]) -> None:
        self.continued()
        path = checkpoint_path(self.run, "last")
        state = read_checkpoint(path)
        change(state)
        written = ("format", "schema_version", "version")
        write_checkpoint(path, {name: state[name] for name in state if name not in written})


def missing_wandb(setting: Setting) -> None:
    setting.monkeypatch.setattr(wandb, "find_spec", lambda name: None)


def unfitting_weights(setting: Setting) -> None:
    torch.save({"params": {"other": torch.zeros(2)}}, "other.pth")


def above_the_limit(setting: Setting) -> None:
    setting.monkeypatch.setenv("SPIKEDEBLUR_MEMORY", "8GB")
    setting.monkeypatch.setattr(memory_budget, "free_main_memory", lambda: 8 * 10**9)
    trial = memory_budget.Trial(9 * 10**9, 2.0, extrapolated=False)
    setting.monkeypatch.setattr(memory_budget, "try_step", lambda *_, **__: trial)


def held(setting: Setting) -> None:
    setting.opened.enter_context(run_folder.hold(setting.run))


def led_out(setting: Setting) -> None:
    setting.continued()
    shutil.rmtree(setting.run / "samples")
    (setting.run / "samples").symlink_to("/tmp")


def damaged(setting: Setting) -> None:
    setting.continued()
    path = checkpoint_path(setting.run, "last")
    path.write_bytes(path.read_bytes()[:-1000])


def halved(state: dict[str, Any]) -> None:
    state["model"] = {name: value.half() for name, value in state["model"].items()}


def regrouped(state: dict[str, Any]) -> None:
    state["optimizer"]["param_groups"].pop()


K4 = ("DATA.K=4", "DATA.NUM_VOXEL_BINS=4")
CASES = {
    "a crop above the frames": Case("smaller than DATA.CROP_SIZE 64", ("DATA.CROP_SIZE=64",)),
    "a crop that is no multiple": Case(
        "expected a multiple of 3, the ratio",
        K4,
        lambda s: s.sequences(MemorySequence(voxel_shape=(8, 16), ratio=3)),
    ),
    "frames that are turned": Case(
        "12x16 and frames of 32x24 can't show the same field: one is turned; turn the frames",
        K4,
        lambda s: s.sequences(Turned()),
    ),
    "two ratios of sizes": Case(
        "expected one ratio of frame size to spike size",
        K4,
        lambda s: s.sequences(MemorySequence(ratio=2), MemorySequence(ratio=4)),
    ),
    "no sharp frames": Case(
        "has no sharp frames", K4, lambda s: s.sequences(MemorySequence(has_sharp=False))
    ),
    "more bins than samples": Case("spike samples", ("DATA.K=300", "DATA.NUM_VOXEL_BINS=300")),
    "no data": Case("nowhere", ("DATA.ROOT=nowhere",)),
    "an empty split": Case("absent", ("DATA.TRAIN_SPLIT=absent",)),
    "nothing to validate on": Case("absent", ("DATA.VAL_SPLIT=absent",)),
    "one split for both": Case("expected another split", ("DATA.VAL_SPLIT=train",)),
    "missing weights to start from": Case(
        "no.pth: expected a weights", ("MODEL.PRETRAINED=no.pth",)
    ),
    "unfitting weights to start from": Case(
        "other.pth: expected the model's", ("MODEL.PRETRAINED=other.pth",), unfitting_weights
    ),
    "missing weights of the loss": Case(
        "VGG_PERCEPTUAL",
        ("LOSS.VGG_PERCEPTUAL.WEIGHT=0.1", "LOSS.VGG_PERCEPTUAL.WEIGHTS=no/such/vgg.pth"),
    ),
    "missing package": Case(r"spikedeblur\[wandb\]", ("TRAIN.WANDB=trials",), missing_wandb),
    "fp16 without a GPU": Case("fp16 needs a GPU", ("TRAIN.AMP=fp16",)),
    "a network that main memory can't hold": Case(
        "the network's weights take",
        arrange=lambda s: s.monkeypatch.setenv("SPIKEDEBLUR_MEMORY", "1KB"),
    ),
    "a step above the limit of memory": Case(
        r"would take 9.00 GB, more than SPIKEDEBLUR_MEMORY leaves \(8.00 GB\); recomputing does",
        arrange=above_the_limit,
    ),
    "a budget that no step fits in": Case(
        "a step takes more than",
        ("TRAIN.MEMORY_BUDGET=1MB",),
        lambda s: s.monkeypatch.setattr(memory_budget, "try_step", lambda *_, **__: None),
    ),
    "a folder that holds a run": Case("holds a run already", arrange=Setting.continued),
    "a folder in which another trains": Case("another `spikedeblur train`", arrange=held),
    "a folder that leads out": Case(
        "samples: is a link that leaves", arrange=led_out, options={"overwrite": True}
    ),
    "another configuration": Case(
        r"TRAIN.SEED \(0 before, 7 now\)",
        ("TRAIN.SEED=7",),
        Setting.continued,
        {"resume": True},
    ),
    "other data": Case(
        "not the one that the run was begun with",
        (),
        lambda s: s.rewrite(lambda state: state.update(data="00")),
        {"resume": True},
    ),
    "a damaged checkpoint": Case(r"last\.pt", (), damaged, {"resume": True}),
    "a checkpoint of another network": Case(
        "do not fit the model", (), lambda s: s.rewrite(halved), {"resume": True}
    ),
    "an optimizer of another release": Case(
        "its optimizer does not fit this release",
        (),
        lambda s: s.rewrite(regrouped),
        {"resume": True},
    ),
}


def configured(store: Path, *more: str):
    overrides = (*SMALL, f"DATA.ROOT={store}", "TRAIN.MAX_STEPS=4", *more)
    return load_config("configs/deblur/quickstart.yaml", overrides)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, small_store: Path) -> Path:
    run = tmp_path_factory.mktemp("begun") / "run"
    train(configured(small_store), run)
    path = checkpoint_path(run, "last")
    state = read_checkpoint(path) | {"step": 2, "validated_step": 0}
    written = ("format", "schema_version", "version")
    write_checkpoint(path, {name: state[name] for name in state if name not in written})
    return run


def error_of(call: Callable[[], object]) -> tuple[type[BaseException], str]:
    with pytest.raises(SpikeDeblurError) as caught:
        call()
    return caught.type, str(caught.value)


@pytest.fixture(autouse=True)
def a_step_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(*_: object, **__: object) -> memory_budget.Trial:
        return memory_budget.Trial(10**9, 2.0, extrapolated=False)

    monkeypatch.setattr(dry_run, "try_step", trial)
    monkeypatch.setattr(memory_budget, "try_step", trial)


@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_refuses_what_training_refuses(
    name: str, tmp_path: Path, small_store: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    config = configured(small_store, *case.overrides)
    with ExitStack() as opened:
        setting = Setting(tmp_path / "run", begun, monkeypatch, opened)
        case.arrange(setting)
        before = sorted(tmp_path.rglob("*"))
        found = error_of(lambda: plan_run(config, setting.run, **case.options))
        assert re.search(case.message, found[1])
        assert sorted(tmp_path.rglob("*")) == before
        assert error_of(lambda: train(config, setting.run, **case.options)) == found
        assert sorted(tmp_path.rglob("*")) == before
        if not setting.run.exists():
            assert error_of(lambda: find_rate(config, 2)) == found


def test_a_dry_run_without_a_folder_looks_at_none(small_store, begun, monkeypatch):
    monkeypatch.chdir(begun.parent)
    assert plan_run(configured(small_store)).seconds == 4 * 2.0


def test_a_dry_run_of_a_run_that_goes_on_counts_the_steps_that_are_left(small_store, begun):
    plan = plan_run(configured(small_store), begun, resume=True)
    assert (plan.steps, plan.seconds) == (4, 2 * 2.0)


def test_a_dry_run_and_a_search_recompute_what_the_budget_says(small_store, monkeypatch):
    whole = memory_budget.try_step
    tried = []

    def trial(config, device, recompute=None, **_):
        tried.append(recompute)
        return whole() if len(tried) % 2 == 0 else None

    monkeypatch.setattr(memory_budget, "try_step", trial)
    config = configured(small_store, "TRAIN.MEMORY_BUDGET=8GB")
    assert plan_run(config).recomputed == str(memory_budget.CHOICES[1])
    listener = Listener()
    find_rate(config, 12, reporter=listener)
    assert len(tried) == 4
    found = f"recomputing {memory_budget.CHOICES[1]}: a step takes"
    assert any(note.startswith(found) for note in listener.notes)
