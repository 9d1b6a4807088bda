"""Loading weights into a VRT: published checkpoints, bare state dicts, safetensors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import SpikeDeblurError
from .torch_file import load_torch_file

NAMED = 5
"""Most names that an error lists, of possibly a thousand."""


class WeightsError(SpikeDeblurError):
    """A weights file is missing, unreadable, or does not fit the model."""


def load_pretrained(
    model: nn.Module, path: str | Path, strict: bool = True
) -> tuple[list[str], list[str]]:
    """Load a weights file into `model`, in place.

    Args:
        model: A VRT, or any module whose state-dict names the file has.
        path: `.safetensors`, or a torch file with the state dict under `params` (the published
            checkpoints) or bare. Pickled code is never run.
        strict: Whether every name must be on both sides. A shape must fit in any case.

    Returns:
        The model's names that the file lacks, and the file's names that the model lacks; both
        empty if strict.

    Raises:
        WeightsError: No such file, no weights in it, or names or shapes that do not fit. The
            model is unchanged then.
    """
    path = Path(path)
    weights = _read(path)
    state = model.state_dict()
    missing = [name for name in state if name not in weights]
    unexpected = [name for name in weights if name not in state]
    if strict and (missing or unexpected):
        raise WeightsError(
            f"{path}: expected the model's {len(state)} names, found {len(weights)}; "
            f"missing: {_some(missing)}; unexpected: {_some(unexpected)}. Check that model and "
            "weights have the same configuration, or load with strict=False"
        )
    if len(missing) == len(state):
        raise WeightsError(f"{path}: none of its {len(weights)} names is one of the model's")
    unfit = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in state.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if unfit:
        raise WeightsError(
            f"{path}: {len(unfit)} shapes differ from the model's: {_some(unfit)}. "
            "Check that model and weights have the same configuration"
        )
    model.load_state_dict(weights, strict=strict)
    return missing, unexpected


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: expected a weights file, found none; check the path")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path}: not a safetensors file ({error})") from error
    try:
        content = load_torch_file(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused, because it holds more than tensors or is no torch file; loading "
            "it could run code. Save its state dict alone, as a torch or safetensors file"
        ) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        OSError,
    ) as error:
        raise WeightsError(f"{path}: not a readable torch file ({error})") from error
    if isinstance(content, Mapping) and isinstance(content.get("params"), Mapping):
        content = content["params"]
    if not (
        isinstance(content, Mapping)
        and content
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise WeightsError(
            f"{path}: expected a state dict (names and tensors), bare or under the key 'params', "
            f"found {_described(content)}"
        )
    return dict(content)


def _described(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with the keys {_some([str(key) for key in content])}"
    return f"an object of type {type(content).__name__}"


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
