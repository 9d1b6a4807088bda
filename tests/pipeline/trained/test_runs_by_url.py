"""Runs and models in a bucket are used as those in a folder, and nothing else is written there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from s3_server import environment, make_bucket, s3_server
from training_sets import SMALL, make_store

from spikedeblur.cli import main
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.weights.find import source_name
from spikedeblur.pipeline.weights.initial import read_weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames, a store, and a run of two steps."""
    folder = tmp_path_factory.mktemp("made")
    make_store(folder)
    words = ["train", "--config", "configs/deblur/quickstart.yaml", "--run", str(folder / "run")]
    for override in (*SMALL, f"DATA.ROOT={folder / 'spikes.zarr'}", "TRAIN.MAX_STEPS=2"):
        words += ["--set", override]
    assert main([*words, "--quiet"]) == 0
    assert main(["export", str(folder / "run"), str(folder / "m.safetensors")]) == 0
    return folder


@pytest.fixture(scope="module")
def endpoint(made: Path) -> Iterator[str]:
    with s3_server() as address:
        make_bucket(address, "films")
        yield address


@pytest.fixture
def bucket(endpoint: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    storage = open_storage("s3://films/runs")
    if storage.size("mine/config.yaml") is None:
        for path in [made / "m.safetensors", *sorted((made / "run").rglob("*"))]:
            if path.is_file() and not path.name.startswith("."):
                key = path.name if path.parent == made else f"mine/{path.relative_to(made / 'run')}"
                storage.write(key, [path.read_bytes()])
    return "s3://films/runs"


@pytest.mark.slow
def test_evaluation_of_a_run_by_url_is_that_of_its_folder(
    made: Path, bucket: str, tmp_path: Path
) -> None:
    found = []
    for number, run in enumerate((str(made / "run"), f"{bucket}/mine", (made / "run").as_uri())):
        out = tmp_path / f"{number}.json"
        words = ["evaluate", str(made / "spikes.zarr"), "--run", run, "--split", "val"]
        assert main([*words, "--json", str(out), "--quiet"]) == 0
        found.append(json.loads(out.read_text()))
    assert found[1]["run"] == f"{bucket}/mine"
    assert found[1] | {"run": found[0]["run"]} == found[0]
    assert found[2] == found[0]


@pytest.mark.slow
def test_export_and_restore_take_a_run_or_a_model_by_url(
    made: Path, bucket: str, tmp_path: Path
) -> None:
    assert main(["export", f"{bucket}/mine", str(tmp_path / "m.safetensors")]) == 0
    assert (tmp_path / "m.safetensors").read_bytes() == (made / "m.safetensors").read_bytes()
    frames = made / "frames"
    blur, spikes = (
        next(frames.glob(pattern)) for pattern in ("val_blurry_*/*/*", "val_spike_*/*/*/spike.dat")
    )
    words = ["restore", "--blur", str(blur), "--spikes", str(spikes), "--log"]
    words += [str(made / "align.txt"), "--out"]
    for name, source in (("run", ["--run", f"{bucket}/mine"]), ("model", ["--model"])):
        source = source if name == "run" else [*source, f"{bucket}/m.safetensors"]
        assert main([*words, str(tmp_path / name), *source]) == 0
    restored = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).glob("*.png"))]
        for name in ("run", "model")
    }
    assert restored["run"]
    assert restored["run"] == restored["model"]


@pytest.mark.slow
def test_a_run_a_model_and_a_checkpoint_by_url_are_weights_to_start_from(
    made: Path, bucket: str
) -> None:
    expected = read_weights(made / "run").weights
    for name in ("mine", "m.safetensors", "mine/checkpoints/best.pt"):
        found = read_weights(f"{bucket}/{name}")
        assert found.weights.keys() == expected.keys(), name
        assert all(torch.equal(value, expected[n]) for n, value in found.weights.items()), name
        assert source_name(f"{bucket}/{name}") == f"{bucket}/{name}"
    with pytest.raises(SpikeDeblurError, match=r"none\.pt: expected a run folder"):
        read_weights(f"{bucket}/none.pt")


def test_run_that_is_not_there_is_named(bucket: str, tmp_path: Path, capsys) -> None:
    assert main(["export", f"{bucket}/none", str(tmp_path / "m.safetensors")]) == 1
    said = capsys.readouterr().err
    assert f"{bucket}/none: expected a run folder or an exported model" in said
    assert "Traceback" not in said
    assert main(["export", "s3://nobucket/none", str(tmp_path / "m.safetensors")]) == 1
    assert "expected a bucket 'nobucket'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--config", "configs/deblur/quickstart.yaml", "--run", "s3://films/runs/a"],
        ["restore", "--blur", "a", "--spikes", "b", "--method", "sdm", "--out", "s3://films/a"],
        ["export", "run", "s3://films/m.safetensors"],
    ],
    ids=["train", "restore", "export"],
)
def test_writing_a_run_or_frames_to_a_bucket_is_refused(words, tmp_path, monkeypatch, capsys):
    before = sorted(Path.cwd().iterdir())
    assert main(words) == 2
    assert "copy it from or to the bucket" in capsys.readouterr().err
    assert sorted(Path.cwd().iterdir()) == before
