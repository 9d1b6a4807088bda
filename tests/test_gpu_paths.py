"""What runs on a GPU, driven without one as far as it goes: shapes, types, devices and copies.

No number is computed: that results are right is tested on a CPU. What is seen here is that nothing
of a CPU comes among tensors of the GPU, and where a program waits for it. See `fake_gpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from fake_gpu import Copies, CopyError, autocast_on_gpu, fake_gpu, nothing_kept, on_gpu

from spikedeblur.configs import load_config
from spikedeblur.configs.schema import Config, NormConfig
from spikedeblur.configs.schema.data import SpikeAugmentConfig
from spikedeblur.model import VRTWithSpike, constants, motion_deblur, outline_model
from spikedeblur.model.constants import constant, numbers
from spikedeblur.pipeline.methods import tiling
from spikedeblur.pipeline.methods.contract import restored_frames, restored_instants
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.sequences.contract import WindowSequence
from spikedeblur.pipeline.train.clock import Clock
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.objective import Objective, to_inputs
from spikedeblur.pipeline.train.precision import Precision
from spikedeblur.pipeline.train.step import Learner

ONCE = {
    "model/constants.py constant": "each constant is made once",
    "third_party/VRT/windows.py _plan": "windows are planned once for each shape",
}
IN_A_STEP = {
    "pipeline/train/step.py Learner._backward": "loss and PSNR, once a step",
    "pipeline/train/step.py Learner._step": "the gradient's norm: a bad one changes no weight",
}
IN_RESTORING = {
    "pipeline/methods/inputs.py InputReader.read": "frames and spikes of a window, or of a tile",
    "model/beyond_range.py filled": "whether a frame is clipped or black",
    "pipeline/methods/network.py ModelMethod._followed": "whether its base is beyond white",
    "pipeline/methods/exposures.py Exposures._light_after": "spikes between two exposures",
    "pipeline/methods/exposures.py Exposures._read": "the lag of an exposure, by which it is read",
    "pipeline/methods/exposures.py _gain_of": "the gain of an exposure, to judge neighbours",
    "pipeline/methods/exposures.py Exposures.moved": "the middle frame, once an instant",
    "pipeline/methods/exposures.py as_frames": "restored frames, once a window, tile or instant",
}
IN_LARGE_FRAMES = {
    "model/motion_deblur.py _bands": "how far points move: by that, frames are cut into bands",
    "model/neighbours.py Ways.reach": "the same of each neighbour",
}

CONFIGS = ["quickstart", pytest.param("vrt_spike_baseline", marks=pytest.mark.slow)]


def config_of(name: str, *overrides: str) -> Config:
    # No weights are read; the rest is as in the file.
    without_files = ("MODEL.PRETRAINED=null", "LOSS.VGG_PERCEPTUAL.WEIGHT=0", "TRAIN.COMPILE=false")
    return load_config(f"configs/deblur/{name}.yaml", (*without_files, *overrides))


def network(config: Config) -> VRTWithSpike:
    model = on_gpu(outline_model(config))
    model.to = lambda device: model  # type: ignore[method-assign,assignment]  # it is there
    return model.eval()


class Windows(WindowSequence):
    """Exposures of 64 samples, with a gap between them; of unknown gain."""

    seq, bins, gain = "test/group/clip", 32, None
    has_sharp, has_spikes, is_remote, windows_are_raw = False, True, False, True
    voxel_dtype, frame_dtype = "uint8", "uint8"
    frame_shape, voxel_shape = (64, 64), (32, 32)

    def __init__(self, length: int, gap: int = 0) -> None:
        self.length, self.samples = length, np.full(length, 64)
        self.starts, self.frame_index = (64 + gap) * np.arange(length), np.arange(length)
        self.t0 = self.starts / 1000
        self.t1 = self.t0 + 0.063
        random = np.random.default_rng(0).random(((64 + gap) * length, *self.voxel_shape))
        self.recorded = (random < 0.3).astype(np.uint8)

    def _read_frames(self, kind, start, stop, box):
        frames = np.full((stop - start, *self.frame_shape, 3), 100, np.uint8)
        return frames[:, slice(*box[0]), slice(*box[1])]

    def _read_voxels(self, start, stop, box):
        counts = np.ones((stop - start, self.bins, *self.voxel_shape), np.uint8)
        return counts[..., slice(*box[0]), slice(*box[1])]

    def _read_spikes(self, window, beside, box):
        start = self.starts[window]
        first = max(0, start - beside)
        spikes = self.recorded[first : start + 64 + beside]
        return spikes[:, slice(*box[0]), slice(*box[1])], start - first


@pytest.fixture
def gpu() -> Iterator[Copies]:
    with fake_gpu(ONCE | IN_RESTORING | IN_LARGE_FRAMES) as copies:
        yield copies


def test_copies_are_seen_both_ways_and_so_are_strangers(gpu: Copies) -> None:
    there = torch.rand(3, 4, device="cuda")
    here = torch.rand(3, 4)
    for copy in (
        lambda: there.cpu(),
        lambda: there.sum().item(),
        lambda: bool((there > 0).any()),
        lambda: there.tolist(),
        lambda: here.to("cuda"),
        lambda: torch.tensor([1.0, 2.0], device="cuda"),
        lambda: there.new_tensor([1.0, 2.0]),
        lambda: there.copy_(here),
        lambda: here.copy_(there),
        lambda: there[:, torch.tensor([0, 2])],
        lambda: there[there > 0],
        lambda: there.nonzero(),
        lambda: there + here,
    ):
        with pytest.raises((CopyError, RuntimeError)):
            copy()
    assert (there + 1).device.type == "cuda"
    assert (here + 1).sum() > 12  # what is in main memory is real
    assert here.to("cuda", non_blocking=True).device.type == "cuda"  # nobody waits


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_runs_on_a_gpu_and_waits_for_nothing(gpu: Copies, name: str) -> None:
    config = config_of(name)
    model = network(config)
    trunk = 32 // config.MODEL.TRUNK_SCALE
    clip = torch.rand(1, 2, 3, 32, 32, device="cuda")
    voxels = torch.rand(1, 2, config.DATA.K, trunk, trunk, device="cuda")
    with torch.inference_mode():
        first = model(clip, voxels)
        gpu.listed = ()
        with autocast_on_gpu(torch.float16 if name == "quickstart" else torch.bfloat16):
            again = model(clip, voxels)
    for out in (first, again):
        assert (out.device.type, out.shape, out.dtype) == ("cuda", clip.shape, torch.float32)


@pytest.mark.parametrize(
    "gap",
    [pytest.param(0, marks=pytest.mark.slow), 32],
    ids=["without a gap", "across a gap"],
)
def test_path_restores_on_a_gpu_and_copies_what_is_listed(gpu: Copies, gap: int) -> None:
    method = PathMethod(device="cuda")
    found = restored_instants(method, Windows(2, gap), [0.0, 0.25], [[True, True], [True, False]])
    assert [(window, i) for window, i, _ in found] == [(0, 0), (0, 1), (1, 0)]
    copies = {place.split()[-1]: number for place, number in gpu.seen.items()}
    del copies["constant"]
    expected = {
        "InputReader.read": 4,
        "Exposures._read": 2,
        "_gain_of": 4,
        "filled": 2,
        "Exposures.moved": 1,
        "as_frames": 3,
    }
    assert copies == expected | ({"Exposures._light_after": 1} if gap else {})


@pytest.mark.slow
def test_large_frames_ask_once_for_a_window_how_far_points_move(gpu: Copies, monkeypatch) -> None:
    monkeypatch.setattr(motion_deblur, "_LARGEST_BAND", 1024)
    assert len(list(restored_frames(PathMethod(device="cuda"), Windows(2)))) == 2
    assert gpu.seen["model/motion_deblur.py _bands"] == 2
    assert gpu.seen["model/neighbours.py Ways.reach"] == 2


@pytest.mark.slow
def test_a_model_restores_tiles_on_a_gpu_and_copies_what_is_listed(
    gpu: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(restore_first_tile: Callable[[], None], device: torch.device) -> int:
        restore_first_tile()
        return 1  # a driver would tell how many bytes

    monkeypatch.setattr(tiling, "memory_taken", taken)
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1 << 30)
    config = config_of("small")
    method = ModelMethod(network(config), config, tile=48, device="cuda")
    assert len(list(restored_frames(method, Windows(2)))) == 2
    assert gpu.seen["pipeline/methods/exposures.py as_frames"] == 4  # tiles
    # Frames and spikes of two exposures, of both windows to measure them, and of each tile.
    assert gpu.seen["pipeline/methods/inputs.py InputReader.read"] == 2 * (2 + 2 + 4)


def batch(config: Config, frames: int = 2, side: int = 16) -> dict:
    spikes = (1, frames, config.DATA.K, side // 2, side // 2)
    pictures = torch.zeros(2, 1, frames, 3, side, side, dtype=torch.uint8)
    return {
        "blur": pictures[0],
        "sharp": pictures[1],
        "voxels": torch.ones(spikes, dtype=torch.float16),
        "gain": torch.tensor([torch.nan]),
        "samples": torch.full((1, frames), 64),
        "weight": 1.0,
        "place": 0,
        "seq": ["a"],
        "frame_index": [list(range(frames))],
        "changes": [1],
    }


EVERY_CHANGE = SpikeAugmentConfig(
    CHANCE=1, THRESHOLD=4, NOISE=0.1, DEAD=0.1, ROWS=0.1, LATE=0.1, TINT=0.1, GRAIN=0.1, THIN=0.1
)


@pytest.mark.parametrize("mode", ["relative", "log1p", "rate"])
def test_inputs_are_made_on_a_gpu_without_waiting(gpu: Copies, mode: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())  # asks the driver
    norm = NormConfig(MODE=mode, CORRECT_LAG=True)
    given = batch(config_of("quickstart"))
    if mode == "rate":
        given["gain"] = torch.tensor([0.5])
    changes = (None, EVERY_CHANGE)
    for listed in (ONCE, ()):
        gpu.listed = listed
        for augment in changes if mode == "relative" else changes[:1]:
            inputs = to_inputs(given, torch.device("cuda"), norm, augment=augment)
            assert {x.device.type for x in inputs} == {"cuda"}
            assert {x.dtype for x in inputs} == {torch.float32}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_reads_its_figures_and_nothing_else(name: str, monkeypatch) -> None:
    """On torch's device `meta`, where gradients need no driver; paths are those of a GPU."""
    learner = learner_on_meta(config_of(name), monkeypatch)
    device = torch.device("meta")
    with nothing_kept(), Copies(ONCE | IN_A_STEP, gpu="meta") as copies:
        batches = [batch(learner.config) for _ in range(2 if name == "quickstart" else 1)]
        step = learner.step(batches, 0, 1e-3, Clock(device), raw=True)
    assert np.isfinite(step).all()
    assert {place: copies.seen[place] for place in IN_A_STEP} == dict.fromkeys(IN_A_STEP, 1)
    changed = [p for p in learner.model.parameters() if learner.optimizer.state[p]]
    unused = [n for n, p in learner.model.named_parameters() if not learner.optimizer.state[p]]
    assert changed
    assert unused == []


