"""Ways to a sharp frame, all behind one contract that `evaluate` and `restore` share.

    blur     the blurred frame itself: what any method must beat
    tfp      luminance from a short window of spikes around the exposure's middle, on 3 channels
    tfi      luminance from the interval between the spikes around the middle, on 3 channels
    sdm      blur times short TFP over exposure TFP: no learning
    path     blur made sharp along the motion that the spikes show: no learning, needs torch
    model    a trained network, on clips of several exposures

Letters in shapes: N windows of a sequence, T windows of a clip, K bins, H and W the frames'
pixels, h and w the spikes'.

The short window of tfp and sdm is as wide as a number of bins, and symmetric in time about the
exposure's middle, which is sample (N_samples - 1) / 2. With an even K the middle lies between
two bins, so a window 1 bin wide takes half of each; bins hold unequal numbers of samples where
K does not divide them, so each counts by its share of the samples, not of the bins.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..errors import SpikeDeblurError
from .metrics import to_uint8, to_uint16
from .spikes import reconstruct, samples_per_bin
from .spikes.camera import luminance
from .store.light import in_light
from .store.sequence import SpikeWindows, WindowSequence, has_spikes
from .tiling import Blender, Tile, plan_tiles

if TYPE_CHECKING:
    from ..configs import Config

Frames = npt.NDArray[np.float32]

METHODS = ("blur", "tfp", "tfi", "sdm", "path", "model")

SHORT_BINS = (1, 3, 5, 7, 9)
"""Widths that `evaluate` chooses from for tfp and sdm."""

DEFAULT_SHORT_BINS = 5
"""Of 32: the best on natural scenes at an exposure of 33 frames."""


class MethodError(SpikeDeblurError):
    """A method can't work on what it is given."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Windows [start, stop) seen together, of which [keep_start, keep_stop) are kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


class Method(Protocol):
    """Turns windows of one sequence into sharp frames."""

    @property
    def name(self) -> str:
        """One of `METHODS`."""

    @property
    def clip_len(self) -> int:
        """Windows that it sees together."""

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the kept windows' frames (T, H, W, 3) float32 RGB, about in [0, 1].

        Raises:
            MethodError: the sequence lacks what the method needs.
        """


def restored_frames(
    method: Method,
    windows: WindowSequence,
    wanted: Callable[[int], bool] = lambda window: True,
    bits: Literal[8, 16] = 8,
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield (window, frame (H, W, 3)) in order; clips with no wanted window are skipped.

    Frames are uint8, or with 16 `bits` uint16; the whole range is light from 0 to 1.
    """
    rounded = to_uint8 if bits == 8 else to_uint16
    for clip in plan_clips(windows.length, method.clip_len):
        kept = range(clip.keep_start, clip.keep_stop)
        if not any(wanted(window) for window in kept):
            continue
        frames = method(windows, clip)
        for window, frame in zip(kept, frames, strict=True):
            if wanted(window):
                yield window, rounded(frame)


