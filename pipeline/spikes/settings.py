"""Geometry, clock and gain of a recording: from an option, its side file or a preset.

They can't be read off the spikes, so they are given or the recording is refused.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import SpikeDeblurError
from .between import Between, Cut
from .bounds import LEAST_GAIN, MOST_GAIN, MOST_HZ, MOST_SECONDS
from .clock import SpikeClock
from .geometry import SpikeGeometry
from .presets import PRESETS, SpikePreset, parse_geometry
from .registration import Registration
from .sidefile import SideFile, beside


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeOptions:
    """What the user says about a spike stream; None: as its side file or a preset says."""

    geometry: str | None = None
    """SPEC or preset; see `presets.parse_geometry`."""
    rate: float | None = None
    """Spike samples a second, in Hz."""
    gain: float | None = None
    """Spikes a sample at unit luminance."""
    first: float | None = None
    """Time of the stream's sample 0, in seconds."""
    calibration: str | os.PathLike[str] | None = None
    """File that says where spike pixels lie in the frames; see `align.calibration`."""
    readout: float | None = None
    """Time from the exposure of a frame's first row to that of its last one, in seconds."""
    sensor: str | os.PathLike[str] | None = None
    """File of the sensor that `calibrate` wrote."""
    between: Between | None = None
    """Times between which the stream is read; None: all of it."""


AS_RECORDED = SpikeOptions()
"""The options of a user who gives none."""


class SpikeSettingsError(SpikeDeblurError):
    """Geometry or rate are not known, or an impossible value was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeSettings:
    """Geometry, clock, gain and registration of a spike stream."""

    geometry: SpikeGeometry
    rate: float
    """Spike samples a second, in Hz."""
    gain: float | None
    """Spikes a sample at unit luminance; None: not known."""
    first: float = 0.0
    """Time of sample 0, in seconds."""
    registration: Registration | None = None
    """Where spike pixels lie in the frames; None: both cameras see the same."""
    readout: float | None = None
    """Time from the exposure of a frame's first row to that of its last one, in seconds; None: not
    known, so all rows count as exposed at once."""
    sensor: Path | None = None
    """File that says how the pixels differ; None: they are taken as equal."""
    between: Between | None = None
    """Times between which the stream is read; None: all of it."""
    warnings: tuple[str, ...] = ()
    """Sentences about options that contradict the side file, and were taken."""

    @property
    def clock(self) -> SpikeClock:
        """When each sample was taken."""
        return SpikeClock(rate=self.rate, first=self.first, readout=self.readout or 0.0)

    @property
    def cut(self) -> Cut | None:
        """The part of the stream that is read; None: all of it."""
        return None if self.between is None else Cut(self.between, self.clock)


def settle(
    where: str, options: SpikeOptions, side: SideFile | None, preset: SpikePreset | None = None
) -> SpikeSettings:
    """Decide each setting: option, then side file, then preset; never a guess.

    An option that contradicts the side file wins, with a warning: the user is here and may know
    better, while a side file may have been copied along with another recording.

    Args:
        where: the recording, for messages.
        options: what the user gave; `calibration` is not read here.
        side: the recording's side file.
        preset: preset of the data set, where its layout says which; used without a side file.

    Returns:
        The settings; where nothing gives the time of the first sample, it is 0.

    Raises:
        SpikeSettingsError: geometry or rate are not known, or rate or gain are not above 0.
        SpikeGeometryError: `options.geometry` is no SPEC.
    """
    require_above_0(SpikeSettingsError, rate=options.rate, gain=options.gain)
    warnings = []
    recorded = side.spike_geometry() if side else None
    named = PRESETS.get(options.geometry or "")
    published = named or (preset if side is None else None)
    geometry = recorded or (published.geometry if published else None)
    if options.geometry is not None:
        geometry = parse_geometry(options.geometry)
        if recorded is not None and geometry != recorded:
            warnings.append(
                f"--geometry {geometry.describe()} taken over the side file's {recorded.describe()}"
            )
    if geometry is None:
        raise SpikeSettingsError(
            f"{where}: no side file gives the geometry; give --geometry, a preset "
            f"({', '.join(PRESETS)}) or HxW,bottom-up|top-down (`spikedeblur inspect` tries sizes)"
        )

    def choose(name: str) -> float | None:
        option, known = getattr(options, name), getattr(side, name, None)
        if option is not None and known is not None and option != known:
            warnings.append(f"--{name} {option:g} taken over the side file's {known:g}")
        return first_known(option, known, getattr(published, name, None))

    rate = choose("rate")
    if rate is None:
        known = f"; of {options.geometry} it is {named.rate_note}" if named else ""
        raise SpikeSettingsError(
            f"{where}: no side file or preset gives the rate, and the .dat can't{known}; give "
            "--rate in Hz (cameras 20000 or 40000, Spk-X4K1000FPS 4000, Spk-GoPro 1920)"
        )
    return SpikeSettings(
        geometry=geometry,
        rate=rate,
        gain=choose("gain"),
        first=choose("first") or 0.0,
        readout=options.readout,
        sensor=sensor_file(where, options, side),
        between=options.between,
        warnings=tuple(warnings),
    )


def sensor_file(where: str, options: SpikeOptions, side: SideFile | None) -> Path | None:
    """Return the sensor's file, from the option or from beside the recording."""
    if options.sensor is not None:
        return Path(options.sensor)
    return None if side is None or side.sensor is None else beside(where, side.sensor)


def require_above_0(error: type[SpikeDeblurError], **options: float | None) -> None:
    """Refuse values of options, by name, that no camera has; None passes."""
    for name, value in options.items():
        least, most = (LEAST_GAIN, MOST_GAIN) if name == "gain" else (1 / MOST_SECONDS, MOST_HZ)
        if value is not None and not least <= value <= most:
            bounds = f"of {least:g} to {most:g}" if 0 < value < math.inf else "above 0"
            raise error(f"expected --{name} {bounds}, found {value}")


def first_known(*values: float | None) -> float | None:
    """Return the first value that is not None; None: all are."""
    return next((value for value in values if value is not None), None)
