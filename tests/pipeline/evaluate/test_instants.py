"""Sharp frames at several instants: from `simulate` through the store to their scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikedeblur.pipeline.align import AlignmentError, AlignOptions, align
from spikedeblur.pipeline.align.manifest import read_manifest
from spikedeblur.pipeline.clocks.exposures import instant_offsets
from spikedeblur.pipeline.evaluate import job
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.evaluate.scores import EvaluationError
from spikedeblur.pipeline.frames.images import read_rgb
from spikedeblur.pipeline.sequences.kept import KeptSequence
from spikedeblur.pipeline.sequences.light import LightSequence
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.voxelize import VoxelizeOptions, voxelize_manifest
from spikedeblur.pipeline.voxelize.check import check_store
from spikedeblur.pipeline.voxelize.workers import Workers

OFFSETS = (-11, 0, 11)
"""Frames nearest to the middles of thirds of 32 frame intervals and a sample."""


def recorded(folder: Path, instants: int = 3) -> Path:
    """Record a scene of three exposures."""
    clips = scene_clips("test", 1, (32, 32), 65)
    simulate(folder, clips, Rig(instants=instants), workers=1)
    return folder


def aligned(root: Path, instants: int | None = 3) -> Path:
    """Align what `recorded` wrote."""
    manifest = root.with_name(f"{root.name}.json")
    options = AlignOptions(verify=False, instants=instants)
    log = manifest.with_suffix(".txt")
    align(root, "x4k1000fps", log=log, manifest=manifest, options=options)
    return manifest


def stored(manifest: Path, kind: str) -> Path:
    """Voxelize what `aligned` wrote."""
    store = manifest.with_name(f"{kind}.zarr")
    voxelize_manifest(manifest, store, VoxelizeOptions(kind=kind), Workers(count=1))
    return store


@pytest.mark.parametrize("kind", ["packed", "counts"])
def test_a_store_keeps_the_sharp_frames_of_each_instant_and_when_they_were(
    tmp_path: Path, kind: str
) -> None:
    root = recorded(tmp_path / "data")
    store = stored(aligned(root), kind)
    (windows,) = open_store(store)
    assert windows.instants == pytest.approx([11 / 32.125 * i for i in (-1, 0, 1)])
    frames = root / "test_fullRGB/scenes/00000"
    for instant, offset in enumerate(OFFSETS):
        kept = windows.sharp_at(instant, 0, 3)
        for window, centre in enumerate((16, 31, 46)):
            expected = read_rgb(frames / f"{centre + offset:04d}.png")
            assert np.array_equal(kept[window], expected)
    assert np.array_equal(windows.sharp_at(1, 0, 3), windows.sharp(0, 3))
    for seen in (LightSequence(windows), KeptSequence(LightSequence(windows))):
        assert seen.instants == windows.instants
        assert np.array_equal(seen.sharp_at(2, 0, 3), windows.sharp_at(2, 0, 3))
    assert check_store(store).whole
    with pytest.raises(IndexError):
        windows.sharp_at(3, 0, 1)


def test_without_instants_nothing_of_them_is_in_manifest_or_store(tmp_path: Path) -> None:
    manifest = aligned(recorded(tmp_path / "data"), instants=None)
    assert "instants" not in manifest.read_text()
    store = stored(manifest, "packed")
    assert not list(store.rglob("*instants*"))
    (windows,) = open_store(store)
    assert windows.instants == ()
    assert not any("instants" in path.read_text() for path in store.rglob("zarr.json"))


def test_each_instant_is_scored_against_its_own_frame(tmp_path: Path) -> None:
    store = stored(aligned(recorded(tmp_path / "data")), "packed")
    how = job.Evaluating(instants=3)
    found = job.evaluate(store, methods=["blur", "sdm", "path"], how=how)
    assert found.instants is not None
    assert found.to_json()["instants"] == found.instants
    assert list(found.instants["methods"]) == ["blur", "path"]  # sdm follows no motion
    (windows,) = open_store(store)
    blurred = found.instants["methods"]["blur"]
    for instant in range(3):
        expected = np.mean(
            [
                psnr(windows.blur(i, i + 1)[0], windows.sharp_at(instant, i, i + 1)[0])
                for i in range(3)
            ]
        )
        assert blurred["instants"][instant]["psnr"] == pytest.approx(expected)
    path = found.instants["methods"]["path"]
    assert path["instants"][1]["psnr"] == pytest.approx(found.methods["path"].psnr)
    assert path["psnr_middle_third"] == path["instants"][1]["psnr"]
    ends = [path["instants"][i]["psnr"] for i in (0, 2)]
    assert path["psnr_ends"] == pytest.approx(np.mean(ends))


def test_instants_that_a_store_lacks_are_refused_before_anything_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored(aligned(recorded(tmp_path / "data")), "packed")
    monkeypatch.setattr(job, "evaluate_sequences", lambda *_: pytest.fail("was called"))
    with pytest.raises(EvaluationError, match=r"at 5 instants .* found 3; .*align --instants 5"):
        job.evaluate(store, methods=["blur"], how=job.Evaluating(instants=5))


def test_fewer_instants_are_taken_from_many(tmp_path: Path) -> None:
    store = stored(aligned(recorded(tmp_path / "data", instants=33), instants=33), "packed")
    how = job.Evaluating(instants=3)
    found = job.evaluate(store, methods=["blur"], how=how)
    assert found.instants is not None
    assert found.instants["times"] == pytest.approx([11 / 32.125 * i for i in (-1, 0, 1)])


def test_missing_sharp_frames_are_named_by_number(tmp_path: Path) -> None:
    root = recorded(tmp_path / "data", instants=1)
    with pytest.raises(AlignmentError, match=r"0016\.png: .*--instants 3, found none of number 5"):
        aligned(root)


def test_more_instants_than_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="expected 1 to 33"):
        Rig(instants=34)


def test_the_unified_layout_keeps_one_sharp_frame(tmp_path: Path) -> None:
    manifest = aligned(recorded(tmp_path / "data"))
    options = VoxelizeOptions(format="npy")
    with pytest.raises(StoreError, match="align without --instants"):
        voxelize_manifest(manifest, tmp_path / "npy", options, Workers(count=1))


def test_another_number_of_instants_is_another_store(tmp_path: Path) -> None:
    root = recorded(tmp_path / "data")
    store = stored(aligned(root), "packed")
    aligned(root, instants=1)
    with pytest.raises(StoreError, match="made from something else"):
        voxelize_manifest(root.with_name("data.json"), store, workers=Workers(count=1))


def test_simulating_one_instant_writes_what_it_did_before(tmp_path: Path) -> None:
    one, three = recorded(tmp_path / "one", 1), recorded(tmp_path / "three")
    assert len(list((one / "test_fullRGB").rglob("*.png"))) == 3
    assert len(list((three / "test_fullRGB").rglob("*.png"))) == 9
    spikes = "test_spike_2xds/scenes/00000/spike.dat"
    assert (one / spikes).read_bytes() == (three / spikes).read_bytes()
    assert "instants" not in (one / f"{spikes}.json").read_text()


def test_instants_are_those_of_restoring() -> None:
    assert instant_offsets(1, 33, 1000, 8000) == [0]
    assert instant_offsets(3, 33, 1000, 8000) == list(OFFSETS)
    assert instant_offsets(33, 33, 1000, 1000) == list(range(-16, 17))
    assert instant_offsets(33, 33, 1000, 8000) == list(range(-16, 17))


def test_a_manifest_with_instants_is_read_back_as_it_was(tmp_path: Path) -> None:
    manifest = aligned(recorded(tmp_path / "data"))
    (sequence,) = read_manifest(manifest).sequences
    assert [len(window.instants) for window in sequence.windows] == [3, 3, 3]
