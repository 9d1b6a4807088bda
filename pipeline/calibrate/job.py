"""The calibrate stage: one file that says how a spike camera's pixels differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..host.files import StrPath
from ..host.overwrite import require_free
from ..host.reporter import SILENT, Parts, Reporter
from ..spikes.geometry import SpikeGeometry
from ..spikes.parts import hash_stream, open_stream, require_stream
from ..spikes.sensor import Plane, Sensor
from ..spikes.settings import AS_RECORDED, SpikeOptions, SpikeSettings, settle
from ..spikes.sidefile import read_side_file
from ..spikes.stream import SpikeStream
from .measure import CalibrateError, Figures, measure
from .picture import is_own_picture, write_picture
from .rates import Fired, watch
from .sensor_file import SensorRecord, Source, figures_of, require_free_sensor, write_sensor

GUESSES = {
    "hashed": 0.1,
    "counted": 1.0,
    "searched": 0.5,
    "slices": 1.0,
    "travel": 25000.0,
    "followed": 4000.0,
    "solved": 30000.0,
}
"""Time of a part of each kind, in that of counting a sample, as long as none is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateSummary(Figures):
    """What a calibration found; shares are of 1, None: by a recording that was not given."""

    out: str
    picture: str
    height: int
    width: int
    """Sides of the sensor, in pixels."""


