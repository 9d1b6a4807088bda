"""A trained model as a program of one input shape, for places that have no spikedeblur.

    .pt2    torch.export: for torch itself, from Python or compiled
    .onnx   ONNX, opset 20: for onnxruntime and others; needs the extra `onnx`

Both take what the network takes: frames and normalised counts, float32. The written program is
read back and must give what the network gives, or it is not kept.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...configs import dump_config
from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ...version import __version__
from ..host.files import AsideFile, atomic_write
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..weights.find import source_name
from .model_file import load_trained

PROGRAM_SUFFIXES = (".pt2", ".onnx")
FACTS = "spikedeblur"
"""Name of the facts in the file: an extra file in a .pt2, a metadata property in an .onnx."""

TOLERANCE = 1e-3
"""Largest difference from the network's output, as a share of that output's range."""

OPSET = 20
OUTPUT = "sharp"


class ProgramError(SpikeDeblurError):
    """A model can't be written as a program, or the program computes something else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramSummary:
    """Inputs of a program, and how near it is to its network."""

    out: str
    inputs: dict[str, tuple[int, ...]]
    """Shape of each input by name: blurred (1, T, 3, H, W) and, if the model uses spikes, voxels
    (1, T, K, h, w)."""
    difference: float
    """Largest difference from the network's output, as a share of that output's range."""


def export_program(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    spike_size: tuple[int, int] | None = None,
    frames: int | None = None,
    overwrite: bool = False,
) -> ProgramSummary:
    """Write a trained model as a program, atomically, once it gives what the model gives.

    Args:
        source: trained model, as for `load_trained`.
        out: file to write, `*.pt2` or `*.onnx`.
        size: (H, W) of the frames, in pixels; the program takes no other.
        spike_size: (h, w) of the counts, in pixels; None: that of the network's trunk.
        frames: T of a clip; None: as in training.
        overwrite: replace a file that is there.

    Raises:
        ProgramError: another ending, a missing extra, an operator that the format has not, or a
            program that gives something else.
        OverwriteError: a file is in the way.
    """
    out = Path(out)
    if out.suffix not in PROGRAM_SUFFIXES:
        endings = " or ".join(PROGRAM_SUFFIXES)
        raise ProgramError(f"{out}: expected a name that ends in {endings}; change it")
    require_free(out, overwrite=overwrite)
    extra = ("onnx", "onnxruntime", "onnxscript")
    if out.suffix == ".onnx" and not all(map(find_spec, extra)):
        raise ProgramError(
            f"{out}: writing ONNX needs onnx, onnxscript and onnxruntime; install "
            "spikedeblur[onnx], or write .pt2"
        )
    network, config = load_trained(source)
    inputs = _inputs(config, frames or config.DATA.CLIP_LEN, size, spike_size)
    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    facts = {
        "version": __version__,
        "model": source_name(source),
        "inputs": shapes,
        "output": OUTPUT,
        "config": dump_config(config),
    }
    write, call = (_write_onnx, _call_onnx) if out.suffix == ".onnx" else (_write_pt2, _call_pt2)
    # Without gradients from first to last: attention is traced as it is then taken apart.
    with only_writer_of(out), torch.no_grad(), atomic_write(out) as file:
        require_free(out, overwrite=overwrite)
        expected = network(*inputs.values())  # plans its windows, which tracing can't
        with _explained(out):
            program = torch.export.export(network, tuple(inputs.values()), strict=False)
            write(program, list(inputs), facts, file)
            file.flush()
            output = call(file.path, inputs)
        difference = _relative_difference(output, expected)
        if not difference <= TOLERANCE:
            raise ProgramError(
                f"{out}: expected the network's output to {TOLERANCE:g} of its range, found "
                f"{difference:.2g}; not kept; use the run or its .safetensors"
            )
    return ProgramSummary(out=str(out), inputs=shapes, difference=difference)


def _inputs(
    config: Config, frames: int, size: tuple[int, int], spike_size: tuple[int, int] | None
) -> dict[str, Tensor]:
    """Return an arbitrary clip of these sizes, the same each time."""
    random = torch.Generator().manual_seed(0)
    inputs = {"blurred": torch.rand(1, frames, 3, *size, generator=random)}
    if config.MODEL.USE_SPIKE:
        trunk = [-(-side // config.MODEL.TRUNK_SCALE) for side in size]
        shape = (1, frames, config.DATA.K, *(spike_size or trunk))
        inputs["voxels"] = torch.rand(shape, generator=random) - 0.5
    elif spike_size is not None:
        raise ProgramError("this model uses no spikes; leave their size out")
    return inputs


def _relative_difference(output: Tensor, expected: Tensor) -> float:
    if output.shape != expected.shape:
        return float("inf")
    spread = (expected.max() - expected.min()).clamp(min=1e-6)
    return float((output - expected).abs().max() / spread)


def _write_pt2(
    program: torch.export.ExportedProgram, names: list[str], facts: dict[str, Any], file: AsideFile
) -> None:
    torch.export.save(program, file, extra_files={FACTS: json.dumps(facts, indent=1)})


def _call_pt2(path: Path, inputs: dict[str, Tensor]) -> Tensor:
    return torch.export.load(path).module()(*inputs.values())


def _write_onnx(
    program: torch.export.ExportedProgram, names: list[str], facts: dict[str, Any], file: AsideFile
) -> None:
    onnx = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=names,
        output_names=[OUTPUT],
        optimize=False,  # onnxruntime does that itself, and sooner
    )
    assert onnx is not None, "given to a file only"
    onnx.model.metadata_props[FACTS] = json.dumps(facts)
    file.write(onnx.model_proto.SerializeToString())


def _call_onnx(path: Path, inputs: dict[str, Tensor]) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it can't fold beforehand is no news
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (output,) = session.run([OUTPUT], {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(output)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn any error of exporters and runtimes into one sentence, and hush their hints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # exporters and runtimes raise of every kind
        reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
        raise ProgramError(
            f"{out}: torch {torch.__version__} can't write this network so ({reason}); use the "
            "run or its .safetensors"
        ) from error
    finally:
        logging.disable(before)
