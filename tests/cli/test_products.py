"""What was typed in another's place is named; places that can't be written are refused first."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from spikedeblur.cli import main, products
from spikedeblur.cli.output import require_writable
from spikedeblur.cli.products import misplaced, what_is
from spikedeblur.pipeline.host.locks import only_writer_of
from spikedeblur.pipeline.voxelize import voxelize_manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real products of two commands."""
    folder = tmp_path_factory.mktemp("made")
    scenes = ["--scenes", "1", "--size", "32x32", "--length", "33", "--split", "test"]
    assert main(["simulate", str(folder / "data"), *scenes, "--workers", "1", "-q"]) == 0
    log = str(folder / "log.txt")
    assert main(["align", str(folder / "data"), "--log", log, "--no-verify", "-q"]) == 0
    return folder


def test_real_products_are_told_apart(made: Path) -> None:
    blur = made / "data/test_blurry_33/scenes/00000"
    dat = made / "data/test_spike_2xds/scenes/00000/spike.dat"
    voxelize_manifest(made / "log.json", made / "store.zarr")
    (made / "nothing.txt").touch()
    shutil.copytree(made / "store.zarr", made / "cut.zarr")
    (made / "cut.zarr/zarr.json").unlink()
    found = {
        "log.json": products.MANIFEST,
        "log.txt": products.LOG,
        "data": products.DATA_SET,
        "store.zarr": products.STORE,
        "nothing.txt": products.EMPTY,
        "cut.zarr": products.CUT_STORE,
    }
    assert {name: what_is(made / name) for name in found} == found
    assert (what_is(blur), what_is(dat)) == (products.FRAMES, products.SPIKES)
    assert what_is(made / "missing") is None


def test_a_path_is_named_where_it_is_refused_for_its_kind_only(made: Path) -> None:
    log = made / "log.json"
    said = f"{log}: expected a store that `spikedeblur voxelize` wrote, found something else"
    assert misplaced(said, [log]).startswith(f"{log} is a manifest; `voxelize`")
    damaged = f"{log}: expected a manifest (JSON), found text that isn't JSON"
    assert misplaced(damaged, [log]) == ""
    assert misplaced(f"{log}: no recordings in the split val", [log]) == ""
    inside = f"{made / 'data'}/x.dat: expected a frame that is exposed in it, found none of 6"
    assert misplaced(inside, [made / "data"]) == ""


@pytest.mark.parametrize(
    "words",
    [
        ["adapt", "OUT.safetensors", "--blur", "B", "--spikes", "S", "--exposure", "33"],
        ["calibrate", "--dark", "S", "--out", "OUT"],
        ["restore", "--method", "sdm", "--out", "OUT", "--blur", "B", "--spikes", "S"],
        ["restore", "--method", "sdm", "--out", "o", "--video", "OUT.mp4", "--blur", "B"],
        ["evaluate", "store.zarr", "--json", "OUT.json"],
        ["export", "small", "OUT.safetensors"],
        ["train", "--config", "configs/deblur/quickstart.yaml", "--run", "OUT"],
        ["simulate", "OUT", "--scenes", "1"],
        ["voxelize", "log.json", "OUT"],
        ["report", "run", "--out", "OUT.html"],
        ["convert", "S", "OUT.dat"],
    ],
    ids=lambda words: words[0],
)
def test_a_place_that_can_not_be_written_is_refused_before_the_work(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[object] = []

    def access(path: object, mode: int) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", access)  # root may write where no one else may
    blanks = {"B": ["--fps", "1000"]} if words[0] == "adapt" else {}
    typed = [word.replace("OUT", "away/out") for word in words]
    assert main([*typed, *blanks.get("B", [])]) == 1
    said = capsys.readouterr().err
    assert f"error: {tmp_path}: Permission denied\nhint: check the path, its permissions" in said
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["--dry-run", "--find-rate"])
def test_training_that_writes_nothing_needs_no_place(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["train", "--config", "configs/deblur/quickstart.yaml", mode]) == 1
    assert "error: data/quickstart.zarr" in capsys.readouterr().err


def test_a_file_is_no_place_to_write_in(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path / "new", tmp_path / "file", None)
    with pytest.raises(NotADirectoryError):
        require_writable(tmp_path / "file" / "new")


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_there_is_no_place_to_write_if_its_folder_is_none(
    is_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    closed = tmp_path / "folder" if is_folder else tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)
    with pytest.raises(PermissionError, match=re.escape(f"'{closed}'")):
        require_writable(tmp_path / ("folder" if is_folder else "file"))
    require_writable(tmp_path / ("file" if is_folder else "folder"), Path(os.devnull))


def test_folders_that_were_made_for_a_file_go_if_it_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with only_writer_of(tmp_path / "there/new/deep/log.txt"):
        assert (tmp_path / "there/new/deep").is_dir()
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with only_writer_of(tmp_path / "there/new/deep/log.txt"):
        (tmp_path / "there/new/deep/log.txt").touch()
    assert (tmp_path / "there/new/deep/log.txt").is_file()
