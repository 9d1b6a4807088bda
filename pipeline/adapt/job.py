"""The adapt stage: fit a trained model to recordings that have no sharp frames.

A recording says two things about the sharp frames at M instants spread over each exposure:

    reblur    their mean is the blurred frame
    light     their luminance at a spike pixel is, but for noise, what a short window of its spikes
              around the instant saw. The network must say so without this pixel's spikes, whose
              noise it would repeat (Krull, Buchholz, Jug, "Noise2Void", CVPR 2019): a neighbour's
              are put in their place

How spikes become luminance is fitted on the exposures, whose luminance the blurred frame shows.
Before the first step several inputs are tried, and those with the least loss are kept: the fitted
curve or the gain, how far the spikes are trusted, and how much the network corrects at first. They
go into the model's DATA.NORM and its last convolution.
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
from ...model import CharbonnierLoss, RawWindows, VRTWithSpike, network_inputs
from ...model.normalize import luminance
from ..calibrate.sensor_file import read_sensor
from ..host.files import sha256_file
from ..host.reporter import SILENT, Parts, Reporter, counted
from ..sequences.in_time import require_one_scene
from ..sequences.linear_frames import FrameCurve
from ..sequences.recording import Recording
from ..train.ema import averaged_copy, update_average
from ..trained.model_file import load_trained, require_model_file, write_model
from ..weights.find import weights_file
from .camera import AdaptError, Camera, Crop, Curve, fit_curve

LIGHT_WEIGHT = 3.0
"""Weight of the light term; reblur has 1."""

LIGHT_DELTA = 0.3
"""Luminance up to which the light term is quadratic: what it compares with is noisy."""

HIDDEN = 0.25
"""Share of a crop's spike pixels that are hidden."""

TRUSTS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12)
"""Values of DATA.NORM.TRUST that are tried before the first step."""

TRIALS = 8
"""Clips over which a trial takes the mean loss."""

HALVINGS = 4
"""Most times that the network's correction is halved."""

DECAY = 0.98
"""Share of the averaged weights that a step keeps."""


GUESSES = {"trial": 3.0, "step": 1.0}
"""Time of a trial and of a step in that of a step, as long as none is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapting:
    """How a model is adapted."""

    steps: int = 300
    """Steps of AdamW, each on one clip."""
    learning_rate: float = 1e-3
    """Learning rate of the first step; it falls to 0 as a cosine."""
    crop: int = 64
    """Side of the crops in pixels; a multiple of 8 * MODEL.TRUNK_SCALE."""
    seed: int = 0
    """Seed of clips and crops."""
    device: str | None = None
    """A torch device; None: the GPU where there is one."""
    force: bool = False
    """Go on even where spikes and frames are not alike at any lag."""
    curve: FrameCurve | None = None
    """What the numbers of the frames are; None: as the spikes tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptSummary:
    """What a run did."""

    out: str
    steps: int
    recordings: int
    exposures: int
    loss_before: float
    """Mean loss of the model as it was, on a few clips."""
    loss_after: float
    """Mean loss of the adapted model, on the same clips."""


