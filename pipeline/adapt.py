"""The adapt stage: fit a trained model to recordings that have no sharp frames.

What a recording says of its own sharp frames, at M instants spread over each exposure:

    reblur    their mean is the blurred frame
    light     their luminance at a spike pixel is, but for noise, what a short window of its spikes
              around the instant saw. The network must say so without this pixel's spikes, whose
              noise it would repeat (Krull, Buchholz, Jug, "Noise2Void", CVPR 2019): they are
              hidden behind a neighbour's

How spikes become luminance is fitted on the exposures, of which the blurred frame shows the
luminance; whether the model takes that curve or the gain, and how far it trusts the spikes, is what
fulfils both terms best before the first step; so is by how much the network corrects at first.
Both go into the model's DATA.NORM.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs.schema import Config, NormConfig
from ..errors import SpikeDeblurError
from ..model import CharbonnierLoss, VRTWithSpike, normalize_counts
from .files import sha256_file
from .methods import centre_weights
from .progress import Progress
from .recording import Recording, RecordingSequence
from .spikes import samples_per_bin
from .spikes.camera import LUMINANCE
from .torch_methods import lag_in_bins
from .trained import load_trained, require_free, weights_file, write_model
from .training.ema import averaged_copy, update_average
from .training.splits import seen_by

INSTANTS = 4
"""Sharp frames that make an exposure. More cost as much again, and their motion is smaller."""

LIGHT_WEIGHT = 3.0
"""Of the light term beside reblur."""

LIGHT_DELTA = 0.3
"""Luminance up to which the light term is quadratic: what it compares with is noisy."""

HIDDEN = 0.25
"""Of the spike pixels of a crop."""

SMOOTH = 3
"""Side of the square of spike pixels over which the curve is fitted."""

TRUSTS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12)
"""Tried before the first step."""

TRIALS = 8
"""Clips that each is tried on."""

HALVINGS = 4
"""At most, of what a network that the camera misleads adds to its base."""

DEGREE = 3
"""Of the polynomial that turns spikes a sample to luminance."""

LAG_EXPOSURES = 16
"""That a recording's lag is measured on."""

DECAY = 0.98
"""Of the averaged weights, a step."""


Curve = tuple[float, ...]
"""Luminance as a polynomial of spikes a sample, highest power first."""


