"""A trained model as a program: it gives what the network gives, or it is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_sets import SMALL

from spikedeblur.cli import main
from spikedeblur.configs import load_config
from spikedeblur.configs.schema import Config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import build_model
from spikedeblur.pipeline.trained import load_trained, program
from spikedeblur.pipeline.trained.model_file import write_model
from spikedeblur.pipeline.weights.find import find_model

ALIGNED = (
    "DATA.K=8",
    "DATA.NUM_VOXEL_BINS=8",
    "MODEL.VRT.window_size=[2, 4, 4]",
    "MODEL.VRT.deformable_groups=2",
    "MODEL.VRT.embed_dims=[8, 8, 8, 8, 8, 8, 8, 8]",
    "MODEL.VRT.num_heads=[2, 2, 2, 2, 2, 2, 2, 2]",
    "MODEL.VRT.depths=[1, 1, 1, 1, 1, 1, 1, 1]",
    "MODEL.VRT.indep_reconsts=[]",
    "MODEL.CHANNELS_PER_SCALE=[8, 8, 8, 8]",
)
"""The baseline made small: with flow and deformable alignment."""


def exported(folder: Path, config: Config) -> Path:
    """Write a network of this configuration with arbitrary weights, none of them zero."""
    torch.manual_seed(0)
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    write_model(folder / "m.safetensors", model, config, {})
    return folder / "m.safetensors"


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A network that is exported in seconds, for it follows no motion."""
    keys = (*SMALL, "MODEL.SPIKE_MOTION=false", "MODEL.RESIDUAL_BASE=blur")
    return exported(tmp_path, load_config("configs/deblur/quickstart.yaml", keys))


def by_network(model: Path, *inputs: np.ndarray) -> np.ndarray:
    network, _ = load_trained(model)
    with torch.no_grad():
        return network(*map(torch.from_numpy, inputs)).numpy()


