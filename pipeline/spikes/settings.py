"""Geometry, rate and gain of a recording: from an option, its side file or a preset.

No file's size and no network can say them, so they are given or the recording is refused.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from ...errors import SpikeDeblurError
from .clock import SpikeClock
from .geometry import SpikeGeometry
from .presets import PRESETS, SpikePreset, parse_geometry
from .registration import Registration
from .sidefile import SideFile


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeOptions:
    """What the user says of a spike stream; None: as its side file or a preset says."""

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


class SpikeSettingsError(SpikeDeblurError):
    """Geometry or rate are not known, or an impossible value was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikeSettings:
    """What must be known of a `.dat` to read it as light."""

    geometry: SpikeGeometry
    rate: float
    """Spike frames a second, in Hz."""
    gain: float | None
    """Spikes a sample at unit luminance; None: not known."""
    first: float = 0.0
    """Time of sample 0, in seconds."""
    registration: Registration | None = None
    """Where spike pixels lie in the frames; None: both cameras see the same."""
    warnings: tuple[str, ...] = ()
    """Options that went before the side file."""

    @property
    def clock(self) -> SpikeClock:
        """When each sample was taken."""
        return SpikeClock(rate=self.rate, first=self.first)


def settle(
    where: str,
    *,
    geometry: str | None,
    rate: float | None,
    gain: float | None,
    side: SideFile | None,
    preset: SpikePreset | None = None,
) -> SpikeSettings:
    """Decide: option, then side file, then preset; never a guess.

    An option that contradicts the side file wins, with a warning: the user is here and may know
    better, while a side file may have been copied along with another recording.

    Args:
        where: the recording, for messages.
        geometry: SPEC or preset of the option `--geometry`.
        rate: of the option `--rate`, in Hz.
        gain: of the option `--gain`.
        side: the recording's side file.
        preset: of the data set, where its layout says which; used without a side file.

    Returns:
        The settings; `first` is the side file's, or 0.

    Raises:
        SpikeSettingsError: geometry or rate are not known, or `rate` or `gain` not above 0.
        SpikeGeometryError: `geometry` is no SPEC.
    """
    for name, value in (("rate", rate), ("gain", gain)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise SpikeSettingsError(f"expected --{name} above 0, got {value}")
    warnings = []
    recorded = side.spike_geometry() if side else None
    published = PRESETS.get(geometry or "") or (preset if side is None else None)
    if geometry is not None:
        shape = parse_geometry(geometry)
        if recorded is not None and shape != recorded:
            warnings.append(
                f"--geometry {shape.describe()} taken over the side file's {recorded.describe()}"
            )
    elif recorded is not None:
        shape = recorded
    elif published is not None:
        shape = published.geometry
    else:
        raise SpikeSettingsError(
            f"{where}: no side file gives the geometry; give --geometry, a preset "
            f"({', '.join(PRESETS)}) or HxW,bottom-up|top-down"
        )

    def choose(
        name: str, option: float | None, known: float | None, usual: float | None
    ) -> float | None:
        if option is not None and known is not None and option != known:
            warnings.append(f"--{name} {option:g} taken over the side file's {known:g}")
        return next((value for value in (option, known, usual) if value is not None), None)

    chosen_rate = choose(
        "rate", rate, side.rate if side else None, published.rate if published else None
    )
    if chosen_rate is None:
        raise SpikeSettingsError(
            f"{where}: no side file or preset gives the rate, and the .dat can't; give --rate in "
            "Hz (cameras 20000 or 40000, Spk-X4K1000FPS 4000, Spk-GoPro 1920)"
        )
    chosen_gain = choose(
        "gain", gain, side.gain if side else None, published.gain if published else None
    )
    return SpikeSettings(
        geometry=shape,
        rate=chosen_rate,
        gain=chosen_gain,
        first=side.first if side else 0.0,
        warnings=tuple(warnings),
    )