def adapt(
    source: str | os.PathLike[str],
    recordings: Sequence[Recording],
    out: str | os.PathLike[str],
    *,
    how: Adapting = Adapting(),
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> AdaptSummary:
    """Write a model that is fitted to recordings, starting from a trained one.

    Args:
        source: a run folder or an exported model.
        recordings: blurred frames and spikes, all of one camera.
        out: file to write, `*.safetensors`.
        how: steps, learning rate, crops, seed and device.
        overwrite: replace a file that is there.
        reporter: hears of each trial and each step, and the time left.

    Raises:
        SpikeDeblurError: a recording, the model or `out` can't be used.
    """
    require_model_file(out, overwrite=overwrite)
    model, config = load_trained(source)
    multiple = 8 * config.MODEL.TRUNK_SCALE
    if how.steps < 1 or how.crop < 1 or how.crop % multiple:
        raise AdaptError(
            f"expected at least 1 step and a crop of a multiple of {multiple} pixels, got "
            f"{how.steps} and {how.crop}"
        )
    if not 0 < how.learning_rate <= 1:
        raise AdaptError(f"expected a learning rate above 0, at most 1, got {how.learning_rate}")
    for recording in recordings:
        found = require_one_scene(recording, force=how.force)[1]
        for warning in (*recording.settings.warnings, *found):
            reporter.warn(warning)
    recordings = [recording.with_frame_curve(how.curve) for recording in recordings]
    clips = _Clips(recordings, config, how)
    model.to(clips.device)
    tries = config.DATA.NORM.MODE == "relative"
    trials = (2 * len(TRUSTS) + HALVINGS if tries else 0) + 2
    work = Parts(reporter, trials + how.steps, GUESSES)
    work.expect({"trial": trials, "step": how.steps})
    before = clips.trial(model, config.DATA.NORM)
    work.did("trial", f"as it was, loss {before:.4f}", finished=1)
    least = before
    if tries:
        reporter.note(f"trying {counted(2 * len(TRUSTS), 'input')} before the first step")
        config, least = _fit_inputs(model, config, clips, work)
    fitted = averaged_copy(model)
    average = _train(model, config.DATA.NORM, clips, how, work)
    after = clips.trial(average, config.DATA.NORM)
    work.did("trial", f"adapted, loss {after:.4f}", finished=1)
    if not after < least:  # training made it worse, or no number
        average, after = fitted, least
    settings = [recording.settings for recording in recordings]
    readouts = [each.readout for each in settings]
    matrices = [each.registration and each.registration.matrix for each in settings]
    sensors = [each.sensor and read_sensor(each.sensor).sha256 for each in settings]
    curves = [recording.frame_curve for recording in recordings]
    facts = {
        "adapted_from_sha256": sha256_file(weights_file(source)),
        "adapted_to_sha256": [r.hashed_spikes()["spikes_sha256"] for r in recordings],
        "adapt": {
            "steps": how.steps,
            "rate": how.learning_rate,
            "crop": how.crop,
            "seed": how.seed,
            **({"readout": readouts} if any(each is not None for each in readouts) else {}),
            **({"matrix": matrices} if any(matrices) else {}),
            **({"sensor_sha256": sensors} if any(sensors) else {}),
            **({"curve": curves} if "srgb" in curves else {}),
        },
    }
    write_model(out, average, config, facts, overwrite=overwrite)
    return AdaptSummary(
        out=str(out),
        steps=how.steps,
        recordings=len(recordings),
        exposures=sum(len(recording.exposures) for recording in recordings),
        loss_before=before,
        loss_after=after,
    )


class _Clips:
    """Random clips of the recordings, and the loss that a network has on them."""

    def __init__(self, recordings: Sequence[Recording], config: Config, how: Adapting) -> None:
        data = config.DATA
        self.device = torch.device(how.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._cameras = [Camera(recording, data.K, data.NORM) for recording in recordings]
        self.curve = fit_curve(self._cameras)
        self._length, self._crop, self._seed = data.CLIP_LEN, how.crop, how.seed

    def loss(self, network: nn.Module, random: np.random.Generator, norm: NormConfig) -> Tensor:
        """Return the loss of a random clip."""
        camera = self._cameras[random.integers(len(self._cameras))]
        clip = camera.clip(random, self._length, self._crop, self.curve)
        hidden = random.random(clip.light.shape[-2:]) < HIDDEN
        voxels = torch.from_numpy(hide(clip.windows.voxels.numpy(), hidden, random))
        windows = RawWindows(
            clip.windows.blur.to(self.device), voxels.to(self.device), clip.windows.samples
        )
        restored = network(*network_inputs(windows, clip.conditions, norm)).float()
        return _loss(restored, clip, hidden & clip.seen)

    def trial(self, network: nn.Module, norm: NormConfig) -> float:
        """Return the mean loss of clips that are always the same."""
        random = np.random.default_rng(self._seed)
        with torch.inference_mode():
            losses = [self.loss(network, random, norm).item() for _ in range(TRIALS)]
        return float(np.mean(losses))


def _fit_inputs(
    model: VRTWithSpike, config: Config, clips: _Clips, work: Parts
) -> tuple[Config, float]:
    """Choose curve, trust and correction by trials; return the configuration and its loss."""
    tried: list[tuple[float, Config]] = []
    inputs = list(itertools.product((clips.curve, None), TRUSTS))
    for curve, trust in inputs:
        fitted = for_camera(config, curve, trust)
        model.spike_trust = trust
        tried.append((clips.trial(model, fitted.DATA.NORM), fitted))
        words = f"input {len(tried)} of {len(inputs)}, loss {tried[-1][0]:.4f}"
        work.did("trial", words, finished=1)
    least, config = min(tried, key=lambda trial: trial[0])
    model.spike_trust = config.DATA.NORM.TRUST

    def trial() -> float:
        loss = clips.trial(model, config.DATA.NORM)
        work.did("trial", f"a smaller correction, loss {loss:.4f}", finished=1)
        return loss

    least, spared = _shrink_correction(model, trial, least)
    work.skip({"trial": spared}, items=spared)
    return config, least


def _train(
    model: VRTWithSpike, norm: NormConfig, clips: _Clips, how: Adapting, work: Parts
) -> nn.Module:
    """Change the model's weights step by step; return their average."""
    model.train()
    average = averaged_copy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.learning_rate, weight_decay=0.0)
    random = np.random.default_rng(how.seed)
    torch.manual_seed(how.seed)
    for step in range(how.steps):
        for settings in optimizer.param_groups:
            settings["lr"] = how.learning_rate * 0.5 * (1 + np.cos(np.pi * step / how.steps))
        loss = clips.loss(model, random, norm)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, min(DECAY, (1 + step) / (10 + step)))
        if not loss.isfinite():
            raise AdaptError(f"step {step + 1}: the loss is not finite; lower --learning-rate")
        work.did("step", f"step {step + 1} of {how.steps}, loss {loss.item():.4f}", finished=1)
    return average


