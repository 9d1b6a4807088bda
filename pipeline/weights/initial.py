"""Weights that a run starts from: any form of them read, compared with the network, and loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...configs.schema import Config
from ...errors import SpikeDeblurError
from ...model.motion_deblur import BASE
from ...third_party.VRT import plain_state_dict, read_state_dict
from ..host.files import sha256_file
from ..host.reporter import counted
from .base import base_of
from .checkpoint import (
    CHECKPOINT,
    best_weights,
    checked_state,
    checkpoint_config,
    forms_of,
    read_torch_file,
    require_own,
)
from .exported import SUFFIX, describe_model, is_exported, read_exported
from .files import FOLDER
from .find import Init, find_initial, source_name
from .network import network_differences

_NAMED = 6
"""Most names that a message lists, of possibly a thousand."""


class InitError(SpikeDeblurError):
    """Weights are not those of the run's network; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundWeights:
    """Weights by their plain names, and what their file says about them."""

    path: Path
    weights: dict[str, Tensor]
    config: Config | None = None
    """Configuration that they were trained with; None: the file has none."""
    base: int | None = None
    """Version of the base that they were trained on; None: the file does not say."""
    notes: tuple[str, ...] = ()
    """What was done to find them, such as which of two keys was taken."""


def read_weights(source: str | os.PathLike[str]) -> FoundWeights:
    """Read weights in any form; code in a file is never run.

    Args:
        source: as for `Init`.

    Raises:
        SpikeDeblurError: there are none, or they can't be read; the message says why.
    """
    path = find_initial(source)
    if path.suffix == SUFFIX:
        if is_exported(path):
            weights, config = read_exported(path)
            base = base_of(describe_model(path))
            return FoundWeights(path=path, weights=weights, config=config, base=base)
        weights, notes = read_state_dict(path)
        return FoundWeights(path=path, weights=weights, notes=notes)
    content = read_torch_file(path)
    if not CHECKPOINT.heads(content):
        weights, notes = plain_state_dict(content, path)
        return FoundWeights(path=path, weights=weights, notes=notes)
    state = checked_state(content, path)
    if path.parent.name == FOLDER:
        require_own(state, path)
    weights = best_weights(state)
    forms_of(weights, path)
    return FoundWeights(
        path=path,
        weights=weights,
        config=checkpoint_config(state, path),
        base=base_of(state),
        notes=() if state["ema"] is None else ("its averaged weights are taken",),
    )


def start_from(
    init: Init, model: nn.Module, config: Config, note: Callable[[str], object]
) -> dict[str, Any]:
    """Load weights into the network of a run that begins.

    Args:
        init: which weights.
        model: network of the configuration.
        config: the run's configuration.
        note: hears what was done to find the weights, and what is left out.

    Returns:
        What `environment.json` tells of them: name, SHA-256 of their file, and names left out.

    Raises:
        InitError: network, K or normalisation differ from those in the file, or names or shapes
            from the network's; or the configuration names weights too.
    """
    name = source_name(init.source)
    if config.MODEL.PRETRAINED is not None:
        raise InitError(
            f"--init: {name}: MODEL.PRETRAINED names weights too ({config.MODEL.PRETRAINED}); "
            "leave --init out, or set MODEL.PRETRAINED=null"
        )
    found = read_weights(init.source)
    differ = [] if found.config is None else network_differences(found.config, config)
    if differ and not init.partial:
        raise InitError(
            f"--init: {name}: its network is not the configuration's: {'; '.join(differ)}. Set "
            "these keys to the values there (--set KEY=VALUE), or take what fits with "
            "--init-partial"
        )
    expected = model.state_dict()
    fitting = {n: v for n, v in found.weights.items() if n in expected and _fit(v, expected[n])}
    unused = sorted(found.weights.keys() - fitting)
    lacking = sorted(expected.keys() - fitting)
    if not fitting or ((unused or lacking) and not init.partial):
        raise InitError(_why_unfit(name, found.weights, expected, unused, lacking))
    for weight, value in fitting.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InitError(f"--init: {name}: {weight} is not finite; take other weights")
    model.load_state_dict(fitting, strict=False)
    for done in (*found.notes, *_notes(found, fitting, expected, config, differ)):
        note(f"--init: {name}: {done}")
    if unused:
        note(f"--init: {name}: {counted(len(unused), 'weight')} left out: {_some(unused)}")
    if lacking:
        note(f"--init: {name}: {counted(len(lacking), 'weight')} to begin anew: {_some(lacking)}")
    return {
        "name": name,
        "sha256": sha256_file(found.path),
        "left_out": unused,
        "begun_anew": lacking,
    }


def _fit(value: Tensor, expected: Tensor) -> bool:
    kinds = value.dtype == expected.dtype or (
        value.is_floating_point() and expected.is_floating_point()
    )
    return kinds and value.shape == expected.shape


def _notes(
    found: FoundWeights,
    fitting: dict[str, Tensor],
    expected: dict[str, Tensor],
    config: Config,
    differ: list[str],
) -> list[str]:
    notes = []
    other = {v.dtype for n, v in fitting.items() if v.dtype != expected[n].dtype}
    if other:
        kinds = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in other))
        notes.append(f"weights in {kinds} are taken as float32")
    if differ:
        notes.append(f"its configuration differs: {'; '.join(differ)}")
    on_base = config.MODEL.USE_SPIKE and config.MODEL.SPIKE_MOTION
    if on_base and found.base not in (None, BASE):
        notes.append(f"it was trained on base {found.base}; this run trains on base {BASE}")
    return notes


def _why_unfit(
    name: str,
    weights: dict[str, Tensor],
    expected: dict[str, Tensor],
    unused: list[str],
    lacking: list[str],
) -> str:
    if not (weights.keys() & expected.keys()):
        if any(f"vrt.{n}" in expected for n in weights):
            return (
                f"--init: {name}: holds the published network alone, without a spike branch; give "
                "it as MODEL.PRETRAINED"
            )
        return (
            f"--init: {name}: none of its {len(weights)} names is one of the network's "
            f"({_some(sorted(weights))}; expected {_some(sorted(expected))}); take weights of this "
            "network"
        )
    shapes = [
        f"{n} {tuple(weights[n].shape)} there, {tuple(expected[n].shape)} here"
        for n in lacking
        if n in weights
    ]
    missing = [n for n in lacking if n not in weights]
    unknown = [n for n in unused if n not in expected]
    return (
        f"--init: {name}: its weights are not the network's: of another form: {_some(shapes)}; "
        f"missing: {_some(missing)}; unknown: {_some(unknown)}. Use the configuration that they "
        "were trained with, or take what fits with --init-partial"
    )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _NAMED
    return (", ".join(names[:_NAMED]) or "none") + (f" and {rest} more" if rest > 0 else "")
