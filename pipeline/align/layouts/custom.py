"""Layout files: a data set's folders, geometry and clock in YAML, without any Python.

    name: my-camera
    split: test                                    # or {split} in the patterns
    blur: "{scene}/{clip}/rgb/{frame}.png"
    sharp: "{scene}/{clip}/sharp/{frame}.png"      # may be left out; or {files, step, offset}
    spikes:
      files: "{scene}/{clip}/spikes.dat"           # with {frame}: one file an exposure
      geometry: 250x400,bottom-up
      rate: 20000                                  # Hz
      gain: 0.6
      sensor: sensor.zarr                          # that `calibrate` wrote; may be left out
    camera:                                        # or `frames`, for averaged sharp frames
      frame_rate: 20                               # frames a second, in the order of their numbers
      shutter: 10ms
      start: 0.25s                                 # when the first exposure begins

A pattern is a path below the data set's folder, in which each {word} stands for a part of a name
and {frame} for the frame's number. A sequence's name is its split, then all other words in their
order in `blur`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from ...clocks.camera import CameraClock
from ...clocks.durations import TimelineError, parse_duration
from ...clocks.exposures import Exposures
from ...frames.listing import DATA_SUFFIXES, IMAGE_SUFFIXES, shorten
from ...host.reporter import counted
from ...host.validation import read_checked
from ...spikes.bounds import Gain, Hertz, Instant
from ...spikes.dat import SPIKE_SUFFIXES
from ...spikes.presets import GeometrySpec, SpikePreset, parse_geometry
from .contract import AlignmentError, FoundSequence, FoundWindow, in_order
from .pairing import leftovers, pair_frames
from .patterns import Key, Pattern, collect, files_below, filled, require_pattern, words_of

LAYOUT_SUFFIXES = (".yaml", ".yml")

_JOIN = (
    "if one recording is in several files, join them first: spikedeblur convert 'rec_*.dat' "
    "spike.dat --geometry ..."
)

_MOST_NUMBER = 10**9
"""Largest number of a frame, and most samples of an exposure."""


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


Seconds = Annotated[Instant, BeforeValidator(_seconds)]
"""Seconds; in the file a number, or a text with its unit, such as 16ms."""
PositiveSeconds = Annotated[Instant, BeforeValidator(_seconds), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Spikes(_Section):
    """The section `spikes`: where the `.dat` files are, and what is true of all of them."""

    files: Pattern
    """Pattern of one stream for each sequence; with {frame}, of one file for each exposure."""
    geometry: GeometrySpec | None = None
    """Geometry SPEC or preset; None: side files or --geometry give it."""
    rate: Hertz | None = None
    """Spike samples a second, in Hz."""
    gain: Gain | None = None
    """Spikes a sample at unit luminance."""
    sensor: str | None = Field(default=None, pattern=r"^[^\x00]+$")
    """Path of the sensor's file that `calibrate` wrote, from the data set's folder."""
    first: Seconds = 0.0
    """Time of sample 0 of a stream on the frames' time axis, in seconds."""
    before: int = Field(default=0, ge=0, le=_MOST_NUMBER)
    """Samples before the exposure in a file of its own."""
    after: Annotated[tuple[int, ...], Field(strict=False)] = (0,)
    """Samples after the exposure in a file of its own: each number that occurs."""
    scale: int | None = Field(default=None, ge=1, le=1000)
    """Size of the blurred frame over that of the spikes; None: not checked."""

    @model_validator(mode="after")
    def _check(self) -> Spikes:
        own_files = "{frame}" in self.files
        if set("*?[") & set(self.files):
            raise ValueError(f"files: expected {{words}} in place of *; {_JOIN}")
        if not self.files.lower().endswith(SPIKE_SUFFIXES):
            raise ValueError("files: expected a pattern that ends with .dat or .bin")
        if self.geometry is None and (self.rate, self.gain) != (None, None):
            raise ValueError("geometry: expected it beside rate and gain")
        if own_files and self.first != 0.0:
            raise ValueError("first: expected with one stream only; for own files give before")
        if not own_files and (self.before, self.after) != (0, (0,)):
            raise ValueError("before and after: expected with {frame} in files only")
        if not all(0 <= samples <= _MOST_NUMBER for samples in self.after or (-1,)):
            raise ValueError("after: expected numbers of samples, 0 or more")
        return self


