"""Frames in memory are restored as the command restores files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import spikedeblur
from spikedeblur.cli import main
from spikedeblur.pipeline.frames.images import read_rgb


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    words = "--scenes 1 --split test --size 48x64 --length 99 --stride 33 --quiet --workers 1"
    assert main(["simulate", str(folder), *words.split()]) == 0
    return folder


def paths_of(folder: Path) -> tuple[Path, Path]:
    return (
        folder / "test_blurry_33/scenes/00000",
        folder / "test_spike_2xds/scenes/00000/spike.dat",
    )


@pytest.fixture(scope="module")
def arrays(recorded: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    blurred, dat = paths_of(recorded)
    side = spikedeblur.read_side_file(dat)
    assert side is not None
    assert side.gain is not None
    spikes = spikedeblur.read_spikes(dat, spikedeblur.parse_geometry("24x32,bottom-up"))
    centres = sorted(int(path.stem) for path in blurred.iterdir())
    frames = np.stack([read_rgb(blurred / f"{centre:04d}.png") for centre in centres])
    # 33 frames at 1000 fps, of 8 samples each; the first and the last instant belong to it.
    exposures = np.array([[8 * (c - 16), 8 * (c + 16)] for c in centres])
    return frames, spikes, exposures, side.gain


def by_command(recorded: Path, out: Path, *how: str) -> np.ndarray:
    blurred, dat = paths_of(recorded)
    words = ["restore", "--blur", str(blurred), "--spikes", str(dat), "--out", str(out)]
    assert main([*words, "--exposure", "33", "--fps", "1000", "--quiet", *how]) == 0
    return np.stack([read_rgb(path) for path in sorted(out.glob("*.png"))])


@pytest.mark.parametrize("method", ["path", "sdm", "tfp", "tfi", "blur"])
def test_a_stream_gives_the_commands_frames(recorded, arrays, tmp_path, method) -> None:
    frames, spikes, exposures, gain = arrays
    ours = spikedeblur.restore(frames, spikes, exposures, gain, method=method)
    assert ours.dtype == np.uint8
    assert ours.shape == frames.shape
    expected = by_command(recorded, tmp_path / "out", "--method", method)
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_a_model_gives_the_commands_frames_and_keeps_kind_and_type(
    recorded, arrays, tmp_path
) -> None:
    frames, spikes, exposures, gain = arrays
    model = spikedeblur.load("small", device="cpu")
    ours = model.restore(frames, spikes, exposures, gain)
    expected = by_command(recorded, tmp_path / "out", "--model", "small")
    assert np.abs(ours.astype(int) - expected).max() <= 1
    unit = torch.from_numpy(frames).float() / 255
    tensors = model.restore(unit, torch.from_numpy(spikes), exposures.tolist(), gain)
    assert isinstance(tensors, torch.Tensor)
    assert tensors.dtype == torch.float32
    assert (255 * tensors - torch.from_numpy(ours)).abs().max() <= 1


def test_exposures_alone_are_near_those_of_a_stream(arrays) -> None:
    frames, spikes, exposures, gain = arrays
    own = np.stack([spikes[first : last + 1] for first, last in exposures])
    alone = spikedeblur.restore(frames[:1], own[:1], gain=gain).astype(float)
    together = spikedeblur.restore(frames[:1], spikes, exposures[:1], gain).astype(float)
    assert np.abs(alone - together).mean() < 1
    assert len(spikedeblur.restore(frames, own > 0)) == len(frames)  # the gain is estimated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": lambda a: a[0]}, r"frames: expected \(N, H, W, 3\).*frames\[None\]"),
        (
            {"frames": lambda a: a.astype(np.float32)},
            r"frames: expected floating values in \[0, 1\]",
        ),
        ({"frames": lambda a: a.astype(np.int32)}, "frames: expected uint8, uint16"),
        ({"spikes": lambda a: 3 * a}, "spikes: expected 0 and 1, .*counts in bins"),
        ({"spikes": lambda a: a / 2.0}, "spikes: expected 0 and 1"),
        ({"spikes": lambda a: a[0]}, r"spikes: expected a stream \(S, h, w\)"),
        ({"spikes": lambda a: a[:300]}, "exposures: that of frame 1"),
        ({"exposures": lambda a: None}, "spikes: found one stream .*give exposures"),
        ({"exposures": lambda a: a[:2]}, r"exposures: expected \(3, 2\) integers"),
        ({"exposures": lambda a: a / 2}, r"exposures: expected \(3, 2\) integers"),
        ({"exposures": lambda a: a[::-1]}, "in order of time"),
        ({"exposures": lambda a: a[:, ::-1]}, "is not inside"),
        ({"exposures": lambda a: a.astype(np.uint64)[::-1]}, "in order of time"),
        (
            {"exposures": lambda a: np.stack([a[:, 0], a[:, 0]], 1)},
            "exposures: that of frame 0: expected at least 2 samples",
        ),
        (
            {"spikes": lambda a: np.stack([a[:1]] * 3), "exposures": lambda a: None},
            "spikes: those of each exposure: expected at least 2 samples",
        ),
        ({"frames": lambda a: [a[0], a[1][:5]]}, "frames: expected a NumPy array or a dense"),
        ({"spikes": lambda a: torch.from_numpy(a).to_sparse()}, "spikes: expected a NumPy array"),
        ({"spikes": lambda a: a.astype(str)}, "spikes: expected 0 and 1 as integers"),
        ({"spikes": lambda a: a.astype(object)}, "spikes: expected 0 and 1 as integers"),
        ({"spikes": lambda a: a.astype(complex)}, "spikes: expected 0 and 1 as integers"),
        ({"gain": lambda a: [0.5]}, "gain: expected spikes a sample above 0"),
        ({"gain": lambda a: "half"}, "gain: expected spikes a sample above 0"),
        ({"gain": lambda a: 1e-30}, "gain: expected spikes a sample above 0"),
        ({"gain": lambda a: 0.0}, "gain: expected spikes a sample above 0"),
        ({"gain": lambda a: float("nan")}, "gain: expected spikes a sample above 0"),
    ],
)
def test_what_does_not_fit_is_named(arrays, change, message) -> None:
    given = dict(zip(("frames", "spikes", "exposures", "gain"), arrays, strict=True))
    given |= {name: how(given[name]) for name, how in change.items()}
    with pytest.raises(spikedeblur.SpikeDeblurError, match=message):
        spikedeblur.restore(**given, method="sdm")


def test_unknown_methods_models_and_names_are_refused(arrays) -> None:
    with pytest.raises(spikedeblur.SpikeDeblurError, match=r"spikedeblur\.load"):
        spikedeblur.restore(*arrays, method="model")
    with pytest.raises(spikedeblur.SpikeDeblurError, match=r"method: expected .*\['sdm'\]"):
        spikedeblur.restore(*arrays, method=["sdm"])
    with pytest.raises(spikedeblur.SpikeDeblurError, match="small"):
        spikedeblur.load("smal")
    with pytest.raises(AttributeError, match="no attribute 'restor'"):
        _ = spikedeblur.restor


def test_the_import_takes_neither_torch_nor_numpy() -> None:
    code = "import sys, spikedeblur; print({'torch', 'numpy', 'zarr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert {"load", "restore", "open_store"} <= set(dir(spikedeblur))


def test_a_short_exposure_coarsens_no_other(arrays) -> None:
    frames, spikes, exposures, gain = arrays
    short = exposures.copy()
    short[1] = [exposures[1, 0] + 100, exposures[1, 0] + 102]
    for method in ("sdm", "tfp", "path"):
        ours = spikedeblur.restore(frames, spikes, short, gain, method=method)
        others = spikedeblur.restore(frames[[0, 2]], spikes, exposures[[0, 2]], gain, method=method)
        np.testing.assert_array_equal(ours[[0, 2]], others)
        alone = spikedeblur.restore(frames[1:2], spikes, short[1:2], gain, method=method)
        np.testing.assert_array_equal(ours[1:2], alone)


def test_lists_and_tensors_of_all_kinds_are_taken(arrays) -> None:
    frames, spikes, exposures, gain = arrays
    expected = spikedeblur.restore(frames, spikes, exposures, gain, method="sdm")
    from_lists = spikedeblur.restore(
        list(frames), list(spikes), exposures.tolist(), gain, method="sdm"
    )
    assert isinstance(from_lists, np.ndarray)
    np.testing.assert_array_equal(from_lists, expected)
    tensor = torch.from_numpy(frames / 255).bfloat16().requires_grad_()
    ours = spikedeblur.restore(
        tensor, torch.from_numpy(spikes).bfloat16(), exposures, gain, method="sdm"
    )
    assert ours.dtype == torch.bfloat16
    assert np.abs(255 * ours.float().numpy() - expected).max() <= 4  # bfloat16 has 8 bits


def test_a_tile_below_0_is_refused() -> None:
    with pytest.raises(spikedeblur.SpikeDeblurError, match="tile: expected a side"):
        spikedeblur.load("small", tile=-1)
