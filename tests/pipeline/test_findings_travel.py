"""What `align` found wrong is repeated by every later stage, and stops those that cost time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikedeblur.cli import main
from spikedeblur.pipeline.sequences.provenance import findings
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.view import open_clips


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, whose side files say that recordings began 8 ms later than they did,
    and `a.json`, its manifest."""
    folder = tmp_path_factory.mktemp("late")
    sizes = ("--scenes", "2", "--size", "96x96", "--length", "65", "--split", "val")
    assert main(["simulate", str(folder / "data"), *sizes, "--workers", "1", "--quiet"]) == 0
    for frame in (folder / "data").rglob("0016.png"):
        frame.unlink()  # with the wrong clock, its exposure would begin before the spikes
    for side in (folder / "data").rglob("spike.dat.json"):
        content = json.loads(side.read_text())
        side.write_text(json.dumps(content | {"first": content["first"] + 0.008}))
    align = ("align", str(folder / "data"), "--log", str(folder / "a.txt"), "--quiet")
    assert main(list(align)) == 0
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_late_clock_is_named_with_its_share_of_the_exposure(late, tmp_path, capsys) -> None:
    out = tmp_path / "a.txt"
    assert run("align", late / "data", "--log", out) == 0
    said = capsys.readouterr()
    assert "spikes fit the frames in 0" in said.out
    assert "of the exposure" in said.err
    assert "--estimate" in said.err
    assert run("align", late / "data", "--log", out, "--strict") == 1
    assert run("align", late / "data", "--log", out, "--strict", "--estimate", "--overwrite") == 0
    said = capsys.readouterr()
    assert "spikes fit the frames in 2" in said.out


def test_check_of_the_manifest_ends_with_exit_code_1(late, capsys) -> None:
    assert run("check", late / "a.json") == 1
    assert "WRONG" in capsys.readouterr().out


def test_voxelize_makes_such_sequences_by_force_only(late, tmp_path, capsys) -> None:
    store = tmp_path / "store.zarr"
    assert run("voxelize", late / "a.json", store, "--workers", 1) == 1
    assert "--force" in capsys.readouterr().err
    assert run("voxelize", late / "a.json", store, "--workers", 1, "--force") == 0
    found = findings(open_store(store, "val"))
    assert len(found) == 2
    assert "of the exposure" in found["val/scenes/00000"]
    capsys.readouterr()
    assert run("check", store) == 1
    assert "of the exposure" in capsys.readouterr().out
    file = tmp_path / "e.json"
    assert run("evaluate", store, "--split", "val", "--methods", "blur", "--json", file) == 0
    assert "do not fit their frames" in capsys.readouterr().err
    assert len(json.loads(file.read_text())["findings"]) == 2
    shown = open_clips(store, SpikeOptions())
    assert ["of the exposure" in group.finding for group in shown] == [True, True]


def test_restore_says_which_first_is_right(late, tmp_path, capsys) -> None:
    blur = late / "data/val_blurry_33/scenes/00000"
    dat = late / "data/val_spike_2xds/scenes/00000/spike.dat"
    words = ("restore", "--method", "sdm", "--blur", blur, "--spikes", dat, "--exposure", 33)
    assert run(*words, "--fps", 1000, "--out", tmp_path / "late") == 0
    said = capsys.readouterr().err
    assert "of the exposure (" in said
    first = said.partition("give --first ")[2].partition(",")[0]
    assert run(*words, "--fps", 1000, "--out", tmp_path / "right", "--first", first) == 0
    assert "of the exposure" not in capsys.readouterr().err


def test_restore_stops_at_the_spikes_of_another_scene(late, tmp_path, capsys) -> None:
    blur = late / "data/val_blurry_33/scenes/00000"
    dat = late / "data/val_spike_2xds/scenes/00001/spike.dat"
    words = ("restore", "--method", "sdm", "--blur", blur, "--spikes", dat, "--exposure", 33)
    assert run(*words, "--fps", 1000, "--out", tmp_path / "a") == 1
    assert "--force" in capsys.readouterr().err
    assert not list(tmp_path.glob("a/*.png"))
    assert run(*words, "--fps", 1000, "--out", tmp_path / "a", "--force") == 0
    assert "look alike" in capsys.readouterr().err
