"""The guide of a rig restores its example: clocks apart, a rolling shutter, dropped frames."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import DOCS, blocks, run_page

from spikedeblur.cli import main
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.frames.listing import list_images
from spikedeblur.pipeline.simulate.bench import LAYOUT_TEXT, Bench, simulate_bench

PAGE = DOCS / "how-to/own-camera.md"


def test_the_layout_file_that_the_guide_explains_is_the_one_of_the_example() -> None:
    assert ("yaml", LAYOUT_TEXT) in blocks(PAGE, "yaml")


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command of the guide was run."""
    folder = tmp_path_factory.mktemp("guided")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page(PAGE)
    return folder


@pytest.fixture(scope="module")
def ideal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scene recorded by cameras of one clock, without rolling shutter, nothing dropped."""
    folder = tmp_path_factory.mktemp("ideal")
    simulate_bench(folder, replace(Bench(), readout=0.0, late=0.0, dropped=()))
    camera = ["--frame-rate", "30", "--shutter", "12ms", "--start", "50ms"]
    take = [*("--blur", str(folder / "take1/frames")), "--spikes", str(folder / "take1/spike.dat")]
    for name, how in METHODS.items():
        assert main(["restore", *take, *camera, *how, "--out", str(folder / name)]) == 0
    return folder


METHODS = {"sharp": ("--model", "small"), "sharp-path": ("--method", "path")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_guide_finds_lag_and_readout_as_it_says(guided: Path) -> None:
    bench, page = Bench(), PAGE.read_text(encoding="utf-8")
    (sequence,) = json.loads((guided / "outputs/logs/align_rig.json").read_text())["sequences"]
    assert sequence["verification"]["lag_seconds"] == pytest.approx(bench.late, abs=1e-4)
    first = sequence["windows"][0]["first"]
    assert first == pytest.approx(-bench.late, abs=1e-4)
    assert set(re.findall(r"--first (-7\S*)ms", page)) == {f"{1e3 * first:.6g}"}
    unread = ["align", str(guided / "bench"), "--layout", str(guided / "bench/layout.yaml")]
    assert main([*unread, "--log", str(guided / "again.txt")]) == 0
    (sequence,) = json.loads((guided / "again.json").read_text())["sequences"]
    assert sequence["verification"]["problem"] == "rolling shutter"
    assert sequence["verification"]["readout"] == pytest.approx(bench.readout, abs=1e-3)
    assert f"--readout {1e3 * sequence['verification']['readout']:.3g}ms" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", METHODS)
def test_the_rig_is_restored_as_well_as_a_recording_of_ideal_cameras(name, guided, ideal) -> None:
    bench = Bench()
    rig = quality(guided / name / "test/take1", guided / "bench/take1/sharp")
    twin = quality(ideal / name, ideal / "take1/sharp")
    kept = [twin[i] for i in bench.kept]
    print(f"{name}: {np.mean(rig):.2f} dB, {np.mean(kept):.2f} by ideal cameras")
    assert len(rig) == 6
    assert len(twin) == 8
    assert np.mean(rig) > np.mean(kept) - 0.5


def quality(restored: Path, sharp: Path) -> list[float]:
    """Return the PSNR of each restored frame, in dB."""
    files = list_images(restored)
    return [psnr(read_rgb(file), read_rgb(sharp / file.name)) for file in files]
