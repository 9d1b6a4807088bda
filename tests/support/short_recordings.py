"""Three exposures of the moving scene as files, and short ways to find and restore them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikedeblur.pipeline.align.log import AlignmentRow, write_alignment_log
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.host.reporter import SILENT, Reporter
from spikedeblur.pipeline.restore import job
from spikedeblur.pipeline.sequences.find_recording import ExposureTimes, find_recording
from spikedeblur.pipeline.sequences.recording import Recording
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes
from spikedeblur.pipeline.spikes.settings import SpikeOptions

GEOMETRY = "48x48,bottom-up"
SEQ = "test/Type1/clip"
BY_NUMBER = ExposureTimes(exposure=33, fps=1000.0)


@pytest.fixture
def recording(moving_scene, tmp_path: Path) -> Path:
    """`test_blurry_33/Type1/clip/0016.png...`, `spike.dat` with its side file, and a log."""
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        write_png(tmp_path / "test_blurry_33/Type1/clip" / f"{centre:04d}.png", frame)
    dat = tmp_path / "spike.dat"
    write_spikes(dat, moving_scene.spikes, parse_geometry(GEOMETRY))
    write_side_file(
        dat, SideFile(geometry=GEOMETRY, rate=moving_scene.rate, gain=moving_scene.gain)
    )
    rows = [
        AlignmentRow(c, (c - 16) / 1000, (c + 16) / 1000, 1, seq)
        for c in moving_scene.centres
        for seq in (SEQ, "val/Type1/clip")
    ]
    write_alignment_log(tmp_path / "align.txt", rows)
    return tmp_path


def found(folder: Path, times: ExposureTimes = BY_NUMBER, **options) -> Recording:
    blur, dat = folder / "test_blurry_33/Type1/clip", folder / "spike.dat"
    return find_recording(blur, dat, times, SpikeOptions(**options))


def restore(
    folder: Path,
    out: str = "out",
    *,
    times: ExposureTimes = BY_NUMBER,
    first: float | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    **how,
) -> job.RestoreSummary:
    restoring = job.Restoring(**({"method": "model" if "run" in how else "sdm"} | how))
    recording = found(folder, times, first=first)
    return job.restore(recording, folder / out, restoring, overwrite=overwrite, reporter=reporter)


def by_log(folder: Path, **keywords):
    return restore(folder, times=ExposureTimes(log=folder / "align.txt"), **keywords)
