"""What the user says of a data set, and what is known of a sequence's spikes before any is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..clocks.camera import FPS_OR_FRAME_RATE, CameraClock
from ..frames.images import image_shape
from ..spikes.geometry import SpikeGeometry
from ..spikes.presets import parse_geometry
from ..spikes.settings import (
    AS_RECORDED,
    SpikeOptions,
    SpikeSettings,
    first_known,
    require_above_0,
    sensor_file,
    settle,
)
from ..spikes.sidefile import SideFile, read_side_file
from .layouts import AlignmentError, FoundSequence
from .layouts.custom import is_layout_file
from .measure.registration import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignOptions:
    """How `align` reads a data set, and what it finds out from the frames.

    Raises:
        AlignmentError: a value that can't be, or two that exclude each other.
    """

    exposure: int | None = None
    """Sharp frames that make a blurred one; None: the layout's own."""
    fps: float | None = None
    """Sharp frames a second, in Hz; None: the layout's own."""
    camera: CameraClock | None = None
    """Clock of the camera that took the frames; None: the layout's own, or `exposure` and `fps`."""
    variant: str | None = None
    """Folder to read where the layout knows several; None: its usual one."""
    spikes: SpikeOptions = AS_RECORDED
    """The spike camera. Without geometry, rate or gain, side files or the layout's preset say."""
    instants: int | None = None
    """Number of sharp frames of each exposure that the manifest names; None: the middle's."""
    verify: bool = True
    """Measure each sequence's lag from its frames."""
    estimate: bool = False
    """Correct each sequence's clock by the measured lag and drift, where they are proved.
    Exposures that then leave the recording are left out, with a warning."""
    estimate_space: Model | None = None
    """Estimate from the frames where spike pixels lie in them, with this model."""
    plot: str | os.PathLike[str] | None = None
    """HTML page to write, with pictures and correlation curves."""
    strict: bool = False
    """Write nothing if there is any warning."""

    def __post_init__(self) -> None:
        spikes = self.spikes
        require_above_0(AlignmentError, fps=self.fps, rate=spikes.rate, gain=spikes.gain)
        if self.camera is not None and (self.fps, self.exposure) != (None, None):
            raise AlignmentError(FPS_OR_FRAME_RATE)
        if spikes.first is not None:
            raise AlignmentError(
                f"expected no first sample's time, which differs by sequence, got {spikes.first}; "
                "write it in the side files"
            )
        if spikes.calibration is not None and self.estimate_space is not None:
            raise AlignmentError("expected --calibration or --estimate-space, got both; give one")


def settle_sequence(
    sequence: FoundSequence, options: SpikeOptions, fps: float
) -> tuple[SpikeSettings, bool | None]:
    """Return what is known of a sequence's spikes, and whether light was averaged linearly.

    Args:
        sequence: the sequence's files.
        options: geometry, rate and gain that the user gives.
        fps: sharp frames a second, in Hz, with which a side file is compared.

    Returns:
        The settings, with warnings; and True (linear light), False (gamma), or None where the
        side file does not say.

    Raises:
        AlignmentError: side files disagree, or the data set contradicts the geometry.
        SpikeSettingsError: geometry or rate are not known.
    """
    side = _side_file(sequence)
    where = f"{sequence.seq} ({sequence.windows[0].spikes})"
    _require_row_order(sequence, options.geometry, side)
    settings = settle(where, options, side, sequence.preset)
    settings = replace(
        settings,
        readout=first_known(options.readout, sequence.readout),
        sensor=sensor_file(str(sequence.windows[0].spikes), options, side) or sequence.sensor,
    )
    warnings = list(settings.warnings)
    if settings.gain is None:
        warnings.append("gain not known, so counts can't be brought to luminance; give --gain")
    mismatch = _size_mismatch(sequence, settings.geometry)
    if mismatch and side is None and options.geometry is None:
        source = sequence.preset.source if sequence.preset else "its layout"
        raise AlignmentError(f"{where}: {mismatch} ({source}); give --geometry")
    if mismatch:
        warnings.append(mismatch)
    if side is None:
        return replace(settings, first=sequence.first, warnings=tuple(warnings)), None
    if sequence.preset is not None and is_layout_file(sequence.preset.source):
        preset = sequence.preset
        stated = (preset.geometry, preset.rate, preset.gain, _real(sequence.sensor))
        named = sensor_file(str(sequence.windows[0].spikes), AS_RECORDED, side)
        recorded = (side.spike_geometry(), side.rate, side.gain, _real(named))
        if any(a != b for a, b in zip(stated, recorded, strict=True) if None not in (a, b)):
            warnings.append(f"the side file contradicts {sequence.preset.source}, and is followed")
    # `simulate` writes how it recorded. Nothing follows from it, but it shows a forgotten --fps.
    light, recorded_fps = side.made_by.get("linear_light"), side.made_by.get("fps")
    averaged = sequence.exposures is None
    if averaged and isinstance(recorded_fps, float | int) and recorded_fps != fps:
        warnings.append(
            f"recorded at {recorded_fps:g} frames a second, says the side file, aligned at "
            f"{fps:g}; give --fps {recorded_fps:g}"
        )
    return replace(settings, warnings=tuple(warnings)), light if isinstance(light, bool) else None


def _real(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _require_row_order(sequence: FoundSequence, option: str | None, side: SideFile | None) -> None:
    """Refuse a size that the data set contradicts, or one that leaves the row order open."""
    if sequence.spike_shape is None:
        return
    height, width = sequence.spike_shape
    spec = option or (side.geometry if side else None)
    if spec is None:
        raise AlignmentError(
            f"{sequence.windows[0].spikes}: spikes of {height}x{width}, says the data set, but not "
            f"their row order; give --geometry {height}x{width},bottom-up, as cameras store them, "
            "or top-down"
        )
    geometry = parse_geometry(spec)
    if sequence.spike_shape not in (geometry.shape, (geometry.height, geometry.width)):
        raise AlignmentError(
            f"{sequence.windows[0].spikes}: spikes of {height}x{width}, says the data set, "
            f"{geometry.describe()} was given; correct one of them"
        )


def _side_file(sequence: FoundSequence) -> SideFile | None:
    """Return the one side file that holds for all of a sequence's spikes."""
    sides = {path: read_side_file(path) for path in sorted({w.spikes for w in sequence.windows})}
    (first, side), *others = sides.items()
    for path, other in others:
        if _essence(other, path) != _essence(side, first):
            raise AlignmentError(
                f"{path}: its side file disagrees with that of {first.name} on geometry, rate, "
                "gain or sensor; one sequence needs one of each"
            )
    return side


def _essence(side: SideFile | None, spikes: Path) -> tuple[object, ...]:
    if side is None:
        return ()
    return side.geometry, side.rate, side.gain, sensor_file(str(spikes), AS_RECORDED, side)


def _size_mismatch(sequence: FoundSequence, geometry: SpikeGeometry) -> str | None:
    """Return what is wrong if spikes have not the share of the frame that folder names state."""
    if sequence.spike_scale is None:
        return None
    height, width = (side // sequence.spike_scale for side in image_shape(sequence.windows[0].blur))
    if (height, width) == geometry.shape:
        return None
    return (
        f"expected spikes of {height}x{width}, 1/{sequence.spike_scale} of the blurred frame, "
        f"found {geometry.describe()}"
    )
