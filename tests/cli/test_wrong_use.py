"""Mistakes are told at once: what was typed is checked before anything heavy is imported."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from spikedeblur.cli import app

TYPE_ALL = """
import contextlib, io, json, shlex, sys
from pathlib import Path
from spikedeblur.cli import main

def files():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())

told, before = [], files()
for typed in json.load(sys.stdin):
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        code = main(shlex.split(typed))
    heavy = sorted({"torch", "zarr", "dask", "altair", "pandas"} & set(sys.modules))
    left = sorted(set(files()) ^ set(before))
    told.append(dict(typed=typed, code=code, stderr=error.getvalue(), heavy=heavy, left=left))
print(json.dumps(told))
"""


class Told(NamedTuple):
    """What became of a command line."""

    typed: str
    code: int
    stderr: str
    heavy: list[str]
    """Packages that take long to import, and were."""
    left: list[str]
    """Files that are there after it and were not before, or the other way round."""


SHORT = {
    "RECORDING": "--blur frames --spikes spike.dat --exposure 33 --fps 1000",
    "OWN": "--method sdm --blur frames --spikes spike.dat --geometry 4x4,bottom-up --rate 1000 "
    "--out sharp",
    "QUICKSTART": "--config configs/deblur/quickstart.yaml",
    "SPEC": "--geometry 4x4,bottom-up --rate 1000 --gain 0.5",
}
"""Words that stand for several in mistakes.txt."""

FLASH = """
name: flash
split: test
blur: "{clip}/{frame}.png"
spikes: {files: "{clip}.dat"}
camera: {frame_rate: 30, shutter: 40ms}
"""


def mistakes() -> list[tuple[str, int, str, str]]:
    """Return what is typed, the exit code, and parts of the error and the first hint."""
    text = Path(__file__).with_name("mistakes.txt").read_text(encoding="utf-8")
    found = re.findall(r"^\$ (.+)\n(\d) error: (.+)\n  hint: (.+)$", text, re.MULTILINE)
    return [
        (" ".join(SHORT.get(word, word) for word in typed.split()), int(code), error, hint)
        for typed, code, error, hint in found
    ]


MISTAKES = mistakes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("wrong"))


def fill(folder: Path) -> Path:
    """Make a few files, none of them what the commands hope for; return their folder."""
    (folder / "misspelt.yaml").write_text("DATA: {CROPSIZE: 64}\n", encoding="utf-8")
    (folder / "not.yaml").write_text("DATA: [\n", encoding="utf-8")
    (folder / "notes.txt").write_text("nothing of ours\n", encoding="utf-8")
    (folder / "numbers.json").write_text("[1, 2, 3]\n", encoding="utf-8")
    (folder / "nounit.csv").write_text("start,end\n1,2\n", encoding="utf-8")
    (folder / "rows.csv").write_text("start_ms,end_ms\n1,20\n30,40\n", encoding="utf-8")
    (folder / "flash.yaml").write_text(FLASH, encoding="utf-8")
    (folder / "spike.dat").write_bytes(b"\xff\xff\0\0" * 50)  # every pixel, every other sample
    np.save(folder / "spikes.npy", np.zeros((3, 4, 4), np.uint8))
    for name in ("set/train", "set/val", "set/val_blurry_33", "set/val_spike_2xds", "begun"):
        (folder / name).mkdir(parents=True)
    (folder / "begun/config.yaml").write_text("TRAIN: {SEED: 1}\n", encoding="utf-8")
    fill_with_kinds(folder / "k")
    for name in ("frames", "more", "taken"):
        (folder / name).mkdir()
        Image.new("RGB", (8, 8)).save(folder / name / "0031.png")
    return folder


def fill_with_kinds(folder: Path) -> None:
    """Make files and folders of kinds that are given in another's place, as far as they show it."""
    for name in ("store.zarr", "run", "photos/val_blurry_33", "my frames/été 日本"):
        (folder / name).mkdir(parents=True)
    (folder / "several.yaml").write_text(
        "DATA: {CROP_SIZE: [64, 64]}\nTRAIN: {EPOCHS: -3}\n", encoding="utf-8"
    )
    (folder / "list.yaml").write_text("- DATA\n", encoding="utf-8")
    (folder / "notes.ipynb").write_text('{"cells": [], "nbformat": 4}\n', encoding="utf-8")
    for name in ("empty.json", "empty.csv", "empty.npy"):
        (folder / name).touch()
    (folder / "log.txt").write_text("frame_idx,t0,t1,event_count,seq\n", encoding="utf-8")
    manifest = {"format": "spikedeblur.manifest", "layout": "x4k1000fps", "root": "photos"}
    (folder / "log.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "store.zarr/zarr.json").write_text(
        '{"attributes": {"format": "spikedeblur.store"}, "node_type": "group"}', encoding="utf-8"
    )
    for name in ("config.yaml", "environment.json"):
        (folder / "run" / name).write_text("{}\n", encoding="utf-8")
    Image.new("RGB", (8, 8)).save(folder / "my frames/été 日本/0031.png")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Told]:
    """What the command line says of every mistake, all typed to one process."""
    done = subprocess.run(
        [sys.executable, "-c", TYPE_ALL],
        input=json.dumps([typed for typed, *_ in MISTAKES]),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return {each["typed"]: Told(**each) for each in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("typed", "code", "error", "hint"), [pytest.param(*each, id=each[0]) for each in MISTAKES]
)
def test_a_mistake_is_told_with_what_to_type_before_anything_heavy(
    typed: str, code: int, error: str, hint: str, told: dict[str, Told]
) -> None:
    said = told[typed]
    assert said.code == code, said.stderr
    lines = [line for line in said.stderr.splitlines() if not line.startswith("Layout ")]
    labels = [line.partition(": ")[0] for line in lines]
    assert labels in (["error", "hint"], ["error", "hint", "hint"]), said.stderr
    assert error in lines[0]
    assert hint in lines[1]
    assert "\x1b" not in said.stderr
    assert len(said.stderr) < 1000
    assert said.heavy == []
    assert not said.left, "something half-written stays"


def test_every_command_is_mistaken_at_least_once() -> None:
    first = {shlex.split(typed)[0] for typed, *_ in MISTAKES}
    assert {command.callback.__name__.replace("_", "-") for command in app.registered_commands} <= (
        first
    )
