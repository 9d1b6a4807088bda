"""Restoring of frames in memory: what `import spikedeblur` offers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..frames.images import to_unit
from ..methods.contract import Method, restored_instants
from ..methods.make_method import UNTRAINED, ModelOptions, make_method
from ..methods.tfp_tfi_sdm import DEFAULT_SHORT_BINS
from ..sequences.arrays import ArrayError, ArraySequence
from ..sequences.linear_frames import FrameCurve, frame_curve_of, with_linear_frames
from ..sequences.recording import MOST_BINS
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
        *,
        curve: FrameCurve | None = None,
    ) -> Any:
        """Restore the sharp frames of one recording; see `spikedeblur.restore`."""
        method = self._method
        bins = method.config.DATA.K
        return _restored(lambda _: method, frames, spikes, exposures, gain, bins, curve)


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
        SpikeDeblurError: there is none, or it is damaged; or a tile below 0.
    """
    if tile is not None and tile < 0:
        raise ArrayError(f"tile: expected a side in pixels, 0 or None, got {tile}")
    path = Path(source) if Path(source).is_dir() else find_model(source)
    return Model(ModelOptions(tile=tile, device=device).open(path))


def restore(
    frames: Arrays,
    spikes: Arrays,
    exposures: Arrays | None = None,
    gain: float | None = None,
    *,
    method: str = "path",
    curve: FrameCurve | None = None,
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
        curve: what the frames' numbers are: srgb, which are decoded for all work and encoded again,
            or linear; None: as the spikes tell.

    Returns:
        (N, H, W, 3), in the frames' type, at the middles of the exposures: an array, or a tensor
        on the frames' device.

    Raises:
        SpikeDeblurError: an array of another shape, type or range; an unknown method.
    """
    if method not in tuple(UNTRAINED):
        raise ArrayError(
            f"method: expected {', '.join(UNTRAINED)}, got {method!r}; for a trained model use "
            "spikedeblur.load"
        )

    def method_for(bins: int) -> Method:
        return make_method(method, min(DEFAULT_SHORT_BINS, bins))

    return _restored(method_for, frames, spikes, exposures, gain, None, curve)


def _restored(
    method_for: Callable[[int], Method],
    frames: Any,
    spikes: Any,
    exposures: Any,
    gain: float | None,
    bins: int | None,
    curve: FrameCurve | None,
) -> Any:
    """Restore as the command does; `method_for` makes the method for a number of bins."""
    given, fired = _array("frames", frames), _array("spikes", spikes)
    times = None if exposures is None else _array("exposures", exposures)
    whole = ArraySequence(given, fired, times, gain, bins)
    curve = frame_curve_of(whole) if curve is None else curve
    found = np.empty((whole.length, *whole.frame_shape, 3), whole.frame_dtype)
    bits: Literal[8, 16] = 8 if whole.frame_dtype == "uint8" else 16
    for group in _alike(whole) if bins is None else [list(range(whole.length))]:
        part = whole
        if len(group) < whole.length:
            part = ArraySequence(given[group], fired, None if times is None else times[group], gain)
        (windows,) = with_linear_frames([part], curve)
        every = [(True,)] * windows.length
        for i, _, frame in restored_instants(
            method_for(windows.bins), windows, (0.0,), every, bits
        ):
            found[group[i]] = frame
    if np.issubdtype(given.dtype, np.floating):
        found = to_unit(found).astype(given.dtype)
    if not _is_tensor(frames):
        return found
    import torch

    return torch.from_numpy(found).to(frames.device, frames.dtype)


def _alike(windows: ArraySequence) -> list[list[int]]:
    """Return indices of exposures, those that have the same number of bins together."""
    groups: dict[int, list[int]] = {}
    for i, samples in enumerate(windows.samples):
        groups.setdefault(min(MOST_BINS, int(samples)), []).append(i)
    return list(groups.values())


def _array(name: str, given: Any) -> np.ndarray[Any, np.dtype[Any]]:
    if isinstance(given, np.ndarray):
        return given
    try:
        if _is_tensor(given):
            tensor = given.detach().cpu()
            # NumPy has no bfloat16.
            return np.asarray(tensor.float() if tensor.is_floating_point() else tensor)
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArrayError(
            f"{name}: expected a NumPy array or a dense tensor, found a {type(given).__name__} "
            "that can't become one; stack equal parts by numpy.stack"
        ) from error


def _is_tensor(given: Any) -> bool:
    return hasattr(given, "detach")
