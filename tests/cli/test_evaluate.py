"""`spikedeblur evaluate` as a user types it, on simulated, aligned and voxelized scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikedeblur.cli import main
from spikedeblur.configs import dump_config, load_config
from spikedeblur.model import build_model
from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.sequences.provenance import describe_data
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.weights.files import checkpoint_path

METHODS = ["blur", "tfp", "tfi", "sdm", "path", "model"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    for split, size in (("test", (64, 64)), ("show", (64, 96))):
        simulate(folder / "data", scene_clips(split, 1, size, 65), Rig(), workers=1)
    align(folder / "data", "x4k1000fps", log=folder / "log.txt", manifest=folder / "m.json")
    voxelize_manifest(folder / "m.json", folder / "s.zarr", workers=Workers(count=1))
    return folder / "s.zarr"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the quickstart's network as it is before its first step."""
    folder = tmp_path_factory.mktemp("run")
    config = load_config("configs/deblur/quickstart.yaml")
    progress = "data samples_a_step total_steps epoch step_in_epoch validated_step interval"
    rest = "best_step best_psnr ema optimizer scaler"
    state = dict.fromkeys(f"{progress} {rest}".split()) | {
        "config": dump_config(config),
        "model": build_model(config).state_dict(),
        "step": 0,
    }
    write_checkpoint(checkpoint_path(folder, "best"), state)
    return folder


def test_table_json_and_picture_of_all_methods(
    store: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, picture = tmp_path / "evaluation.json", tmp_path / "before_after.png"
    arguments = ["evaluate", str(store), "--run", str(run)]
    arguments += ["--json", str(figures), "--picture", str(picture)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "mean over windows" in out
    assert "Short window, best on this split" in out
    found = json.loads(figures.read_text())
    assert list(found["methods"]) == METHODS
    (sequence,) = found["sequences"].values()
    for name, scores in found["methods"].items():
        assert scores == pytest.approx(sequence[name])
        assert f"{scores['psnr']:.2f} / {scores['ssim']:.3f}" in out
    # Fusion starts as identity and the residual near zero: an untrained network is a blur.
    assert found["methods"]["sdm"]["psnr"] > found["methods"]["blur"]["psnr"]
    assert found["run"] == str(run)
    assert len(found["checkpoint_sha256"]) == 64
    assert found["data_sha256"] == describe_data(open_store(store, "test"))["sha256"]
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    assert f"Picture {picture}: frame 31 of show/scenes/00000" in out
    panels, parts = (27 + 256, 5 * 384 + 4 * 4), 3 * 4 * 21
    assert pixels.shape == (panels[0] + 4 + parts, panels[1], 3)
    (displayed,) = open_store(store, "show")
    last = pixels[27 : 27 + 256, -384:][::4, ::4]
    assert (last == displayed.sharp(1, 2)[0]).all(2).mean() > 0.9  # but for the part's frame
    assert main(arguments) == 0, "its own files are replaced"


def test_without_a_run_there_is_no_model(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(store)]) == 0
    out = capsys.readouterr().out
    assert "sdm" in out
    assert "model" not in out


def test_the_summary_is_printed_as_json_where_no_file_is_wanted(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["evaluate", str(store), "--methods", "blur,sdm"]
    assert main([*arguments, "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--json", "e.json"]) == 0
    written = json.loads(Path("e.json").read_text())
    assert printed["methods"] == written["methods"]
    assert printed.keys() == written.keys()


def test_wrong_use_exits_with_2(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(store), "--methods", "blur,model"]) == 2
    assert "--run" in capsys.readouterr().err
    assert main(["evaluate", str(store), "--methods", "sdn"]) == 2


def test_counts_in_bins_are_not_enough_for_tfi(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voxelize_manifest(
        store.parent / "m.json",
        tmp_path / "c.zarr",
        VoxelizeOptions(kind="counts"),
        Workers(count=1),
    )
    assert main(["evaluate", str(tmp_path / "c.zarr"), "--methods", "tfi"]) == 1
    assert "voxelize again with --kind packed" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "c.zarr")]) == 0
    assert "tfi" not in capsys.readouterr().out


def test_a_split_that_is_not_there_is_an_error_that_lists_those_that_are(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(store), "--split", "val"]) == 1
    error = capsys.readouterr().err
    assert "'val'" in error
    assert "it has show, test" in error


def test_foreign_files_are_refused_before_any_work(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text("{}")
    assert main(["evaluate", str(store), "--json", str(notes)]) == 1
    captured = capsys.readouterr()
    assert "--overwrite" in captured.err
    assert captured.out == ""
    assert notes.read_text() == "{}"
