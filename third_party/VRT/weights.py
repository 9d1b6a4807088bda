"""Loading weights into a VRT: published checkpoints, bare state dicts, safetensors."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...errors import SpikeDeblurError
from .torch_file import load_torch_file

NAMED = 5
"""Most names that an error lists, of possibly a thousand."""

HOLDERS = ("params_ema", "params", "state_dict")
"""Keys under which files hold a state dict; averaged weights are taken before the others."""

WRAPPER, COMPILED = "module.", "_orig_mod."
"""Words that names get from DistributedDataParallel and AveragedModel, and from torch.compile."""

_logger = logging.getLogger(__name__)


class WeightsError(SpikeDeblurError):
    """A weights file is missing, unreadable, or does not fit the model."""


class StateDict(NamedTuple):
    """Weights by their plain names, and what was done to find them."""

    weights: dict[str, Tensor]
    notes: tuple[str, ...]
    """Half sentences, such as which of two keys was taken."""


def load_pretrained(
    model: nn.Module,
    path: str | Path,
    strict: bool = True,
    *,
    note: Callable[[str], object] = _logger.info,
) -> tuple[list[str], list[str]]:
    """Load a weights file into `model`, in place.

    Args:
        model: A VRT, or any module whose state-dict names the file has.
        path: As for `read_state_dict`.
        strict: Whether every name must be on both sides. A shape must fit in any case.
        note: Hears what was done to find the weights.

    Returns:
        The model's names that the file lacks, and the file's names that the model lacks; both
        empty if strict.

    Raises:
        WeightsError: No such file, no weights in it, or names or shapes that do not fit. The
            model is unchanged then.
    """
    path = Path(path)
    weights, notes = read_state_dict(path)
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
        raise WeightsError(
            f"{path}: none of its {len(weights)} names is one of the model's; check that it is of "
            "this network"
        )
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
    for done in notes:
        note(f"{path}: {done}")
    return missing, unexpected


def read_state_dict(path: str | Path) -> StateDict:
    """Read a file of weights; pickled code is never run.

    Args:
        path: `.safetensors`, or a torch file with a state dict, bare or under one of `HOLDERS`.
            Names may begin with `WRAPPER`, and have `COMPILED` in them.

    Raises:
        WeightsError: No such file, or no weights in it.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: expected a weights file, found none; check the path")
    if path.suffix == ".safetensors":
        try:
            return plain_state_dict(load_file(path), path)
        except SafetensorError as error:
            raise WeightsError(f"{path}: not a safetensors file ({error}); get it anew") from error
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
    return plain_state_dict(content, path)


def plain_state_dict(content: object, path: str | Path) -> StateDict:
    """Return the state dict in a file's content, bare or under one of `HOLDERS`.

    Args:
        content: What the file holds.
        path: The file, for the message.

    Raises:
        WeightsError: There is none.
    """
    notes = []
    if isinstance(content, Mapping):
        held = [key for key in HOLDERS if isinstance(content.get(key), Mapping)]
        if held:
            content = content[held[0]]
            beside = f", not {' or '.join(held[1:])}" if held[1:] else ""
            if held != ["params"]:  # the published form
                notes.append(f"the weights under {held[0]} are taken{beside}")
    if not (
        isinstance(content, Mapping)
        and content
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise WeightsError(
            f"{path}: expected a state dict (names and tensors), bare or under one of the keys "
            f"{', '.join(HOLDERS)}, found {_described(content)}. Weights of a whole model that "
            "spikedeblur wrote go to `train --init`"
        )
    weights = dict(content)
    if any(COMPILED in name for name in weights):
        weights = {name.replace(COMPILED, ""): value for name, value in weights.items()}
        notes.append(f"{COMPILED} is left out of the names")
    counted = {"n_averaged"} if "n_averaged" in weights else set()  # AveragedModel's own
    if all(name.startswith(WRAPPER) for name in weights.keys() - counted):
        weights = {n.removeprefix(WRAPPER): v for n, v in weights.items() if n not in counted}
        notes.append(f"{WRAPPER} is left out of the names")
    if len(weights) < len(content) - len(counted):
        raise WeightsError(f"{path}: names are there twice, with and without {COMPILED}")
    return StateDict(weights, tuple(notes))


def _described(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with the keys {_some([str(key) for key in content])}"
    return f"an object of type {type(content).__name__}"


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
