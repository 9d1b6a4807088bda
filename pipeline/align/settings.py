"""What is known of a found sequence's spikes: settled once, before any is read."""

from __future__ import annotations

from dataclasses import replace

from ..frames.images import image_shape
from ..spikes.geometry import SpikeGeometry
from ..spikes.presets import parse_geometry
from ..spikes.settings import SpikeOptions, SpikeSettings, settle
from ..spikes.sidefile import SideFile, read_side_file
from .layouts import AlignmentError, FoundSequence
from .layouts.custom import is_layout_file


def settle_sequence(
    found: FoundSequence,
    *,
    geometry: str | None,
    rate: float | None,
    gain: float | None,
    fps: float,
) -> tuple[SpikeSettings, bool | None]:
    """Return what is known of the spikes, and whether light was averaged linearly, if recorded."""
    side = _side_file(found)
    where = f"{found.seq} ({found.windows[0].spikes})"
    _require_row_order(found, geometry, side)
    options = SpikeOptions(geometry=geometry, rate=rate, gain=gain)
    known = settle(where, options, side, found.preset)
    warnings = list(known.warnings)
    if known.gain is None:
        warnings.append("gain not known, so counts can't be brought to luminance; give --gain")
    from_layout = side is None and geometry is None
    mismatch = _size_mismatch(found, known.geometry)
    if mismatch and from_layout:
        source = found.preset.source if found.preset else "its layout"
        raise AlignmentError(f"{where}: {mismatch} ({source}); give --geometry")
    if mismatch:
        warnings.append(mismatch)
    if side is not None and found.preset is not None and is_layout_file(found.preset.source):
        stated = (found.preset.geometry, found.preset.rate, found.preset.gain)
        recorded = (side.spike_geometry(), side.rate, side.gain)
        if any(a != b for a, b in zip(stated, recorded, strict=True) if None not in (a, b)):
            warnings.append(f"the side file contradicts {found.preset.source}, and goes before it")
    # `simulate` notes how it recorded. It decides nothing here, but shows a forgotten --fps.
    made_by = side.made_by if side else {}
    light = made_by.get("linear_light")
    recorded_fps = made_by.get("fps")
    if isinstance(recorded_fps, float | int) and recorded_fps != fps:
        warnings.append(
            f"recorded at {recorded_fps:g} frames a second, says the side file, aligned at "
            f"{fps:g}; give --fps {recorded_fps:g}"
        )
    if side is None:
        known = replace(known, first=found.first)
    settings = replace(known, warnings=tuple(warnings))
    return settings, light if isinstance(light, bool) else None


def _require_row_order(found: FoundSequence, option: str | None, side: SideFile | None) -> None:
    """Refuse a size that the data set contradicts, or one that leaves the row order open."""
    if found.spike_shape is None:
        return
    height, width = found.spike_shape
    spec = option or (side.geometry if side else None)
    if spec is None:
        raise AlignmentError(
            f"{found.windows[0].spikes}: spikes of {height}x{width}, says the data set, but not "
            f"their row order; give --geometry {height}x{width},bottom-up, as cameras store them, "
            "or top-down"
        )
    geometry = parse_geometry(spec)
    if found.spike_shape not in (geometry.shape, (geometry.height, geometry.width)):
        raise AlignmentError(
            f"{found.windows[0].spikes}: spikes of {height}x{width}, says the data set, "
            f"{geometry.describe()} was given; correct one of them"
        )


def _side_file(found: FoundSequence) -> SideFile | None:
    """Return the one side file that holds for all of a sequence's spikes."""
    paths = sorted({window.spikes for window in found.windows})
    sides = [read_side_file(path) for path in paths]
    for path, side in zip(paths, sides, strict=True):
        if _essence(side) != _essence(sides[0]):
            raise AlignmentError(
                f"{path}: its side file disagrees with that of {paths[0].name} on geometry, rate "
                "or gain; one sequence needs one of each"
            )
    return sides[0]


def _essence(side: SideFile | None) -> tuple[object, ...]:
    return () if side is None else (side.geometry, side.rate, side.gain)


def _size_mismatch(found: FoundSequence, geometry: SpikeGeometry) -> str | None:
    """Say if the blurred frame is not as much larger than the spikes as folder names state."""
    if found.spike_scale is None:
        return None
    blur = found.windows[0].blur
    height, width = image_shape(blur)
    scale = found.spike_scale
    if (height // scale, width // scale) == geometry.shape:
        return None
    return (
        f"expected spikes of {height // scale}x{width // scale}, 1/{scale} of the blurred frame, "
        f"found {geometry.describe()}"
    )
