"""The rig: settings of the colour camera, and of the spike camera beside it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ..clocks.exposures import exposure_window, instant_offsets
from ..spikes.camera import SpikeCamera
from ..spikes.clock import SpikeClock
from ..spikes.sensor import Sensor
from .clips import SimulateError, SourceClip
from .flaws import Flaws
from .scenes import layers_area

SAMPLES_AT_ONCE = 256
"""Spike samples that are written at once: a multiple of 8, so that they end on whole bytes."""

_PROCESS_BYTES = 100 * 2**20
"""Bytes that a recording process holds beside pixels."""

_FRAME_BYTES, _SCENE_BYTES = 100, 600
"""Bytes for each pixel to decode and average a frame, and to render a scene (measured)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rig:
    """Settings of both cameras, the same for all clips.

    Raises:
        SpikeDeblurError: a setting that can't be.
    """

    exposure: int = 33
    """Sharp frames that make a blurred one; odd."""
    stride: int = 15
    """Sharp frames from the middle of one exposure to that of the next."""
    fps: float = 1000.0
    """Sharp frames a second, in Hz."""
    spike_scale: int = 2
    """Side of a spike pixel, in colour pixels."""
    spike_size: tuple[int, int] | None = None
    """(h, w) of the spikes, which see the whole frame, in pixels; None: by `spike_scale`."""
    spikes_per_frame: int = 8
    """Spike samples in one frame interval."""
    threshold: float = 2.0
    """Integral of light over samples at which a pixel of the spike camera fires."""
    noise: float = 0.0
    """False spikes of a pixel a sample, in [0, 1)."""
    linear_light: bool = False
    """Average and record linear light, decoded from sRGB; else the sRGB values themselves."""
    seed: int = 0
    """Seed of scenes, phases, noise and pixels."""
    flaws: Flaws | None = None
    """How the spike camera's pixels differ; None: they are equal."""
    instants: int = 1
    """Sharp frames kept of each exposure, each nearest to the middle of its equal part."""

    def __post_init__(self) -> None:
        exposure_window(0, self.exposure, self.fps)
        for name in ("stride", "spike_scale", "spikes_per_frame"):
            if getattr(self, name) < 1:
                raise SimulateError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.spike_size is not None and min(self.spike_size) < 1:
            raise SimulateError(f"expected spikes of at least 1x1 pixels, got {self.spike_size}")
        self.sharp_offsets()
        self.camera()
        self.clock(0)

    def camera(self) -> SpikeCamera:
        """Return the spike camera."""
        return SpikeCamera(threshold=self.threshold, noise=self.noise)

    def spike_shape(self, frame_shape: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) of the spikes beside frames (H, W), in pixels."""
        height, width = (side // self.spike_scale for side in frame_shape)
        return self.spike_size or (height, width)

    def sensor(self, shape: tuple[int, int]) -> Sensor | None:
        """Return the spike camera's pixels, the same for all clips of one shape (h, w)."""
        return None if self.flaws is None else self.flaws.sensor(shape, self.seed)

    def recorded(self) -> dict[str, int | float | bool | str]:
        """Return the settings for the record beside spikes, without those of equal pixels."""
        settings = asdict(self)
        flaws, size = settings.pop("flaws"), settings.pop("spike_size")
        if size is not None:
            settings["spike_size"] = f"{size[0]}x{size[1]}"
        if self.instants == 1:  # only others differ from what was written without the setting
            del settings["instants"]
        return settings | (flaws or {})

    def clock(self, first_frame: int) -> SpikeClock:
        """Return the clock of a clip's spikes, from its first frame's number."""
        rate = self.fps * self.spikes_per_frame
        return SpikeClock(rate=rate, first=first_frame / self.fps)

    def centres(self, n_frames: int) -> range:
        """Return the middle frames of all exposures that fit in a clip of `n_frames`."""
        half = self.exposure // 2
        return range(half, n_frames - half, self.stride)

    def sharp_offsets(self) -> list[int]:
        """Return the sharp frames that are kept of an exposure, counted from its middle frame."""
        rate = self.fps * self.spikes_per_frame
        offsets = instant_offsets(self.instants, self.exposure, self.fps, rate)
        return sorted({0, *offsets})

    def worker_bytes(self, clip: SourceClip) -> int:
        """Return the most bytes that a process holds while it records a clip."""
        sums = 3 * 8 * (self.exposure // self.stride + 1)  # of exposures that overlap
        pixels, spikes = math.prod(clip.shape()), math.prod(self.spike_shape(clip.shape()))
        samples = 3 * SAMPLES_AT_ONCE * spikes  # apart, as one array, upside down
        layers = layers_area(clip.fastest) / layers_area(1)
        frame = _FRAME_BYTES if clip.frames else math.ceil(_SCENE_BYTES * layers)
        return _PROCESS_BYTES + pixels * (sums + frame) + samples
