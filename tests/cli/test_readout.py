"""A colour camera with a rolling shutter, as a user types it: --readout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rolling_camera import CAMERA, photograph, record, sharp

from spikedeblur.cli import main
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.frames.listing import list_images

READOUTS = {"rolling": 0.02, "upwards": -0.02, "still": 0.0}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`spike.dat`; and the frames of a camera with each readout, in a folder of its name."""
    folder = tmp_path_factory.mktemp("bench")
    record(folder / "spike.dat")
    for name, readout in READOUTS.items():
        photograph(folder / name, readout)
    return folder


def restore(bench: Path, blur: str, out: Path, *more: str, method: str = "sdm") -> int:
    paths = ["--blur", str(bench / blur), "--spikes", str(bench / "spike.dat"), "--out", str(out)]
    return main(["restore", *paths, "--method", method, *CAMERA, *more])


def quality(out: Path, readout: float) -> float:
    """Return the mean PSNR against rows in the middle of their own exposures."""
    inner = slice(8, -8), slice(8, -8)
    frames = [read_rgb(out / f"IMG_{i}.png")[inner] for i in range(len(list_images(out)))]
    return float(np.mean([psnr(f, sharp(i, readout)[inner]) for i, f in enumerate(frames)]))


def qualities(bench: Path, out: Path, method: str) -> dict[str, float]:
    """Return the PSNR of each camera's frames, and of the rolling one's without its readout."""
    found = {}
    for name, blur, more in (
        ("still", "still", ()),
        ("rolling", "rolling", ("--readout", "20ms")),
        ("upwards", "upwards", ("--readout", "-20ms")),
        ("unknown", "rolling", ()),
    ):
        assert restore(bench, blur, out / name, *more, method=method) == 0
        found[name] = quality(out / name, READOUTS[blur])
    return found


def test_rows_are_restored_as_well_as_those_of_a_global_shutter(bench, tmp_path) -> None:
    found = qualities(bench, tmp_path, "sdm")
    assert abs(found["rolling"] - found["still"]) < 0.3, found
    assert abs(found["upwards"] - found["still"]) < 0.3, found
    assert found["unknown"] < found["rolling"] - 0.5, found


@pytest.mark.slow
def test_paths_are_found_in_rows_as_under_a_global_shutter(bench, tmp_path) -> None:
    few = tmp_path / "few"
    for name in READOUTS:
        (few / name).mkdir(parents=True)
        for i in range(3):
            (few / name / f"IMG_{i}.png").write_bytes((bench / name / f"IMG_{i}.png").read_bytes())
    for file in bench.glob("spike.dat*"):
        (few / file.name).symlink_to(file)
    found = qualities(few, tmp_path, "path")
    assert abs(found["rolling"] - found["still"]) < 0.3, found
    assert abs(found["upwards"] - found["still"]) < 0.3, found
    assert found["unknown"] < found["rolling"] - 3, found
