"""Disks on which all but the last part of a file fits: every command that writes says so.

Where a file is replaced, the good one stays, and once there is room the same command comes through.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_disks import PAGE, remount, used_pages

from spikedeblur.cli import main

from . import kills

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_RECORDING = "--size 32x48 --length 13 --exposure 9 --stride 4"
_DATA = "{f}/data --layout x4k1000fps --exposure 9"
_STORE = "{f}/voxelize --split val --methods blur,sdm"
_CLIP = (
    "--blur {f}/data/val_blurry_9/scenes/00000 --spikes {f}/data/val_spike_2xds/scenes/00000/"
    "spike.dat --exposure 9 --fps 1000"
)

COMMANDS = {
    "convert": "convert {f}/data/val_spike_2xds/scenes/00000/spike.dat {d}/a.dat --overwrite",
    "convert of npy": "convert {f}/spikes.npy {d}/a.dat --rate 20000 --overwrite",
    "align": f"align {_DATA} --log {{d}}/a.txt --manifest {{d}}/a.json --overwrite",
    "align --plot": f"align {_DATA} --log {{f}}/b.txt --manifest {{f}}/b.json --plot {{d}}/a.html "
    "--overwrite",
    "split": "split {f}/align/a.json --by folders --out {d}/a.json --overwrite",
    "evaluate --json": f"evaluate {_STORE} --json {{d}}/a.json",
    "evaluate --picture": f"evaluate {_STORE} --picture {{d}}/a.png",
    "report": "report {f}/run --no-restore --out {d}/a.html",
    "export": "export {f}/run {d}/a.safetensors --overwrite",
    "export of pt2": "export {f}/run {d}/a.pt2 --size 32x32 --frames 1 --overwrite",
    "export of onnx": "export {f}/run {d}/a.onnx --size 32x32 --frames 1 --overwrite",
    "adapt": "adapt {d}/a.safetensors --run {f}/run --steps 1 --overwrite " + _CLIP,
    "restore --video": "restore --method sdm --out {f}/restored --video {d}/a.mp4 --overwrite "
    + _CLIP,
}
"""By name; `{f}` is a folder with what they read, `{d}` the disk. Each replaces its own product."""


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read, small."""
    folder = tmp_path_factory.mktemp("products")

    def finish(words: str) -> None:
        assert main(words.format(f=folder).split()) == 0, words

    for split in ("train", "val"):
        finish(f"simulate {{f}}/data --scenes 1 --split {split} {_RECORDING} --workers 1")
    finish(COMMANDS["align"].replace("{d}", "{f}/align"))
    finish("voxelize {f}/align/a.json {f}/voxelize --bins 8 --workers 1")
    kills.write_config(folder)
    quick = "--set TRAIN.MAX_STEPS=1 --set MODEL.SPIKE_MOTION=false"
    finish(f"train --config {{f}}/train.yaml --run {{f}}/run {quick}")
    write_spikes(folder / "spikes.npy")
    return folder


def write_spikes(path: Path) -> None:
    import numpy as np

    np.save(path, np.random.default_rng(0).integers(0, 2, (400, 24, 32), np.uint8))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_good_file_stays_where_all_but_the_last_part_of_the_new_one_fits(
    products: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    remount(small_disk, "size=500m")
    words = COMMANDS[name].format(f=products, d=small_disk).split()
    assert main(words) == 0, capsys.readouterr().err
    good = contents(small_disk)
    # A side file is replaced after its spikes, and needs no room beside the old one.
    replaced = ["a.dat"] if "a.dat" in good else good
    pages = sum(-(-len(good[file]) // PAGE) for file in replaced)
    remount(small_disk, f"size={(used_pages(small_disk) + pages - 1) * PAGE}")
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "no space left" in said.lower()
    assert str(small_disk) in said
    assert "Traceback" not in said
    assert contents(small_disk) == good
    remount(small_disk, "size=500m")
    assert main(words) == 0, capsys.readouterr().err
    assert contents(small_disk).keys() == good.keys()


@pytest.mark.parametrize(
    "words",
    [
        "check {f}/align/a.json --json",
        "check {f}/voxelize",
        "inspect {f}/run --json",
        "runs {f}",
        "doctor",
        "config-schema",
        "--help",
    ],
)
def test_what_is_printed_to_a_full_disk_is_an_error(
    products: Path, run_command: Callable[[str], tuple[int, str]], words: str
) -> None:
    code, said = run_command(words.format(f=products))
    assert code == 1
    assert "no space left" in said.lower()
    assert "Traceback" not in said


@pytest.fixture
def run_command() -> Callable[[str], tuple[int, str]]:
    """Run a command whose output goes to a device that is always full."""
    import subprocess
    import sys

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    def run(words: str) -> tuple[int, str]:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "spikedeblur", *words.split()],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        return done.returncode, done.stderr

    return run