def calibrate(
    out: StrPath,
    *,
    dark: StrPath | None = None,
    flat: StrPath | None = None,
    recordings: Sequence[StrPath] = (),
    options: SpikeOptions = AS_RECORDED,
    even: bool = False,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> CalibrateSummary:
    """Measure the pixels of a spike camera, and write `out` and a picture beside it.

    Args:
        out: the sensor's file to write; its picture has the same name and ends in .png.
        dark: recording without light; None: dark rates are taken as 0.
        flat: recording of an even surface under constant light; None: gains are taken as equal.
        recordings: recordings of moving scenes, which tell gains in place of `flat`.
        options: geometry, where no side file gives it.
        even: the light was even over the frame, so that smooth differences are the pixels' too.
        overwrite: replace a sensor's file that is there.
        reporter: hears of each recording that is measured and hashed, the time left, and warnings.

    Raises:
        CalibrateError: no recording, both `flat` and `recordings`, recordings of different sensors,
            or such as tell nothing; or `out` has no name, or the picture's.
        SensorError: something else is at `out`.
        SpikeDeblurError: a recording that can't be read; names it.
    """
    given = _named(dark, flat, recordings)
    out = Path(out)
    if not out.name or out.suffix.lower() == ".png":
        raise CalibrateError(
            f"{out}: expected a name for the sensor's file, beside which its picture gets the "
            "same name and .png, found none or this ending; give --out sensor.zarr, for example"
        )
    picture = out.with_suffix(".png")
    require_free_sensor(out, overwrite=overwrite)
    require_free(picture, overwrite=overwrite, is_ours=is_own_picture, what="a picture")
    settled = {name: _settle(path, options) for name, path in given.items()}
    streams = {
        name: open_stream(path, _without_colours(settled[name].geometry))
        for name, path in given.items()
    }
    _require_one_sensor(given, streams)
    parts = _parts(streams)  # which loads torch for scenes
    work = Parts(reporter, 2 * len(streams), GUESSES)
    work.expect(parts)
    try:
        sensor, errors, figures = _measured(streams, even=even, work=work)
    except CalibrateError as error:
        # What is said of one of the recordings names it.
        raise (
            error
            if str(error).startswith(tuple(map(str, given.values())))
            else CalibrateError(f"{' and '.join(map(str, given.values()))}: {error}")
        ) from error
    sources = {}
    for name, path in given.items():
        samples = streams[name].n_frames
        sources[name] = Source(name=Path(path).name, samples=samples, sha256=hash_stream(path))
        work.did("hashed", f"hashing {Path(path).name}", size=samples, finished=1)
    record = SensorRecord(
        shape=sensor.shape,
        geometry=next(iter(streams.values())).geometry.describe(),
        even=even,
        sources=sources,
        found=figures_of(figures),
    )
    write_sensor(out, sensor, record, errors, overwrite=overwrite)
    write_picture(picture, sensor, figures, errors)
    warnings = [f"{given[name]}: {said}" for name in given for said in settled[name].warnings]
    warnings += figures.warnings
    for warning in warnings:
        reporter.warn(warning)
    height, width = sensor.shape
    return CalibrateSummary(
        out=str(out),
        picture=str(picture),
        height=height,
        width=width,
        warnings=tuple(warnings),
        **figures_of(figures),  # type: ignore[arg-type]
    )


def _parts(streams: Mapping[str, SpikeStream]) -> Counter[str]:
    """Return the parts of the work, of the kinds of `GUESSES`."""
    parts: Counter[str] = Counter()
    for name, stream in streams.items():
        parts["hashed"] += stream.n_frames
        if not name.startswith("scene"):
            parts["counted"] += stream.n_frames
            parts["searched"] += 2 * stream.n_frames
    scenes = [stream for name, stream in streams.items() if name.startswith("scene")]
    if scenes:
        from .moving import parts_of_scenes  # which needs torch

        parts.update(parts_of_scenes(scenes))
    return parts


def _named(
    dark: StrPath | None, flat: StrPath | None, recordings: Sequence[StrPath]
) -> dict[str, StrPath]:
    """Return the recordings by what they show: dark, flat, scene, scene 2, and so on.

    Raises:
        CalibrateError: none, or both a flat field and scenes.
    """
    if flat is not None and recordings:
        raise CalibrateError(
            f"{flat}: a flat field tells the gains better than {recordings[0]} does; leave out "
            "--recording"
        )
    given = {name: path for name, path in (("dark", dark), ("flat", flat)) if path is not None}
    for number, path in enumerate(recordings, start=1):
        given["scene" if number == 1 else f"scene {number}"] = path
    if not given:
        raise CalibrateError("expected --dark, --flat or --recording, found none of them")
    return given


def _require_one_sensor(given: Mapping[str, StrPath], streams: Mapping[str, SpikeStream]) -> None:
    first, *others = streams
    for other in others:
        expected, found = (streams[name].geometry for name in (first, other))
        if expected.shape != found.shape:
            (h, w), (height, width) = expected.shape, found.shape
            raise CalibrateError(
                f"{given[other]}: expected {h}x{w} pixels as in {given[first]}, found "
                f"{height}x{width}; give recordings of one camera, or correct --geometry"
            )
        if expected.flip_rows != found.flip_rows:
            raise CalibrateError(
                f"{given[other]}: expected rows {_order(expected)} as in {given[first]}, found "
                f"{_order(found)}; convert both alike, or correct the geometry of one"
            )


def _order(geometry: SpikeGeometry) -> str:
    return "bottom-up" if geometry.flip_rows else "top-down"


def _measured(
    streams: Mapping[str, SpikeStream], *, even: bool, work: Parts
) -> tuple[Sensor, Plane | None, Figures]:
    """Return the sensor, the errors of its gains if a scene told them, and figures."""
    scenes = [stream for name, stream in streams.items() if name.startswith("scene")]
    if scenes:
        return _of_scenes(scenes, streams.get("dark"), work)
    parts: list[tuple[str, int, int]] = []
    if "dark" in streams:
        parts.append(("dark", 0, streams["dark"].n_frames))
    if "flat" in streams:
        samples = streams["flat"].n_frames
        if samples < 2:
            raise CalibrateError(
                f"expected at least 2 samples in --flat, found {samples}; record longer"
            )
        parts += [("flat", 0, samples // 2), ("flat", samples // 2, samples)]
    watched: dict[str, list[Fired]] = {"dark": [], "flat": []}
    for name, start, stop in parts:
        watched[name].append(watch(streams[name], start, stop, work))
        work.did("searched", name, size=0, finished=int(stop == streams[name].n_frames))
    sensor, figures = measure(
        watched["dark"][0] if watched["dark"] else None,
        (watched["flat"][0], watched["flat"][1]) if watched["flat"] else None,
        even=even,
    )
    return sensor, None, figures


def _of_scenes(
    scenes: Sequence[SpikeStream], dark: SpikeStream | None, work: Parts
) -> tuple[Sensor, Plane, Figures]:
    from .moving import measure_moving  # which needs torch

    if dark is None:
        return measure_moving(scenes, work=work)
    in_dark, seen = measure(watch(dark, 0, dark.n_frames, work), None)
    work.did("searched", "dark", size=0, finished=1)
    sensor, errors, figures = measure_moving(scenes, in_dark.dark, in_dark.hot, work=work)
    said = [warning for warning in seen.warnings if not warning.startswith("no --flat")]
    return sensor, errors, replace(figures, warnings=(*said, *figures.warnings))


def _settle(path: StrPath, options: SpikeOptions) -> SpikeSettings:
    """Return the geometry of a recording, and warnings about it: no rate is needed."""
    require_stream(path)
    side = read_side_file(path)
    rate = 1.0 if side is None or side.rate is None else None
    return settle(str(path), replace(options, rate=rate), side)


def _without_colours(geometry: SpikeGeometry) -> SpikeGeometry:
    """Return the geometry by which pixels are read as they are, colours and all."""
    return replace(geometry, bayer=None)
