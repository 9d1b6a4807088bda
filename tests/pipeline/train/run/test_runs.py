from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikedeblur.cli import main
from spikedeblur.configs import dump_config, load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.train.run.runs import list_runs


def write_run(folder: Path, psnr: float, *overrides: str) -> None:
    folder.mkdir(parents=True)
    config = load_config("configs/deblur/quickstart.yaml", overrides)
    (folder / "config.yaml").write_text(dump_config(config))
    lines = [
        {"kind": "train", "step": 50, "seconds": 60.0},
        {"kind": "val", "step": 50, "psnr": psnr, "psnr_blur": 20.0},
        {"kind": "train", "step": 100, "seconds": 30.0},
        {"kind": "val", "step": 100, "psnr": psnr - 1, "psnr_blur": 20.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_runs_are_sorted_by_quality_and_show_only_what_differs(tmp_path):
    write_run(tmp_path / "a", 24.0)
    write_run(tmp_path / "b" / "c", 25.0, "TRAIN.SEED=1", "TRAIN.LOG_INTERVAL=7")
    best, other = list_runs(tmp_path)
    assert (best.run, best.best_psnr, best.best_step) == (str(tmp_path / "b/c"), 25.0, 50)
    assert (best.step, best.seconds, best.psnr_blur) == (100, 90.0, 20.0)
    assert (best.settings, other.settings) == ({"TRAIN.SEED": 1}, {"TRAIN.SEED": 0})


def test_a_run_whose_validations_have_no_number_is_last(tmp_path):
    write_run(tmp_path / "a", 24.0)
    write_run(tmp_path / "b", 24.0)
    line = {"kind": "val", "step": 50, "psnr": None, "psnr_blur": 20.0}
    (tmp_path / "b/metrics.jsonl").write_text(json.dumps(line) + "\n")
    best, blind = list_runs(tmp_path)
    assert (best.best_psnr, blind.best_psnr, blind.step) == (24.0, None, 50)


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    write_run(tmp_path / "a", 24.0)
    write_run(tmp_path / "b", 25.0, "TRAIN.SEED=1")
    assert main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "+5.00" in out
    assert "TRAIN.SEED" in out
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["settings"] == {"TRAIN.SEED": 1}


def test_two_runs_are_compared_by_their_folders(tmp_path, capsys):
    write_run(tmp_path / "x" / "a", 24.0)
    write_run(tmp_path / "y" / "b", 25.0, "TRAIN.SEED=1")
    write_run(tmp_path / "y" / "c", 26.0)
    a, b = str(tmp_path / "x/a"), str(tmp_path / "y/b")
    assert [run.run for run in list_runs(Path(a), Path(b), Path(a))] == [b, a]
    assert main(["runs", a, b]) == 0
    out = capsys.readouterr().out
    assert "TRAIN.SEED" in out
    assert "y/c" not in out
    assert f"tensorboard --logdir_spec b:{b},a:{a}" in out
    assert main(["runs", a, str(tmp_path / "y/c")]) == 0
    assert "Same configuration" in capsys.readouterr().out
    with pytest.raises(SpikeDeblurError, match="nothing-there"):
        list_runs(Path(a), tmp_path / "nothing-there")


def test_other_training_data_is_a_difference(tmp_path):
    for name, sha256 in (("a", "0" * 64), ("b", "1" * 64)):
        write_run(tmp_path / name, 24.0)
        data = {"sequences": 2, "windows": 6, "sha256": sha256, "manifests_sha256": []}
        content = json.dumps({"starts": [], "data": data})
        (tmp_path / name / "environment.json").write_text(content)
    first, second = list_runs(tmp_path)
    assert first.settings == {"training data": "6 windows in 2 sequences, 00000000"}
    assert second.settings == {"training data": "6 windows in 2 sequences, 11111111"}


def test_what_is_no_run_or_damaged_is_named(tmp_path):
    with pytest.raises(SpikeDeblurError, match="found none"):
        list_runs(tmp_path)
    write_run(tmp_path / "a", 24.0)
    with (tmp_path / "a/metrics.jsonl").open("a") as file:
        file.write("{cut")
    assert list_runs(tmp_path)[0].step == 100  # a run in progress
    with (tmp_path / "a/metrics.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(SpikeDeblurError, match="line 5: expected what `train` writes"):
        list_runs(tmp_path)
