"""`spikedeblur train` as a user types it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import typer
from training_sets import SMALL, Listener, make_store
from typer.testing import CliRunner

from spikedeblur.cli.train import train
from spikedeblur.pipeline.train import job as trainer

app = typer.Typer()
app.command()(train)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


def run(store: Path, *more: str, config: str = "configs/deblur/quickstart.yaml"):
    arguments = ["--config", config]
    for override in (*SMALL, f"DATA.ROOT={store}", "TRAIN.MAX_STEPS=2"):
        arguments += ["--set", override]
    return CliRunner().invoke(app, [*arguments, *more])


def test_a_run_goes_to_a_folder_named_after_its_configuration(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(store)
    assert result.exit_code == 0, result.output
    assert Path("outputs/quickstart/checkpoints/best.pt").is_file()
    assert "best validation PSNR" in result.stdout
    assert f"Next: spikedeblur evaluate {store} --run outputs/quickstart" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.endswith("tensorboard --logdir outputs/quickstart")

    again = run(store, "--resume")
    assert again.exit_code == 0
    assert "this run is finished" in again.stderr

    refused = run(store)
    assert refused.exit_code == 1
    assert "holds a run already" in str(refused.exception)

    replaced = run(store, "--overwrite", "--set", "TRAIN.MAX_STEPS=1")
    assert replaced.exit_code == 0
    assert ": 1 step;" in replaced.stdout

    as_json = run(store, "--overwrite", "--set", "TRAIN.MAX_STEPS=1", "--json")
    assert json.loads(as_json.stdout)["step"] == 1


def test_a_stopped_run_says_how_to_go_on(store, tmp_path, monkeypatch):
    whole = trainer.fit

    def interrupted(session, *, reporter, **options):
        stop = Listener(lambda done, *_: done and signal.raise_signal(signal.SIGINT))
        return whole(session, reporter=stop, **options)

    monkeypatch.setattr(trainer, "fit", interrupted)
    result = run(store, "--run", str(tmp_path), "--set", "DATA.USE_RAM_CACHE=false")
    assert result.exit_code == 130
    assert "stopped after step 1 of 2, the checkpoint is written; go on with: " in result.stderr
    assert result.stderr.rstrip().endswith(f"spikedeblur train --run {tmp_path} --resume")
    monkeypatch.undo()
    longer = CliRunner().invoke(
        app, ["--run", str(tmp_path), "--resume", "--set", "TRAIN.MAX_STEPS=3"]
    )
    assert longer.exit_code == 0, longer.output
    assert ": 3 steps" in longer.stdout
    assert "another TRAIN.MAX_STEPS (2 before, 3 now)" in longer.stderr
    assert "continuing after step 1 of 3" in longer.stderr


@pytest.mark.parametrize("options", [[], ["--resume"], ["--run", "outputs/a"]])
def test_without_a_configuration_only_a_run_that_is_named_goes_on(options):
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 2
    assert "--config" in result.output


def test_a_folder_without_a_run_is_not_resumed_without_a_configuration(tmp_path):
    result = CliRunner().invoke(app, ["--run", str(tmp_path), "--resume"])
    assert result.exit_code == 1
    assert "give --config to begin one" in str(result.exception)


def test_resume_and_overwrite_exclude_each_other(store):
    assert run(store, "--resume", "--overwrite").exit_code == 2


def test_help_has_an_example():
    assert "Example: spikedeblur train --config" in CliRunner().invoke(app, ["--help"]).stdout


def test_a_run_that_left_clips_out_ends_with_exit_code_1(store, tmp_path):
    damaged = shutil.copytree(store, tmp_path / "damaged.zarr")
    shard = next(p for p in (damaged / "train/scenes/00001/spikes/c").rglob("*") if p.is_file())
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # of its index, which is checked when the shard is opened
    shard.write_bytes(content)
    options = ("--set", "TRAIN.MAX_STEPS=8", "--set", "TRAIN.ON_ERROR=skip")
    result = run(damaged, "--run", str(tmp_path / "run"), *options)
    assert result.exit_code == 1, result.output
    assert ": 8 steps" in result.stdout
    assert result.stderr.count("left out: train/scenes/00001: ") == 1
    assert "Traceback" not in result.output
