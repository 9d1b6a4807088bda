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

from ...configs.schema import Config, NormConfig
from ...model import CharbonnierLoss, VRTWithSpike, normalize_counts
from ..host.files import sha256_file
from ..host.reporter import Progress
from ..sequences.recording import Recording
from ..spikes.camera import LUMINANCE
from ..train.ema import averaged_copy, update_average
from ..trained.model_file import load_trained, require_model_file, weights_file, write_model
from .camera import AdaptError, Camera, Crop, Curve, fit_curve

LIGHT_WEIGHT = 3.0
"""Of the light term beside reblur."""

LIGHT_DELTA = 0.3
"""Luminance up to which the light term is quadratic: what it compares with is noisy."""

HIDDEN = 0.25
"""Of the spike pixels of a crop."""

TRUSTS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12)
"""Tried before the first step."""

TRIALS = 8
"""Clips that each is tried on."""

HALVINGS = 4
"""At most, of what a network that the camera misleads adds to its base."""

DECAY = 0.98
"""Of the averaged weights, a step."""


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
    learning_rate: float = 1e-3,
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
        learning_rate: the first one; it falls to 0 as a cosine.
        crop: side of the crops in pixels; a multiple of 8 times the trunk's scale.
        seed: of clips and crops.
        device: a torch device; None: the GPU where there is one.
        overwrite: replace a file that is there.
        on_progress: told after each step.

    Raises:
        SpikeDeblurError: a recording, the model or `out` can't be used.
    """
    require_model_file(out, overwrite=overwrite)
    model, config = load_trained(source)
    if steps < 1 or crop < 1 or crop % (8 * config.MODEL.TRUNK_SCALE):
        raise AdaptError(
            f"expected at least 1 step and a crop of a multiple of {8 * config.MODEL.TRUNK_SCALE} "
            f"pixels, got {steps} and {crop}"
        )
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(where)
    cameras = [Camera(recording, config.DATA.K, config.DATA.NORM) for recording in recordings]
    curve = fit_curve(cameras)

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
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for step in range(steps):
        for settings in optimizer.param_groups:
            settings["lr"] = learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))
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
        "adapt": {"steps": steps, "rate": learning_rate, "crop": crop, "seed": seed},
    }
    write_model(out, average, config, facts, overwrite=overwrite)
    return summary


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
    restored: Tensor, clip: Crop, hidden: npt.NDArray[np.bool_], device: torch.device
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