class AdaptError(SpikeDeblurError):
    """The recordings can't be adapted to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptSummary:
    """What a run did."""

    out: str
    steps: int
    recordings: int
    exposures: int
    loss_before: float
    """Of the model as it was, on a few clips."""
    loss_after: float
    """Of the adapted one, on the same clips."""


def adapt(
    source: str | os.PathLike[str],
    recordings: Sequence[Recording],
    out: str | os.PathLike[str],
    *,
    steps: int = 300,
    rate: float = 1e-3,
    crop: int = 64,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> AdaptSummary:
    """Write a model that is fitted to recordings, starting from a trained one.

    Args:
        source: a run folder or an exported model.
        recordings: of one camera; blurred frames and spikes.
        out: file to write, `*.safetensors`.
        steps: of AdamW, each on one clip.
        rate: the first learning rate; it falls to 0 as a cosine.
        crop: side of the crops in pixels; a multiple of 8 times the trunk's scale.
        seed: of clips and crops.
        device: a torch device; None: the GPU where there is one.
        overwrite: replace a file that is there.
        on_progress: told after each step.

    Raises:
        SpikeDeblurError: a recording, the model or `out` can't be used.
    """
    require_free(out, overwrite=overwrite)
    model, config = load_trained(source)
    if steps < 1 or crop < 1 or crop % (8 * config.MODEL.TRUNK_SCALE):
        raise AdaptError(
            f"expected at least 1 step and a crop of a multiple of {8 * config.MODEL.TRUNK_SCALE} "
            f"pixels, got {steps} and {crop}"
        )
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(where)
    cameras = [_Camera(recording, config.DATA.K, config.DATA.NORM) for recording in recordings]
    curve = _fit(cameras)

    def loss_of(network: nn.Module, random: np.random.Generator, norm: NormConfig) -> Tensor:
        """Return the loss of a random clip."""
        camera = cameras[random.integers(len(cameras))]
        clip = camera.clip(random, config.DATA.CLIP_LEN, crop, curve)
        hidden = random.random(clip.light.shape[-2:]) < HIDDEN
        counts = torch.from_numpy(hide(clip.counts, hidden, random)).to(where)
        samples = torch.from_numpy(clip.samples)
        voxels = normalize_counts(counts, samples, camera.gain, norm)
        restored = network(torch.from_numpy(clip.blur).to(where), voxels).float()
        return _loss(restored, clip, hidden, where)

    def trial(network: nn.Module, norm: NormConfig) -> float:
        """Return the mean loss of clips that are always the same."""
        random = np.random.default_rng(seed)
        with torch.inference_mode():
            losses = [loss_of(network, random, norm).item() for _ in range(TRIALS)]
        return float(np.mean(losses))

    least = before = trial(model, config.DATA.NORM)
    if config.DATA.NORM.MODE == "relative":
        tried: list[tuple[float, Config]] = []
        for of_camera, trust in itertools.product((curve, None), TRUSTS):
            fitted = for_camera(config, of_camera, trust)
            model.spike_trust = trust
            tried.append((trial(model, fitted.DATA.NORM), fitted))
        least, config = min(tried, key=lambda one: one[0])
        model.spike_trust = config.DATA.NORM.TRUST
        least = _shrink_correction(model, lambda: trial(model, config.DATA.NORM), least)
    fitted_only = averaged_copy(model)
    model.train()
    average = averaged_copy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for step in range(steps):
        for settings in optimizer.param_groups:
            settings["lr"] = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        loss = loss_of(model, rng, config.DATA.NORM)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, min(DECAY, (1 + step) / (10 + step)))
        if not loss.isfinite():
            raise AdaptError(f"step {step + 1}: the loss is not finite; lower --learning-rate")
        if on_progress is not None:
            on_progress(step + 1, steps, f"loss {loss.item():.4f}")
    after = trial(average, config.DATA.NORM)
    if not after < least:  # trained away from what the fit had found, or to no number
        average, after = fitted_only, least
    summary = AdaptSummary(
        out=str(out),
        steps=steps,
        recordings=len(cameras),
        exposures=sum(len(recording.exposures) for recording in recordings),
        loss_before=before,
        loss_after=after,
    )
    facts = {
        "adapted_from_sha256": sha256_file(weights_file(source)),
        "adapted_to_sha256": [sha256_file(recording.dat) for recording in recordings],
        "adapt": {"steps": steps, "rate": rate, "crop": crop, "seed": seed},
    }
    write_model(out, average, config, facts, overwrite=overwrite)
    return summary


@dataclass(frozen=True, slots=True)
class _Clip:
    """A crop of T exposures, at M instants of each."""

    blur: npt.NDArray[np.float32]
    """(M, T, 3, S, S): of the window around each instant."""
    counts: npt.NDArray[Any]
    """(M, T, K, s, s) float32; light, where the model is given light."""
    samples: npt.NDArray[np.int64]
    """(M, T)."""
    exposed: npt.NDArray[np.float32]
    """(T, 3, S, S): the frames as they are."""
    light: npt.NDArray[np.float32]
    """(M, T, s, s): luminance that a short window around each instant saw."""


class _Camera:
    """A recording's windows around M instants, and how its spikes become luminance."""

    def __init__(self, recording: Recording, bins: int, norm: NormConfig) -> None:
        instants = [(m + 0.5) / INSTANTS - 0.5 for m in range(INSTANTS)]
        arguments = (recording.seq, recording.exposures, recording.dat, recording.settings, bins)
        self._own = RecordingSequence(*arguments)
        self._around = seen_by(norm, [RecordingSequence(*arguments, at=at) for at in instants])
        self.gain = recording.settings.gain
        self._bins = bins
        self._in_time = np.arange(bins)
        if norm.CORRECT_LAG:
            lag = round(lag_in_bins(self._own, 0, min(self._own.length, LAG_EXPOSURES)))
            self._in_time = (self._in_time + lag).clip(0, bins - 1)
        rows, columns = (
            f // v for f, v in zip(self._own.frame_shape, self._own.voxel_shape, strict=True)
        )
        if rows != columns or (
            (rows * self._own.voxel_shape[0], columns * self._own.voxel_shape[1])
            != self._own.frame_shape
        ):
            raise AdaptError(
                f"{recording.dat}: expected frames a whole number of times as large as the spikes' "
                f"{self._own.voxel_shape}, got {self._own.frame_shape}; resize the frames"
            )
        self._ratio = rows

    def clip(self, rng: np.random.Generator, length: int, crop: int, curve: Curve) -> _Clip:
        """Return a random clip and crop; smaller where the recording is."""
        length = min(length, self._own.length)
        start = int(rng.integers(self._own.length - length + 1))
        side = crop // self._ratio
        spans = []
        for extent in self._own.voxel_shape:
            own = min(side, extent)
            first = int(rng.integers(extent - own + 1))
            spans.append((first, first + own))
        large = [(first * self._ratio, last * self._ratio) for first, last in spans]
        part = (start, start + length)
        counts = np.stack([around.voxels(*part, *spans) for around in self._around])
        counts = counts.astype(np.float32)[:, :, self._in_time]
        samples = np.stack([around.samples[slice(*part)] for around in self._around])
        return _Clip(
            blur=np.stack([_floats(around.blur(*part, *large)) for around in self._around]),
            counts=counts,
            samples=samples,
            exposed=_floats(self._own.blur(*part, *large)),
            light=self._light(counts, samples, curve),
        )

    def _light(
        self, counts: npt.NDArray[Any], samples: npt.NDArray[np.int64], curve: Curve
    ) -> npt.NDArray[np.float32]:
        """(M, T, K, s, s) -> (M, T, s, s): luminance in the instant's share of the time.

        The curve's slope at the exposure's rate: of few spikes the curve itself would be biased.
        """
        rate = counts.sum(2) / samples[..., None, None]
        change = self._short_rate(counts, samples) - rate
        slope = np.polyval(np.polyder(np.poly1d(curve)), rate).clip(0)
        return np.asarray(np.polyval(curve, rate) + slope * change, np.float32)

    def _short_rate(
        self, counts: npt.NDArray[Any], samples: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """(M, T, K, s, s) -> (M, T, s, s): spikes a sample in the instant's share of the time."""
        rates = np.empty((*counts.shape[:2], *counts.shape[3:]))
        for m, of_instant in enumerate(samples):
            for t, number in enumerate(of_instant):
                own = self._own.samples[t]  # a shorter window holds more of the instant's share
                bins = min(self._bins, max(1, round(self._bins * own / INSTANTS / number)))
                weights = centre_weights(int(number), self._bins, bins)
                seen = weights @ samples_per_bin(int(number), self._bins)
                rates[m, t] = np.tensordot(weights, counts[m, t], axes=1) / seen
        return rates

    def seen(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return spikes a sample and luminance of all exposures, smoothed; both (n,)."""
        rates, lights = [], []
        for i in range(self._own.length):
            counts = self._own.voxels(i, i + 1)[0]
            rates.append(_smooth(counts.sum(0) / self._own.samples[i]).ravel())
            light = _floats(self._own.blur(i, i + 1))[0].transpose(1, 2, 0) @ np.array(LUMINANCE)
            height, width = self._own.voxel_shape
            parts = light.reshape(height, self._ratio, width, self._ratio)
            lights.append(_smooth(parts.mean((1, 3))).ravel())
        return np.concatenate(rates), np.concatenate(lights)


def _fit(cameras: Sequence[_Camera]) -> Curve:
    """Fit luminance to the spikes' rate: coefficients of a polynomial, highest power first."""
    pairs = [camera.seen() for camera in cameras]
    rate, light = (np.concatenate(values) for values in zip(*pairs, strict=True))
    degree = DEGREE if rate.std() > 1e-6 else 0
    return tuple(float(c) for c in np.polyfit(rate, light, degree))


def _shrink_correction(model: VRTWithSpike, trial: Callable[[], float], least: float) -> float:
    """Halve what the network adds to its base as often as that lowers a trial's loss; return it."""
    for _ in range(HALVINGS):
        whole = [parameter.detach().clone() for parameter in model.vrt.conv_last.parameters()]
        _set(model.vrt.conv_last, [0.5 * parameter for parameter in whole])
        loss = trial()
        if loss >= least:
            _set(model.vrt.conv_last, whole)
            return least
        least = loss
    return least


def _set(module: nn.Module, values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)


def for_camera(config: Config, curve: Curve | None, trust: float) -> Config:
    """Return a model's configuration for the camera whose spikes this curve turns to light.

    None: light is spikes over the gain. In the dark a curve is steep, and makes much of noise.
    """
    change = {"CURVE": curve if curve and len(curve) > 1 else None, "TRUST": trust}
    norm = config.DATA.NORM.model_copy(update=change)
    return config.model_copy(update={"DATA": config.DATA.model_copy(update={"NORM": norm})})


def hide(
    counts: npt.NDArray[Any], hidden: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Return counts (..., h, w) with hidden pixels (h, w) behind a neighbour's, drawn for each."""
    rows, columns = np.nonzero(hidden)
    around = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
    steps = around[rng.integers(len(around), size=len(rows))]
    there = []
    for place, step, side in ((rows, steps[:, 0], 0), (columns, steps[:, 1], 1)):
        last = hidden.shape[side] - 1
        moved = place + step
        there.append(np.where((moved < 0) | (moved > last), place - step, moved).clip(0, last))
    seen = counts.copy()
    seen[..., rows, columns] = counts[..., there[0], there[1]]
    return seen


def _loss(
    restored: Tensor, clip: _Clip, hidden: npt.NDArray[np.bool_], device: torch.device
) -> Tensor:
    """(M, T, 3, S, S) in about [0, 1] -> scalar; light is compared where spikes were hidden."""
    exposed = torch.from_numpy(clip.exposed).to(device)
    reblur = CharbonnierLoss(1e-3)(restored.mean(0), exposed)
    weights = torch.tensor(LUMINANCE, dtype=restored.dtype, device=device)
    light = torch.einsum("mtchw,c->mthw", restored, weights)
    seen = torch.from_numpy(clip.light).to(device)
    coarse = F.adaptive_avg_pool2d(light, (seen.shape[-2], seen.shape[-1]))
    where = torch.from_numpy(hidden).to(device)
    same_light = F.smooth_l1_loss(coarse[..., where], seen[..., where], beta=LIGHT_DELTA)
    loss: Tensor = reblur + LIGHT_WEIGHT * same_light
    return loss


def _smooth(plane: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    image = torch.from_numpy(np.asarray(plane, np.float64))[None]
    return np.asarray(F.avg_pool2d(image, SMOOTH, 1)[0])


def _floats(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(T, H, W, 3) uint8 -> (T, 3, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