class Frames(_Section):
    """The section `frames`: blurred frame n averages the sharp ones around offset + step n."""

    fps: Hertz
    """Sharp frames a second, in Hz."""
    exposure: int = Field(ge=1, le=_MOST_NUMBER)
    """Sharp frames that make a blurred one; odd."""
    step: int = Field(default=1, ge=1, le=_MOST_NUMBER)
    """Sharp frames from one number to the next."""
    offset: int = Field(default=0, ge=-_MOST_NUMBER, le=_MOST_NUMBER)
    """Number of the sharp frame in the middle of blurred frame 0."""


class Camera(_Section):
    """The section `camera`: `period` and `exposure`, or `frame_rate` and `shutter`, or `times`.

    With `period`, the exposure of the frame numbered n begins at first + n period, and the samples
    at both its ends belong to it. With `frame_rate`, frames follow each other at this rate whatever
    their numbers; these exposures, and those of `times`, are [start, end).
    """

    period: PositiveSeconds | None = None
    """Time from the start of one exposure to the start of the next, in seconds."""
    exposure: PositiveSeconds | None = None
    """Length of an exposure, in seconds."""
    first: Seconds = 0.0
    """Start of the exposure of frame 0, in seconds."""
    frame_rate: Hertz | None = None
    """Frames a second, in Hz."""
    shutter: PositiveSeconds | None = None
    """Length of an exposure, in seconds."""
    start: Seconds | None = None
    """Instant at which the first exposure begins, in seconds; None: 0, or as `times` says."""
    times: str | None = None
    """Pattern of a table of exposures or log of trigger edges, one for each sequence."""
    readout: Seconds | None = None
    """Time from a frame's first row to its last one, in seconds, of a rolling shutter; less than 0:
    the last row comes first. All other times are the first row's."""

    @model_validator(mode="after")
    def _check(self) -> Camera:
        by_period = (self.period, self.exposure)
        by_clock = (self.frame_rate, self.shutter, self.start, self.times)
        if by_period == (None, None):
            if self.first != 0.0:
                raise ValueError("first: expected with period only; write start")
            if by_clock == (None,) * 4:
                raise ValueError("expected frame_rate and shutter, times, or period and exposure")
            try:
                CameraClock(
                    frame_rate=self.frame_rate,
                    shutter=self.shutter,
                    start=self.start,
                    times=self.times,
                )
            except TimelineError as error:
                raise ValueError(_as_keys(error)) from error
            return self
        if by_clock != (None,) * 4:
            raise ValueError(
                "expected either period and exposure, or frame_rate, shutter, start and times"
            )
        if self.period is None or self.exposure is None:
            raise ValueError("expected both period and exposure, or frame_rate and shutter")
        if self.exposure > self.period:
            raise ValueError("exposure: expected no more than period")
        return self


def _as_keys(error: TimelineError) -> str:
    """Return a message about options as one about the keys of this file."""
    return str(error).replace("--frame-rate", "frame_rate").replace("--", "")


class Sharp(_Section):
    """The section `sharp`: sharp frames whose numbers are not those of the blurred ones."""

    files: Pattern
    """Pattern of the sharp frames."""
    step: int = Field(default=1, ge=1, le=_MOST_NUMBER)
    """Sharp frames from one blurred frame's number to the next."""
    offset: int = Field(default=0, ge=-_MOST_NUMBER, le=_MOST_NUMBER)
    """Number of the sharp frame that belongs to blurred frame 0."""


