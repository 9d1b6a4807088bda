"""Restoring of frames in memory: what `import spikedeblur` offers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..frames.images import to_unit
from ..methods.contract import Method, restored_instants
from ..methods.make_method import UNTRAINED, ModelOptions, make_method
from ..sequences.arrays import ArrayError, ArraySequence
from ..weights.find import find_model

if TYPE_CHECKING:
    import torch

    from ..methods.network import ModelMethod

    Arrays = np.ndarray[Any, np.dtype[Any]] | torch.Tensor
    """NumPy arrays, or tensors of any device; what is returned is of the frames' kind."""


class Model:
    """A trained network, ready to restore; `load` makes it."""

    def __init__(self, method: ModelMethod) -> None:
        self._method = method

    def restore(
        self,
        frames: Arrays,
        spikes: Arrays,
        exposures: Arrays | None = None,
        gain: float | None = None,
    ) -> Any:
        """Restore the sharp frames of one recording; see `spikedeblur.restore`."""
        return _restored(self._method, frames, spikes, exposures, gain, self._method.config.DATA.K)


def load(
    source: str | os.PathLike[str] = "small", *, tile: int | None = None, device: str | None = None
) -> Model:
    """Return a trained network, ready to restore.

    Args:
        source: the name of a model that ships, a file that `spikedeblur export` wrote, its URL, or
            a run folder.
        tile: side of the tiles in frame pixels; 0: whole frames; None: what fits in memory.
        device: a torch device; None: the GPU where there is one.

    Raises:
        SpikeDeblurError: there is none, or it is damaged.
    """
    path = Path(source) if Path(source).is_dir() else find_model(source)
    return Model(ModelOptions(tile=tile, device=device).open(path))


def restore(
    frames: Arrays,
    spikes: Arrays,
    exposures: Arrays | None = None,
    gain: float | None = None,
    *,
    method: str = "path",
) -> Any:
    """Restore the sharp frames of one recording without any weights.

    The times of frames and spikes are believed. `spikedeblur align` and `spikedeblur restore`
    measure whether both are of one time.

    Args:
        frames: (N, H, W, 3) blurred frames, RGB, uint8 or uint16, or floating in [0, 1]; neighbours
            in order of time.
        spikes: 0 and 1, upright: a stream (S, h, w), as `read_spikes` returns it, with
            `exposures`; or (N, T, h, w), each exposure's own. Samples and frames beside an
            exposure help to restore it, so a stream is better.
        exposures: (N, 2) integer, the first and last sample of each frame's exposure, both of
            which belong to it.
        gain: spikes a sample at unit luminance; None: as the blurred frames show it.
        method: path, sdm, tfp, tfi or blur.

    Returns:
        (N, H, W, 3), in the frames' type, at the middles of the exposures: an array, or a tensor
        on the frames' device.

    Raises:
        SpikeDeblurError: an array of another shape, type or range; an unknown method.
    """
    if method not in UNTRAINED:
        raise ArrayError(
            f"method: expected {', '.join(UNTRAINED)}, got {method!r}; for a trained model use "
            "spikedeblur.load"
        )
    return _restored(make_method(method), frames, spikes, exposures, gain, None)


def _restored(
    method: Method,
    frames: Any,
    spikes: Any,
    exposures: Any,
    gain: float | None,
    bins: int | None,
) -> Any:
    given = _array(frames)
    windows = ArraySequence(
        given, _array(spikes), None if exposures is None else _array(exposures), gain, bins
    )
    every = [(True,)] * windows.length
    bits: Literal[8, 16] = 8 if windows.frame_dtype == "uint8" else 16
    found = np.stack([f for *_, f in restored_instants(method, windows, (0.0,), every, bits)])
    if np.issubdtype(given.dtype, np.floating):
        found = to_unit(found).astype(given.dtype)
    if isinstance(frames, np.ndarray):
        return found
    import torch

    return torch.from_numpy(found).to(frames.device)


def _array(given: Any) -> np.ndarray[Any, np.dtype[Any]]:
    if isinstance(given, np.ndarray):
        return given
    if hasattr(given, "detach"):
        array: np.ndarray[Any, np.dtype[Any]] = given.detach().cpu().numpy()
        return array
    return np.asarray(given)
