"""`spikedeblur voxelize` as a user types it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from spikedeblur.cli.voxelize import voxelize
from spikedeblur.configs import load_config
from spikedeblur.pipeline.align.manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    Window,
    write_manifest,
)

app = typer.Typer()
app.command()(voxelize)


def make_manifest(folder: Path, seqs: Sequence[str] = ("train/a", "val/a")) -> Path:
    np.zeros(8 * 10, np.uint8).tofile(folder / "spike.dat")
    Image.new("RGB", (16, 16)).save(folder / "4.png")
    files = {
        name: FileRecord(
            size=(folder / name).stat().st_size, mtime_ns=(folder / name).stat().st_mtime_ns
        )
        for name in ("spike.dat", "4.png")
    }
    window = Window(
        frame_index=4, t0=0.0, t1=0.009, spike_count=0, spikes="spike.dat", first=0.0, blur="4.png"
    )
    sequences = tuple(
        AlignedSequence(
            seq=seq, geometry="8x8,bottom-up", rate=1000.0, windows=(window,), files=files
        )
        for seq in seqs
    )
    manifest = Manifest(layout="unified", root=".", fps=1000.0, sequences=sequences)
    write_manifest(folder / "m.json", manifest)
    return folder / "m.json"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_summary_and_next_command_are_printed(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    out = run(manifest, tmp_path / "s.zarr", "--bins", 4, "--workers", 1)
    assert "2 sequences written (2 windows), 0 kept unchanged" in out
    assert "windows/s" in out
    following = shlex.split(out.splitlines()[-1].removeprefix("Next: spikedeblur train "))
    assert following[:4] == ["--config", following[1], "--run", "outputs/s"]
    overrides = following[5::2]
    assert following[4::2] == ["--set"] * len(overrides)
    assert load_config(following[1], overrides).DATA.K == 4
    again = run(manifest, tmp_path / "s.zarr", "--bins", 4, "--workers", 1)
    assert "0 sequences written (0 windows), 2 kept unchanged" in again


@pytest.mark.parametrize(
    ("seqs", "following"),
    [
        (["train/a/0", "train/b/0"], "split {manifest}"),
        (["train/a/0", "train/a/1"], "split {manifest} --by clip"),
        (["train/a/0"], "evaluate {store} --split train"),
        (["test/a/0", "train/a/0"], "evaluate {store}"),
        (["val/a/0"], "evaluate {store} --split val"),
    ],
)
def test_the_next_command_is_not_one_that_the_splits_would_refuse(
    tmp_path: Path, seqs: list[str], following: str
) -> None:
    manifest, store = make_manifest(tmp_path, seqs), tmp_path / "s.zarr"
    out = run(manifest, store, "--bins", 4, "--workers", 1)
    words = following.format(manifest=manifest, store=store)
    assert out.splitlines()[-1] == f"Next: spikedeblur {words}"


def test_the_next_command_begins_no_run_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs/s").mkdir(parents=True)
    out = run(make_manifest(tmp_path), "s.zarr", "--bins", 4, "--workers", 1)
    assert "--run outputs/s-2 " in out.splitlines()[-1]


@pytest.mark.parametrize(("has_gpu", "name"), [(False, "quickstart"), (True, "vrt_spike_baseline")])
def test_the_next_command_trains_what_the_machine_can_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, name: str
) -> None:
    monkeypatch.setattr("spikedeblur.pipeline.host.machine.has_gpu", lambda: has_gpu)
    out = run(make_manifest(tmp_path), tmp_path / "s.zarr", "--bins", 4, "--workers", 1)
    assert f"train --config configs/deblur/{name}.yaml --run outputs/s" in out.splitlines()[-1]


def test_json_is_the_summary_and_dry_run_writes_nothing(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    out = json.loads(run(manifest, tmp_path / "s.zarr", "--bins", 4, "--dry-run", "--json"))
    assert (out["windows"], out["dry_run"], out["windows_per_second"]) == (2, True, None)
    assert not (tmp_path / "s.zarr").exists()
    out = json.loads(run(manifest, tmp_path / "s.zarr", "--bins", 4, "--workers", 1, "--json"))
    assert out["bytes_in"] == 160
    assert out["bytes_counts"] == 2 * 4 * 64


def test_dry_run_says_what_time_and_disk_it_would_take(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    said = run(manifest, tmp_path / "s.zarr", "--bins", 4, "--dry-run")
    assert "GB to write. On cores like this one: 1 worker " in said
    out = json.loads(run(manifest, tmp_path / "s.zarr", "--bins", 4, "--dry-run", "--json"))
    expected = out["estimate"]
    assert expected["measured"] == 1
    made = json.loads(run(manifest, tmp_path / "s.zarr", "--bins", 4, "--workers", 1, "--json"))
    assert made["estimate"] is None
    assert expected["bytes_out"] == made["bytes_out"]
    assert expected["seconds"]["64"] <= expected["seconds"]["1"] < 10


def test_too_few_workers_are_wrong_use(tmp_path: Path) -> None:
    arguments = [str(make_manifest(tmp_path)), str(tmp_path / "s"), "--workers", "0"]
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_a_sequence_that_fails_is_named_once(tmp_path: Path) -> None:
    words = ["--bins", "11", "--workers", "1"]
    outcome = CliRunner().invoke(app, [str(make_manifest(tmp_path)), str(tmp_path / "s"), *words])
    assert outcome.exit_code == 1
    assert "failed: train/a: frame 4 has 10 spike samples for 11 bins" in outcome.output
