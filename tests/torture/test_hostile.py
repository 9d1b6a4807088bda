"""Damaged and hostile files: a few of each kind always, a good part of them in the slow tests."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spikedeblur.cli import main

from .hostile import KINDS, cases, prepare_data, run_all

LIGHT = [
    replace(kind, commands=tuple(c for c in kind.commands if not c.startswith("evaluate")))
    for kind in KINDS
    if kind.name not in ("configuration", "checkpoint", "model")
    and not kind.file.startswith("run/")
]
"""Those that need no trained network, nor torch."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare_data(folder, lambda *words: main([str(word) for word in words]))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("kind", LIGHT, ids=lambda kind: kind.name)
def test_damaged_files_give_a_message_that_names_them(kind, prepared: Path, tmp_path: Path) -> None:
    for case in cases(kind, prepared, tmp_path, 5):
        assert case.fault is None, (case.arguments, case.stderr)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_two_hundred_damaged_files_of_every_kind(tmp_path: Path) -> None:
    assert run_all(tmp_path, share=0.1, processes=1) == 0


@pytest.mark.parametrize("name", ["-rf", "new\nline", "ünï ✓ 'b\"c", "%s{0}"])
def test_names_of_any_kind_go_through_all_stages(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As relative paths, so that a leading dash stays one."""
    monkeypatch.chdir(tmp_path)
    out = ("--", name)
    scene = ("--scenes", "1", "--size", "16x16", "--length", "9", "--exposure", "5")
    assert main(["simulate", "--stride", "2", "--workers", "1", *scene, *out]) == 0
    log = f"{name}.txt"
    align = ["align", "--layout", "x4k1000fps", "--exposure", "5", f"--log={log}", "--no-verify"]
    assert main([*align, *out]) == 0, capsys.readouterr().err
    store = f"{name}.zarr"
    voxelize = ["voxelize", "--bins", "4", "--workers", "1", "--", f"{name}.json", store]
    assert main(voxelize) == 0, capsys.readouterr().err
    assert main(["check", "--", store]) == 0
    folder = Path(name, "train_blurry_5/scenes/00000")
    spikes = Path(name, "train_spike_2xds/scenes/00000/spike.dat")
    restore = ["restore", "--method", "sdm", f"--blur={folder}", f"--spikes={spikes}"]
    assert main([*restore, f"--out={name}.out", "--exposure", "5", "--fps", "1000"]) == 0
    capsys.readouterr()
    assert main(["inspect", "--", f"{name}.missing.dat"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["error", "hint"]


def test_a_name_that_is_no_text_is_refused_by_what_would_have_to_write_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tmp_path / "\udcff")  # the byte 0xff
    scene = ("--scenes", "1", "--size", "16x16", "--length", "9", "--exposure", "5")
    assert main(["simulate", name, "--stride", "2", "--workers", "1", *scene]) == 0
    log = str(tmp_path / "a.txt")
    assert main(["align", name, "--layout", "x4k1000fps", "--exposure", "5", "--log", log]) == 1
    assert "no text in UTF-8" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "a"))] == []
