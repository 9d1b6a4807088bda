"""`spikedeblur check` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikedeblur.cli import main

from .test_voxelize import make_manifest


@pytest.fixture
def store(tmp_path: Path) -> str:
    manifest = make_manifest(tmp_path)
    store = str(tmp_path / "s.zarr")
    assert main(["voxelize", str(manifest), store, "--bins", "4", "--workers", "1"]) == 0
    return store


def test_a_whole_store_exits_with_0(store, tmp_path, capsys):
    assert main(["check", store, "--manifest", str(tmp_path / "m.json")]) == 0
    out = capsys.readouterr().out
    assert "2 sequences," in out
    assert "4 source files: all as written" in out


def test_damage_exits_with_1_and_is_listed_for_machines(store, capsys):
    path = Path(store, "val/a/blur/c/0/0/0/0")
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    assert main(["check", store]) == 1
    assert "damaged: val/a: blur/c/0/0/0/0: expected CRC-32" in capsys.readouterr().out
    assert main(["check", store, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["whole"] is False
    assert [(f["seq"], f["file"], f["problem"]) for f in found["findings"]] == [
        ("val/a", "blur/c/0/0/0/0", "damaged")
    ]


def test_damage_is_made_anew_by_voxelize(store, tmp_path, capsys):
    path = Path(store, "val/a/blur/c/0/0/0/0")
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    manifest = str(tmp_path / "m.json")
    assert main(["voxelize", manifest, store, "--bins", "4", "--workers", "1", "--check"]) == 0
    assert path.read_bytes() == whole
    assert main(["check", store]) == 0


def test_what_is_no_store_exits_with_1_in_one_paragraph(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 1
    assert "expected a store" in capsys.readouterr().err