def by_onnxruntime(path: Path, *inputs: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [entry.name for entry in session.get_inputs()]
    assert names == ["blurred", "voxels"]
    return session.run(["sharp"], dict(zip(names, inputs, strict=True)))[0]


def clip(frames: int, size: tuple[int, int], bins: int, spike_size: tuple[int, int]):
    """A texture that moves; of noise, motion would be chance, and follow from the last bit."""

    def light(shape: tuple[int, int], time: float) -> np.ndarray:
        y, x = (
            (np.arange(n) + 0.5) * whole / n - speed * time
            for n, whole, speed in zip(shape, size, (5, 9), strict=True)
        )
        return 0.5 + 0.2 * np.sin(x / 6) + 0.15 * np.sin(y[:, None] / 5 + x / 13)

    times = (np.arange(bins) + 0.5) / bins - 0.5
    gray = np.mean([light(size, time) for time in times], 0)
    seen = np.stack([light(spike_size, time) for time in times])  # (K, h, w)
    voxels = (seen - seen.mean(0)) / (seen.mean(0) + 0.05)
    blurred = np.stack([0.9 * gray, gray, 0.7 * gray])
    return tuple(
        np.broadcast_to(x, (1, frames, *x.shape)).astype(np.float32) for x in (blurred, voxels)
    )


@pytest.mark.slow
def test_the_shipped_model_runs_in_onnxruntime(tmp_path, capsys):
    import onnx

    out = tmp_path / "small.onnx"
    assert main(["export", "small", str(out), "--size", "64x64"]) == 0
    assert "blurred 1x1x3x64x64, voxels 1x1x32x32x32" in capsys.readouterr().out
    inputs = clip(1, (64, 64), 32, (32, 32))
    wanted = by_network(find_model("small"), *inputs)
    np.testing.assert_allclose(by_onnxruntime(out, *inputs), wanted, atol=5e-4)
    (facts,) = (p.value for p in onnx.load(out).metadata_props if p.key == program.FACTS)
    assert json.loads(facts)["inputs"]["voxels"] == [1, 1, 32, 32, 32]


@pytest.mark.slow
def test_odd_sizes_and_fewer_frames_are_a_program_too(quick, tmp_path):
    out = tmp_path / "m.onnx"
    summary = program.export_program(quick, out, size=(35, 50), spike_size=(20, 30), frames=2)
    bins = summary.inputs["voxels"][2]
    assert summary.inputs == {"blurred": (1, 2, 3, 35, 50), "voxels": (1, 2, bins, 20, 30)}
    inputs = clip(2, (35, 50), bins, (20, 30))
    np.testing.assert_allclose(by_onnxruntime(out, *inputs), by_network(quick, *inputs), atol=1e-4)


@pytest.mark.slow
def test_flow_and_deformable_alignment_are_written_too(tmp_path):
    config = load_config("configs/deblur/vrt_spike_baseline.yaml", ALIGNED)
    assert config.MODEL.VRT.pa_frames == 2
    model = exported(tmp_path, config)
    out = tmp_path / "m.onnx"
    program.export_program(model, out, size=(32, 32), frames=2)
    inputs = clip(2, (32, 32), 8, (32, 32))
    wanted = by_network(model, *inputs)
    difference = np.abs(by_onnxruntime(out, *inputs) - wanted).max()
    assert difference < 1e-3 * np.ptp(wanted)


@pytest.mark.slow
def test_torch_alone_runs_a_pt2(quick, tmp_path):
    out = tmp_path / "m.pt2"
    shapes = program.export_program(quick, out, size=(32, 32)).inputs
    _, frames, bins, *spike_size = shapes["voxels"]
    blurred, voxels = clip(frames, (32, 32), bins, spike_size)
    np.savez(tmp_path / "in.npz", blurred=blurred, voxels=voxels)
    code = (
        "import sys, numpy, torch\n"
        "given = numpy.load('in.npz')\n"
        "run = torch.export.load('m.pt2').module()\n"
        "out = run(torch.from_numpy(given['blurred']), torch.from_numpy(given['voxels']))\n"
        "assert 'spikedeblur' not in sys.modules\n"
        "numpy.save('out.npy', out.detach().numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    wanted = by_network(quick, blurred, voxels)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, atol=1e-5)


def test_a_program_that_differs_is_not_kept(quick, tmp_path, monkeypatch):
    out = tmp_path / "m.pt2"
    monkeypatch.setattr(program, "_write_pt2", lambda *arguments: arguments[-1].write(b"1"))
    monkeypatch.setattr(program, "_call_pt2", lambda path, inputs: inputs["blurred"] * float("nan"))
    with pytest.raises(SpikeDeblurError, match=r"found nan; not kept"):
        program.export_program(quick, out, size=(32, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_what_an_exporter_can_not_do_is_one_sentence(quick, tmp_path, monkeypatch):
    def fails(*arguments):
        raise KeyError("aten.strange\nwith a page of advice")

    monkeypatch.setattr(program, "_write_pt2", fails)
    with pytest.raises(SpikeDeblurError, match=r"m\.pt2: torch .* can't write .*aten\.strange"):
        program.export_program(quick, tmp_path / "m.pt2", size=(32, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_file_in_the_way_is_kept(quick, tmp_path):
    out = tmp_path / "m.pt2"
    out.write_text("mine")
    with pytest.raises(SpikeDeblurError, match="is there already"):
        program.export_program(quick, out, size=(32, 32))
    assert out.read_text() == "mine"


def test_without_the_extra_its_name_is_said(quick, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SpikeDeblurError, match=r"spikedeblur\[onnx\]"):
        program.export_program(quick, tmp_path / "m.onnx", size=(32, 32))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.onnx"], "one input shape"),
        (["m.safetensors", "--size", "32x32"], "takes any"),
        (["m.pth"], ".safetensors, .pt2 or .onnx"),
    ],
)
def test_a_shape_goes_with_a_program(arguments, said, capsys):
    assert main(["export", "small", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