def plan_clips(windows: int, clip_len: int) -> list[Clip]:
    """Return overlapping clips that keep each of the windows once.

    Clips advance by half their length, rounded up; the last one ends with the sequence. Of a
    window's results the one is kept in whose clip it lies nearest to the middle, where it has
    neighbours on both sides; of two equally near, the earlier clip's. A sequence shorter than a
    clip is one clip.
    """
    if windows <= clip_len:
        return [Clip(0, windows, 0, windows)]
    last = windows - clip_len
    starts = [*range(0, last, (clip_len + 1) // 2), last]
    # The last of the windows that are at least as near to clip a's middle as to clip b's.
    borders = [(a + b + clip_len - 1) // 2 + 1 for a, b in itertools.pairwise(starts)]
    return [
        Clip(start, start + clip_len, keep_start, keep_stop)
        for start, keep_start, keep_stop in zip(
            starts, [0, *borders], [*borders, windows], strict=True
        )
    ]


class BlurMethod:
    """The blurred frame, untouched."""

    name = "blur"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the blurred frame."""
        return _blurred(windows, clip.start)[None]


class TfpMethod:
    """Texture from playback over a short window, enlarged bilinearly, on three channels."""

    name = "tfp"
    clip_len = 1

    def __init__(self, short_bins: int = DEFAULT_SHORT_BINS) -> None:
        self.short_bins = short_bins

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return luminance on three channels."""
        short, exposure = _rates(windows, clip.start, self.short_bins)
        gain = _gain(windows, clip.start, exposure)
        return _as_rgb(short / gain, windows.frame_shape)


class TfiMethod:
    """Texture from interval at the exposure's middle, enlarged bilinearly, on three channels."""

    name = "tfi"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return luminance on three channels."""
        if not has_spikes(windows):
            raise MethodError(
                f"{windows.seq}: TFI needs the instants of single spikes, and here are only "
                "counts in bins; use tfp, or `spikedeblur restore --method tfi` on the .dat"
            )
        spikes = cast(SpikeWindows, windows).spikes(clip.start)  # (samples, h, w)
        # An even number has its middle between two samples, as has the interval around this one.
        image = reconstruct.tfi(spikes, (len(spikes) - 1) // 2)
        rate = spikes.mean(axis=0, dtype=np.float32)
        return _as_rgb(image / _gain(windows, clip.start, rate), windows.frame_shape)


class SdmMethod:
    """Spike-guided division: blur times short TFP over exposure TFP."""

    name = "sdm"
    clip_len = 1

    def __init__(self, short_bins: int = DEFAULT_SHORT_BINS) -> None:
        self.short_bins = short_bins

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the blurred frame, divided where the spikes say that light moved."""
        short, exposure = _rates(windows, clip.start, self.short_bins)
        gain = _gain(windows, clip.start, exposure)
        blur = _blurred(windows, clip.start)
        return reconstruct.sdm(blur, short / gain, exposure / gain)[None]


class PathMethod:
    """The blurred frame made sharp along the paths of what moves; see `model.motion_deblur`."""

    name = "path"
    clip_len = 1

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the blurred frame, such that along the paths it averages to what was seen."""
        import torch
        import torch.nn.functional as F

        from ..configs.schema import NormConfig
        from ..model.lag import delay
        from ..model.motion_deblur import sharp_along_motion
        from ..model.normalize import normalize_counts

        _require_raw(windows, self.name)
        one = slice(clip.start, clip.start + 1)
        light = in_light(windows).voxels(one.start, one.stop).astype(np.float32)
        late = torch.tensor([round(lag_in_bins(windows, one.start, one.stop))])
        gain = _gains(windows, Clip(one.start, one.stop, one.start, one.stop))
        voxels = normalize_counts(
            delay(torch.from_numpy(light), -late),
            torch.from_numpy(np.array(windows.samples[one])),
            windows.gain if gain is None else torch.tensor(gain),
            NormConfig(MODE="relative"),
        )  # (1, K, h, w)
        height, width = windows.frame_shape
        times = round(height / voxels.shape[-2])
        scale = times if height % times == 0 and width % times == 0 else 1
        size = (height // scale, width // scale)
        if tuple(voxels.shape[-2:]) != size:
            voxels = F.interpolate(voxels, size, mode="bilinear")
        blur = torch.from_numpy(_blurred(windows, clip.start).transpose(2, 0, 1).copy())
        sharp: Frames = sharp_along_motion(blur[None], voxels)[0].permute(0, 2, 3, 1).numpy()
        return sharp  # (1, H, W, 3)


class ModelMethod:
    """A trained network: whole frames, or overlapping tiles blended into whole frames."""

    name = "model"

    def __init__(
        self,
        model: Any,
        config: Config,
        *,
        tile: int | None = None,
        flips: bool = False,
        device: str | None = None,
    ) -> None:
        """Prepare a network for restoring.

        Args:
            model: a `VRTWithSpike`.
            config: what it was trained with.
            tile: side of a tile in frame pixels; 0: whole frames; None: chosen by
                `tile_memory.choose_tile`.
            flips: restore four mirrored copies and take their mean: four times the time, and a
                little nearer to the truth.
            device: a torch device; None: the GPU where there is one.
        """
        import torch

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.config = config
        self.tile = tile
        self.flips = flips
        self.clip_len = config.DATA.CLIP_LEN
        self._model = model.to(self.device).eval()
        self._chosen: dict[tuple[int, int], int | None] = {}

    @classmethod
    def from_run(
        cls,
        run: str | os.PathLike[str],
        *,
        tile: int | None = None,
        flips: bool = False,
        device: str | None = None,
    ) -> ModelMethod:
        """Take the best weights of a run folder, or an exported model.

        Raises:
            SpikeDeblurError: neither, or one without a whole checkpoint.
        """
        from .trained import load_trained

        model, config = load_trained(run)
        return cls(model, config, tile=tile, flips=flips, device=device)

    def tile_side(self, frame_shape: tuple[int, int]) -> int | None:
        """Return the side of the tiles that frames of this shape are cut into; None: whole."""
        if self.tile is not None:
            return self.tile or None
        if frame_shape not in self._chosen:
            import torch

            from .tile_memory import choose_tile

            self._chosen[frame_shape] = choose_tile(
                self._model, self.config, frame_shape, torch.device(self.device)
            )
        return self._chosen[frame_shape]

    def __call__(self, windows: WindowSequence, clip: Clip) -> Frames:
        """Return the kept windows' frames."""
        if windows.bins != self.config.DATA.K:
            raise MethodError(
                f"{windows.seq}: expected voxels of {self.config.DATA.K} bins as in training, "
                f"found {windows.bins}; voxelize with --bins {self.config.DATA.K}"
            )
        tiles = plan_tiles(
            windows.frame_shape,
            windows.voxel_shape,
            self.tile_side(windows.frame_shape),
            multiple=8 * self.config.MODEL.TRUNK_SCALE,
        )
        kept = slice(clip.keep_start - clip.start, clip.keep_stop - clip.start)
        norm = self.config.DATA.NORM
        gains = _gains(windows, clip) if norm.MODE == "relative" else None
        lag = round(lag_in_bins(windows, clip.start, clip.stop)) if norm.CORRECT_LAG else 0
        if len(tiles) == 1:
            return self._restore(windows, clip, gains, lag)[kept]
        blender = Blender(clip.keep_stop - clip.keep_start, windows.frame_shape)
        followed = self._follow(windows, clip, gains, lag)
        for tile in tiles:
            blender.add(tile, self._restore(windows, clip, gains, lag, tile, followed)[kept])
        return blender.result()

    def _restore(
        self,
        windows: WindowSequence,
        clip: Clip,
        gains: list[float] | None,
        lag: int,
        tile: Tile | None = None,
        followed: Any = None,
    ) -> Frames:
        """Return a clip, or one tile of it, as (T, H, W, 3) float32."""
        import torch

        from .memory import explained_shortage

        height, width = windows.frame_shape
        if tile is not None:
            rows, columns = slice(*tile.vertical.span), slice(*tile.horizontal.span)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            followed = None if followed is None else followed[..., rows, columns]
        smaller = max(min(height, width) // 2 // 64 * 64, 64)
        advice = f"give --tile {smaller}, which takes a quarter or less"
        with (
            torch.inference_mode(),
            explained_shortage(f"{windows.seq}: {height}x{width}", advice),
        ):
            given = self._inputs(windows, clip, gains, lag, tile)
            if followed is not None:
                given = (*given, followed)
            out = self._mirrored(*(x[None] for x in given))[0]
            frames: Frames = out.permute(0, 2, 3, 1).float().cpu().numpy()
            return frames  # (T, H, W, 3)

    def _follow(
        self, windows: WindowSequence, clip: Clip, gains: list[float] | None, lag: int
    ) -> Any:
        """Return a clip's motion (T, C, H, W), for all of its tiles; None if the model has none."""
        if not (self.config.MODEL.USE_SPIKE and self.config.MODEL.SPIKE_MOTION):
            return None
        import torch

        followed = []
        with torch.inference_mode():
            for window in range(clip.start, clip.stop):
                one = Clip(window, window + 1, window, window + 1)
                known = None if gains is None else gains[window - clip.start :][:1]
                rgb, voxels = self._inputs(windows, one, known, lag)
                followed.append(self._model.follow(rgb[None], voxels[None])[0, 0])
        return torch.stack(followed)

    def _inputs(
        self,
        windows: WindowSequence,
        clip: Clip,
        gains: list[float] | None,
        lag: int,
        tile: Tile | None = None,
    ) -> tuple[Any, ...]:
        """Return frames (T, 3, H, W) and normalised voxels (T, K, h, w) on the device."""
        import torch

        from ..model.lag import delay

        axes = (tile.vertical, tile.horizontal) if tile else ()
        blur = windows.blur(clip.start, clip.stop, *(axis.span for axis in axes))
        seen = in_light(windows) if self.config.DATA.NORM.MODE == "relative" else windows
        voxels = seen.voxels(clip.start, clip.stop, *(axis.voxel_span for axis in axes))
        rgb = torch.from_numpy(np.ascontiguousarray(blur)).to(self.device)
        rgb = rgb.permute(0, 3, 1, 2).to(torch.float32).div_(255)  # (T, 3, H, W)
        # float32 holds counts exactly, and torch has few operations on uint16.
        counts = torch.from_numpy(voxels.astype(np.float32)).to(self.device)
        if lag:
            counts = delay(counts, torch.full((len(counts),), -lag, device=self.device))
        return rgb, self._normalized(counts, windows, clip, gains)

    def _mirrored(self, *given: Any) -> Any:
        """Return what the network makes of a clip, or the mean over its mirrored copies."""
        if not self.flips:
            return self._model(*given)
        mirrors: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)]
        flipped = (self._model(*(x.flip(m) for x in given)).flip(m) for m in mirrors)
        return sum(flipped) / len(mirrors)

    def _normalized(
        self, counts: Any, windows: WindowSequence, clip: Clip, gains: list[float] | None
    ) -> Any:
        norm = self.config.DATA.NORM
        if windows.windows_are_raw:
            import torch

            from ..model.normalize import normalize_counts

            samples = torch.from_numpy(np.array(windows.samples[clip.start : clip.stop]))
            gain = windows.gain if gains is None else torch.tensor(gains, device=self.device)
            return normalize_counts(counts, samples.to(self.device), gain, norm)
        if norm.MODE != "log1p" or norm.MEAN not in (None, 0.0) or norm.STD not in (None, 1.0):
            raise MethodError(
                f"{windows.seq}: these voxels have log1p done, and the model was trained on "
                f"counts normalised by {norm.MODE}; count the spikes anew with `voxelize`"
            )
        return counts


def lag_in_bins(windows: WindowSequence, start: int, stop: int) -> float:
    """Return by how many bins the spikes of some windows come late, as their blurred frames tell.

    0 where nothing tells it; less than 0: early.
    """
    if not windows.windows_are_raw:
        return 0.0
    import torch

    from ..model.lag import lag_of_planes, lag_planes

    planes = []
    for window in range(start, stop):  # one by one: memory does not grow with their number
        counts = torch.from_numpy(windows.voxels(window, window + 1).astype(np.float32))
        blur = windows.blur(window, window + 1).transpose(0, 3, 1, 2) / np.float32(255)
        planes.append(lag_planes(counts, torch.from_numpy(blur)))
    return lag_of_planes(torch.cat(planes, -1)).item() * windows.bins


def centre_weights(samples: int, bins: int, short_bins: int) -> npt.NDArray[np.float64]:
    """Return what share of each bin's samples lies in the short window around the middle.

    Sample j of N covers [j, j + 1), so the middle is at N / 2, and the window reaches
    `short_bins` N / K / 2 to each side of it.

    Args:
        samples: N, in the exposure.
        bins: K.
        short_bins: width of the window in mean bins; at most K.

    Returns:
        (K,) float64 in [0, 1]; zero outside the window.

    Raises:
        MethodError: a width below 1 or above K.
    """
    if not 1 <= short_bins <= bins:
        raise MethodError(f"expected a short window of 1 to {bins} bins, got {short_bins}")
    per_bin = samples_per_bin(samples, bins)
    stops = np.cumsum(per_bin).astype(np.float64)
    reach = short_bins * samples / bins / 2
    inside = np.minimum(stops, samples / 2 + reach) - np.maximum(
        stops - per_bin, samples / 2 - reach
    )
    return np.asarray(np.clip(inside, 0.0, None) / per_bin, np.float64)


def _rates(windows: WindowSequence, window: int, short_bins: int) -> tuple[Frames, Frames]:
    """Return spikes a sample (h, w) in the short window and in the whole exposure."""
    _require_raw(windows, "tfp and sdm")
    counts = windows.voxels(window, window + 1)[0]  # (K, h, w)
    samples = int(windows.samples[window])
    weights = centre_weights(samples, windows.bins, short_bins)
    inside = np.flatnonzero(weights)
    in_short = np.tensordot(weights[inside].astype(np.float32), counts[inside], axes=1)
    short = in_short / np.float32(weights @ samples_per_bin(samples, windows.bins))
    exposure = counts.sum(axis=0, dtype=np.uint32) / np.float32(samples)
    return short.astype(np.float32), exposure.astype(np.float32)


def _require_raw(windows: WindowSequence, names: str) -> None:
    if not windows.windows_are_raw:
        raise MethodError(
            f"{windows.seq}: {names} need raw counts, and these voxels have log1p done; "
            "count the spikes anew with `voxelize`, or evaluate blur and model only"
        )


def _gains(windows: WindowSequence, clip: Clip) -> list[float] | None:
    """Return each window's gain as its whole blurred frame shows it; None: it is known.

    All tiles of a frame get the same.
    """
    if windows.gain is not None or not windows.windows_are_raw:
        return None
    gains = []
    for window in range(clip.start, clip.stop):
        rate = windows.voxels(window, window + 1)[0].sum(axis=0, dtype=np.uint32)
        gains.append(float(_gain(windows, window, rate / np.float32(windows.samples[window]))))
    return gains


def _gain(windows: WindowSequence, window: int, rate: Frames) -> np.float32:
    """Return spikes a sample at unit luminance; where unknown, as the blurred frame shows it.

    Over the exposure, spikes and blurred frame saw the same light, so the gain is the mean rate
    over the mean luminance.
    """
    if windows.gain is not None:
        return np.float32(windows.gain)
    light = float(luminance(windows.blur(window, window + 1)).mean())
    spikes = float(rate.mean())
    return np.float32(spikes / light if spikes > 0 and light > 0 else 1.0)


def _blurred(windows: WindowSequence, window: int) -> Frames:
    return np.asarray(windows.blur(window, window + 1)[0] / np.float32(255), np.float32)


def _as_rgb(image: Frames, shape: tuple[int, int]) -> Frames:
    """Return luminance (h, w), enlarged bilinearly, as (1, H, W, 3)."""
    large = reconstruct.enlarge(np.asarray(image, np.float32), shape)
    return np.repeat(large[None, ..., None], 3, axis=-1)