def learner_on_meta(config: Config, monkeypatch: pytest.MonkeyPatch) -> Learner:
    autocast, adamw = torch.autocast, torch.optim.AdamW

    def of_cuda(device_type: str, *args, **options):  # torch has none for `meta`
        return autocast("cuda" if device_type == "meta" else device_type, *args, **options)

    monkeypatch.setattr(torch, "autocast", of_cuda)
    plain = {"fused": False, "foreach": False}
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **o: adamw(*args, **(o | plain)))
    device = torch.device("meta")
    objective = Objective(config.LOSS).to(device)
    group, precision = Group(0, 1, device), Precision(device, None)
    return Learner(config, group, outline_model(config), objective, precision)


def test_a_constant_is_made_once_for_each_type_and_device() -> None:
    with nothing_kept():
        made = [constant(numbers, 0.1, 0.2, like=torch.ones(1)) for _ in range(2)]
        assert made[0] is made[1]
        assert made[0].dtype == torch.float32
        with torch.inference_mode():
            double = constant(numbers, 0.1, 0.2, like=torch.ones(1, dtype=torch.float64))
        assert double.tolist() == [0.1, 0.2]
        weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
        (weight * double).sum().backward()  # made in inference mode, and used in training
        assert weight.grad.tolist() == [0.1, 0.2]
        for i in range(constants._MOST):
            constant(numbers, float(i), like=double)
        assert len(constants._made) == constants._MOST
