"""Networks that are asked for the frame of each instant: in restoring as in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_sets import SMALL

from spikedeblur.configs import load_config
from spikedeblur.configs.schema import Config
from spikedeblur.model import VRTWithSpike, build_model
from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.evaluate.instants import score_instants
from spikedeblur.pipeline.frames.images import to_uint8
from spikedeblur.pipeline.methods import exposures
from spikedeblur.pipeline.methods.contract import (
    MethodClip,
    clips_of,
    restored_frames,
    restored_instants,
)
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.methods.parts import parts_of
from spikedeblur.pipeline.sequences.contract import WindowSequence
from spikedeblur.pipeline.sequences.light import seen_by
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.data.loader import collate
from spikedeblur.pipeline.train.data.order import ClipIndex
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.objective import to_inputs
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

SIDE = 32
TIMES = (-11 / 32.125, 0.0, 11 / 32.125)
EVERY = [[True] * 3] * 3


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> WindowSequence:
    """Return three exposures that overlap, with sharp frames of three instants."""
    folder = tmp_path_factory.mktemp("asked")
    simulate(
        folder / "frames", scene_clips("test", 1, (SIDE, SIDE), 65), Rig(instants=3), workers=1
    )
    log, manifest = folder / "align.txt", folder / "align.json"
    options = AlignOptions(verify=False, instants=3)
    align(folder / "frames", "x4k1000fps", log=log, manifest=manifest, options=options, workers=1)
    voxelize_manifest(manifest, folder / "spikes.zarr", VoxelizeOptions(bins=8), Workers(count=1))
    (sequence,) = open_store(folder / "spikes.zarr", "test")
    return sequence


def config(*overrides: str) -> Config:
    return load_config("configs/deblur/quickstart.yaml", (*SMALL, "DATA.INSTANTS=true", *overrides))


def network(how: Config) -> VRTWithSpike:
    """Return a network that corrects its base, by chance."""
    torch.manual_seed(0)
    model = build_model(how).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


class Alone(ModelMethod):
    """A network that sees each exposure as if there were no other."""

    def exposures(self, windows):
        alone = super().exposures(windows)
        alone._helps = lambda other, window: False
        return alone


def test_the_network_is_given_at_an_instant_what_training_gives_it(windows, monkeypatch) -> None:
    monkeypatch.setattr(exposures, "filled", lambda blur, *_: blur)  # as training leaves light
    how = config("DATA.CLIP_LEN=3", f"DATA.CROP_SIZE={SIDE}")
    model, norm = network(how), how.DATA.NORM
    sequences, index = seen_by(norm, [windows]), ClipIndex.every_start([3], 3)
    samples = ClipSamples(sequences, index, crop_size=SIDE, instants=True)
    method = Alone(model, how, tile=0, device="cpu")
    frames = []
    for number, time in enumerate(TIMES):
        batch = collate([samples.cut(0, (0, SIDE), (0, SIDE), number)])
        inputs = to_inputs(batch, torch.device("cpu"), norm)
        assert batch["instant"] == pytest.approx([time])
        with torch.no_grad():
            expected = model(inputs.blur, inputs.voxels, instants=batch["instant"])[0]
        found = method.at(windows, MethodClip(0, 3, 0, 3), batch["instant"][0])
        np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), atol=2e-4)
        frames.append(found)
    assert np.abs(frames[0] - frames[1]).mean() > 0.02
    assert np.abs(frames[2] - frames[1]).mean() > 0.02


def test_frames_of_instants_are_the_same_whichever_are_missing(windows) -> None:
    how = config()
    model = network(how)
    assert how.DATA.CLIP_LEN == 2  # of three windows
    method = ModelMethod(model, how, tile=16, device="cpu")
    found = list(restored_instants(method, windows, TIMES, EVERY))
    assert [(window, i) for window, i, _ in found] == [(w, i) for w in range(3) for i in range(3)]
    frames = {(window, i): frame for window, i, frame in found}
    for window, frame in restored_frames(method, windows):
        np.testing.assert_array_equal(frames[window, 1], frame)
    wanted = [[False] * 3, [False, False, True], [True, False, False]]
    again = ModelMethod(model, how, tile=16, device="cpu")
    for window, i, frame in restored_instants(again, windows, TIMES, wanted):
        assert wanted[window][i]
        np.testing.assert_array_equal(frame, frames.pop((window, i)))
    assert len(frames) == 7


def test_a_network_that_never_learnt_instants_has_its_middle_moved(windows, monkeypatch) -> None:
    monkeypatch.setattr(ModelMethod, "at", _only_the_middle(ModelMethod.at))
    how = config("DATA.INSTANTS=false")
    method = ModelMethod(network(how), how, tile=0, device="cpu")
    frames = {(w, i): x for w, i, x in restored_instants(method, windows, TIMES, EVERY)}
    middles = {}
    for clip in clips_of(method, windows):
        kept = range(clip.keep_start, clip.keep_stop)
        middles.update(zip(kept, method(windows, clip), strict=True))
    exposures = method.exposures(windows)
    for i, time in ((0, TIMES[0]), (2, TIMES[2])):
        moved = to_uint8(exposures.moved(0, {0: middles[0], 1: middles[1]}, time))
        np.testing.assert_array_equal(frames[0, i], moved)


def _only_the_middle(at):
    def checked(self, windows, clip, time):
        assert time == 0
        return at(self, windows, clip, time)

    return checked


def test_scores_of_instants_are_of_the_frames_that_the_network_was_asked_for(windows) -> None:
    how = config()
    method = ModelMethod(network(how), how, tile=0, device="cpu")
    found = score_instants([windows], {"model": method}, 3)
    psnr = [score.psnr for score in found.methods["model"]]
    asked = {(w, i): x for w, i, x in restored_instants(method, windows, windows.instants, EVERY)}
    for i in range(3):
        sharp = windows.sharp_at(i, 0, 3).astype(float)
        each = [np.square(asked[w, i] - sharp[w]).mean() for w in range(3)]
        assert psnr[i] == pytest.approx(np.mean(-10 * np.log10(np.array(each) / 255**2)), abs=1e-4)


def test_the_work_of_each_instant_is_told_from_the_start(windows) -> None:
    counts = []
    for learns in ("true", "false"):
        how = config(f"DATA.INSTANTS={learns}")
        method = ModelMethod(network(how), how, tile=0, device="cpu")
        heard: list[str] = []
        method.shared.heard = lambda kind, _, heard=heard: heard.append(kind)
        assert len(list(restored_instants(method, windows, TIMES, EVERY))) == 9
        expected = parts_of([method], windows, instants=3)
        assert {kind: heard.count(kind) for kind in expected} == expected
        counts.append(expected["network"])
    assert counts == [6, 2]  # two clips