class LayoutFile(_Section):
    """The content of a layout file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the layout in manifests and messages."""
    split: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Split of all sequences; None: {split} is in the patterns."""
    blur: Pattern
    sharp: Sharp | None = None
    """Sharp frames; a pattern alone is `files`, with the blurred frames' numbers."""
    spikes: Spikes
    frames: Frames | None = None
    camera: Camera | None = None

    @field_validator("sharp", mode="before")
    @classmethod
    def _sharp_alone(cls, given: object) -> object:
        return {"files": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _check(self) -> LayoutFile:
        words, in_spikes = set(words_of(self.blur)), set(words_of(self.spikes.files))
        if self.camera is not None and self.camera.times is not None:
            require_pattern(self.camera.times)
            if extra := sorted(set(words_of(self.camera.times)) - (words - {"frame"})):
                raise ValueError(f"camera.times: {{{extra[0]}}} is no word of a sequence in blur")
        sharp = self.sharp.files if self.sharp else self.blur
        for key, pattern in (("blur", self.blur), ("sharp", sharp)):
            if not pattern.lower().endswith(IMAGE_SUFFIXES):
                raise ValueError(f"{key}: expected an ending of {', '.join(IMAGE_SUFFIXES)}")
            if "frame" not in words_of(pattern):
                raise ValueError(f"{key}: expected {{frame}}, the frame's number")
            if set(words_of(pattern)) != words:
                raise ValueError(f"{key}: expected the same {{words}} as in blur")
        if extra := sorted(in_spikes - words):
            raise ValueError(f"spikes.files: {{{extra[0]}}} is not in blur; {_JOIN}")
        if "frame" in in_spikes and in_spikes != words:
            raise ValueError("spikes.files: with {frame}, expected the same {words} as in blur")
        if ("split" in words) == (self.split is not None):
            raise ValueError("split: expected either this key or {split} in the patterns")
        if not words - {"split", "frame"}:
            raise ValueError("blur: expected a word for the sequence, such as {clip}")
        if (self.frames is None) == (self.camera is None):
            raise ValueError("expected either frames or camera, the blurred frames' clock")
        return self


def _misfits(
    root: Path, files: Iterable[str], collected: Iterable[dict[Key, dict[int, Path]]]
) -> list[str]:
    """Return a sentence about pictures and spikes beside those that fit a pattern, if there are."""
    fitting = {path for kind in collected for frames in kind.values() for path in frames.values()}
    folders = {path.parent for path in fitting}
    paths = (root / file for file in files if file.lower().endswith(DATA_SUFFIXES))
    misfits = [str(path) for path in paths if path.parent in folders and path not in fitting]
    return [f"{shorten(misfits)}: fits no pattern; left out"] if misfits else []


class CustomLayout:
    """A layout that a file describes; see `Layout`."""

    VARIANTS: tuple[str, ...] = ()

    def __init__(self, content: LayoutFile, where: str) -> None:
        self.NAME = content.name
        self.NEEDS = f"{content.blur} and {content.spikes.files} ({where})"
        self._content = content
        self._where = where

    def find(
        self, root: Path, exposure: int | None, variant: str | None = None
    ) -> list[FoundSequence]:
        """Return all sequences in order of `seq`."""
        content = self._content
        if exposure is not None and content.frames is None:
            raise AlignmentError(
                f"{self._where}: camera.exposure already gives the exposure; leave --exposure out"
            )
        files = list(files_below(root))
        blurs = collect(root, files, content.blur)
        sharps = collect(root, files, content.sharp.files) if content.sharp else {}
        spikes = collect(root, files, content.spikes.files)
        if not blurs:
            raise AlignmentError(
                f"{root}: expected blurred frames {content.blur} ({self._where}), found none "
                f"among {counted(len(files), 'file')}{': ' * bool(files)}{shorten(files, 3)}; "
                "correct the pattern or the path"
            )
        for name, pattern, collected in (
            ("sharp frames", content.sharp.files if content.sharp else None, sharps),
            ("spikes", content.spikes.files, spikes),
        ):
            if pattern is not None and not collected:
                raise AlignmentError(
                    f"{root}: expected {name} {pattern} ({self._where}), found none; correct the "
                    f"pattern{' or leave sharp out' if collected is sharps else ''}"
                )
        all_sharp = dict(sharps)
        sequences = [
            self._sequence(root, key, frames, sharps.pop(key, {}), spikes, exposure)
            for key, frames in sorted(blurs.items())
        ]
        unused = [path for frames in sharps.values() for path in frames.values()]
        used = {window.spikes for sequence in sequences for window in sequence.windows}
        unused += [p for frames in spikes.values() for p in frames.values() if p not in used]
        left_out = [f"{path}: no blurred frame belongs to it; left out" for path in unused]
        left_out += _misfits(root, files, (blurs, all_sharp, spikes))
        return in_order(root, self.NEEDS, sequences, left_out)

    def _sequence(
        self,
        root: Path,
        key: Key,
        blurs: dict[int, Path],
        sharps: dict[int, Path],
        spikes: Mapping[Key, dict[int, Path]],
        exposure: int | None,
    ) -> FoundSequence:
        content = self._content
        words = words_of(content.spikes.files)
        files = spikes.get(tuple(item for item in key if item[0] in words), {})
        own_files = "frame" in words
        if files and not own_files:
            files = dict.fromkeys(blurs, files[0])
        left_out = leftovers(blurs, files)
        if content.sharp is not None:
            step, offset = content.sharp.step, content.sharp.offset
            if (step, offset) == (1, 0):
                left_out += leftovers(blurs, sharps)  # else there are those between, too
            paired = {n: sharps[at] for n in blurs if (at := offset + step * n) in sharps}
            if sharps and not paired:
                raise AlignmentError(
                    f"{next(iter(blurs.values()))}: expected its sharp frame among "
                    f"{content.sharp.files}, found none of this number, nor of any other blurred "
                    f"frame of the sequence; correct sharp.step and sharp.offset in {self._where}"
                )
            sharps = paired
        windows = pair_frames(blurs, sharps, files, f"{root}/{content.spikes.files}")
        names = dict(key)
        parts = [names[word] for word in words_of(content.blur) if word not in ("split", "frame")]
        split = content.split or names["split"]
        fps, windows, exposures = _timed(content, windows, root, names)
        stated = content.spikes
        preset = None
        if stated.geometry is not None:
            geometry = parse_geometry(stated.geometry)
            preset = SpikePreset(
                geometry=geometry, source=self._where, rate=stated.rate, gain=stated.gain
            )
        return FoundSequence(
            seq="/".join((split, *parts)),
            windows=windows,
            exposure=(exposure or content.frames.exposure) if content.frames else None,
            fps=fps,
            own_files=own_files,
            exposures=exposures,
            readout=content.camera.readout if content.camera else None,
            lead_samples=stated.before,
            tail_samples=stated.after,
            first=stated.first,
            preset=preset,
            sensor=None if stated.sensor is None else root / stated.sensor,
            spike_scale=stated.scale,
            scene=names.get("scene"),
            stated_in=self._where,
            warnings=tuple(left_out),
        )


def is_layout_file(name: str) -> bool:
    """Whether a layout's name is a file's."""
    return name.lower().endswith(LAYOUT_SUFFIXES)


def read_layout(path: str | os.PathLike[str], *, taken: frozenset[str]) -> CustomLayout:
    """Read a layout file and check every key of it.

    Args:
        path: a YAML file.
        taken: names of other layouts.

    Raises:
        AlignmentError: missing, not YAML, or a key that is missing, unknown or impossible; names
            the key.
    """
    remedy = "docs/datasets.md explains each key and has examples"
    layout = read_checked(path, LayoutFile, AlignmentError, "a layout file", remedy)
    if layout.name in taken:
        raise AlignmentError(f"{path}: name: {layout.name} is a built-in layout; choose another")
    return CustomLayout(layout, os.fspath(path))


def _timed(
    content: LayoutFile, windows: tuple[FoundWindow, ...], root: Path, names: Mapping[str, str]
) -> tuple[float, tuple[FoundWindow, ...], Exposures | None]:
    """Return the frames a second, in Hz, and the windows with their centres, or exposures."""
    if content.frames is not None:
        step, offset = content.frames.step, content.frames.offset
        centred = (replace(w, centre=offset + step * w.frame_index) for w in windows)
        return content.frames.fps, tuple(centred), None
    assert content.camera is not None
    camera = content.camera
    if camera.period is not None:
        length, numbers = camera.exposure or 0.0, [window.frame_index for window in windows]
        starts = [camera.first + number * camera.period for number in numbers]
        exposures = Exposures.closed(
            [(start, start + length) for start in starts],
            "camera.exposure",
            "check camera.period and camera.first, and rate and first of the spikes",
            "write a longer exposure with its unit, such as 16ms",
        )
        return 1 / camera.period, windows, exposures
    times = camera.times and root / filled(camera.times, names)
    clock = CameraClock(
        frame_rate=camera.frame_rate, shutter=camera.shutter, start=camera.start, times=times
    )
    exposures = clock.exposures([window.blur.name for window in windows])
    return camera.frame_rate or exposures.frame_rate, windows, exposures