def _shrink_correction(
    model: VRTWithSpike, trial: Callable[[], float], least: float
) -> tuple[float, int]:
    """Halve what the network adds to its base as often as that lowers a trial's loss.

    Returns:
        The least loss, and the number of trials that were not needed.
    """
    last = model.vrt.conv_last
    for done in range(1, HALVINGS + 1):
        whole = {name: value.clone() for name, value in last.state_dict().items()}
        last.load_state_dict({name: 0.5 * value for name, value in whole.items()})
        loss = trial()
        if loss >= least:
            last.load_state_dict(whole)
            return least, HALVINGS - done
        least = loss
    return least, 0


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
    """Return counts (..., h, w) in which hidden pixels (h, w) have those of a random neighbour."""
    rows, columns = np.nonzero(hidden)
    around = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
    steps = around[rng.integers(len(around), size=len(rows))]
    neighbours = []
    for place, step, side in zip((rows, columns), steps.T, hidden.shape, strict=True):
        moved = place + step
        outside = (moved < 0) | (moved >= side)
        neighbours.append(np.where(outside, place - step, moved).clip(0, side - 1))
    seen = counts.copy()
    seen[..., rows, columns] = counts[..., *neighbours]
    return seen


def _loss(restored: Tensor, clip: Crop, hidden: npt.NDArray[np.bool_]) -> Tensor:
    """(M, T, 3, S, S) in about [0, 1] -> scalar; light is compared where spikes were hidden."""
    where = torch.from_numpy(hidden)
    exposed, seen, where = (x.to(restored.device) for x in (clip.exposed, clip.light, where))
    reblur = CharbonnierLoss(1e-3)(restored.mean(0), exposed)
    if not hidden.any():  # no spike camera looks there
        return reblur
    coarse = F.adaptive_avg_pool2d(luminance(restored), (seen.shape[-2], seen.shape[-1]))
    same_light = F.smooth_l1_loss(coarse[..., where], seen[..., where], beta=LIGHT_DELTA)
    return reblur + LIGHT_WEIGHT * same_light
