"""Layout files: a data set's folders, geometry and clock in YAML, so that none needs Python.

    name: my-camera
    split: test                                    # or {split} in the patterns
    blur: "{scene}/{clip}/rgb/{frame}.png"
    sharp: "{scene}/{clip}/sharp/{frame}.png"      # may be left out
    spikes:
      files: "{scene}/{clip}/spikes.dat"           # with {frame}: one file an exposure
      geometry: 250x400,bottom-up
      rate: 20000                                  # Hz
      gain: 0.6
    camera:                                        # or `frames`, for averaged sharp frames
      period: 0.05                                 # s from one exposure to the next
      exposure: 0.01                               # s

A pattern is a path below the root; {words} stand for a part of a name each. {frame} is the
frame's number. A sequence is called by its split and all other words in their order in `blur`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from ...frames.listing import IMAGE_SUFFIXES, shorten, walk_folders
from ...spikes.presets import SpikePreset, parse_geometry
from .contract import AlignmentError, FoundSequence, FoundWindow, leftovers, pair_frames

LAYOUT_SUFFIXES = (".yaml", ".yml")

_WORD = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_MAX_BYTES = 1 << 20


def _require_pattern(pattern: str) -> str:
    parts = pattern.split("/")
    if any(part in ("", ".", "..") or part.startswith(".") for part in parts) or "\\" in pattern:
        raise ValueError("expected a path below the root, such as {clip}/blur/{frame}.png")
    if set("{}") & set(_WORD.sub("", pattern)):
        raise ValueError("expected words of lower-case letters in braces, such as {clip}")
    return pattern


def _require_geometry(spec: str) -> str:
    parse_geometry(spec)
    return spec


Pattern = Annotated[str, AfterValidator(_require_pattern)]
Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Spikes(_Section):
    """Where the `.dat` files are and what is true of all of them."""

    files: Pattern
    """One stream a sequence; with {frame}, one file an exposure."""
    geometry: Annotated[str, AfterValidator(_require_geometry)] | None = None
    """A geometry SPEC; None: side files or --geometry say it."""
    rate: Positive | None = None
    """Spike frames a second, in Hz."""
    gain: Positive | None = None
    """Spikes a sample at unit luminance."""
    first: float = 0.0
    """Of a stream: time of sample 0 on the frames' time axis, in seconds."""
    before: int = Field(default=0, ge=0)
    """With a file an exposure: samples before it."""
    after: Annotated[tuple[int, ...], Field(strict=False)] = (0,)
    """With a file an exposure: how many samples may follow it; each length that occurs."""
    scale: int | None = Field(default=None, ge=1)
    """Size of the blurred frame over that of the spikes; None: not checked."""

    @model_validator(mode="after")
    def _check(self) -> Spikes:
        if not self.files.endswith(".dat"):
            raise ValueError("files: expected a pattern that ends with .dat")
        if self.geometry is None and (self.rate, self.gain) != (None, None):
            raise ValueError("geometry: expected it beside rate and gain")
        own = "{frame}" in self.files
        if own and self.first != 0.0:
            raise ValueError("first: expected with one stream only; for own files give before")
        if not own and (self.before, self.after) != (0, (0,)):
            raise ValueError("before and after: expected with {frame} in files only")
        if not self.after or min(self.after) < 0:
            raise ValueError("after: expected numbers of samples, 0 or more")
        return self


class Frames(_Section):
    """Blurred frames that average sharp ones: number n is centred on frame offset + step n."""

    fps: Positive
    """Sharp frames a second, in Hz."""
    exposure: int = Field(ge=1)
    """Sharp frames that make a blurred one; odd."""
    step: int = Field(default=1, ge=1)
    """Sharp frames from one number to the next."""
    offset: int = 0
    """Sharp frame in the middle of number 0."""


class Camera(_Section):
    """Blurred frames of a camera: number n is exposed from first + n period, in seconds."""

    period: Positive
    """From the start of one exposure to the start of the next, in seconds."""
    exposure: Positive
    """In seconds."""
    first: float = 0.0
    """When number 0 began to be exposed, in seconds."""

    @model_validator(mode="after")
    def _check(self) -> Camera:
        if self.exposure > self.period:
            raise ValueError("exposure: expected no more than period")
        return self


class LayoutFile(_Section):
    """The content of a layout file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """The layout's name in manifests and messages."""
    split: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Split of all sequences, where no {split} is in the patterns."""
    blur: Pattern
    sharp: Pattern | None = None
    spikes: Spikes
    frames: Frames | None = None
    camera: Camera | None = None

    @model_validator(mode="after")
    def _check(self) -> LayoutFile:
        words = _words(self.blur)
        for key, pattern in (("blur", self.blur), ("sharp", self.sharp)):
            if pattern is None:
                continue
            if not pattern.lower().endswith(IMAGE_SUFFIXES):
                raise ValueError(f"{key}: expected an ending of {', '.join(IMAGE_SUFFIXES)}")
            if "frame" not in _words(pattern):
                raise ValueError(f"{key}: expected {{frame}}, the frame's number")
        if self.sharp is not None and set(_words(self.sharp)) != set(words):
            raise ValueError("sharp: expected the same {words} as in blur")
        own = set(_words(self.spikes.files))
        if not own <= set(words):
            extra = sorted(own - set(words))[0]
            raise ValueError(f"spikes.files: {{{extra}}} is not in blur")
        if "frame" in own and own != set(words):
            raise ValueError("spikes.files: with {frame}, expected the same {words} as in blur")
        if ("split" in words) == (self.split is not None):
            raise ValueError("split: expected either this key or {split} in the patterns")
        if not set(words) - {"split", "frame"}:
            raise ValueError("blur: expected a word for the sequence, such as {clip}")
        if (self.frames is None) == (self.camera is None):
            raise ValueError("expected either frames or camera, the blurred frames' clock")
        return self


class CustomLayout:
    """A layout that a file describes; see `Layout`."""

    VARIANTS: tuple[str, ...] = ()

    def __init__(self, content: LayoutFile, where: str) -> None:
        self.NAME = content.name
        self.NEEDS = f"{content.blur} and {content.spikes.files} ({where})"
        self._content = content
        self._where = where

    def recognise(self, root: Path) -> str | None:
        """Return what in `root` shows this layout, or None."""
        blur = _expression(self._content.blur)
        return next((path for path in _files(root) if blur.fullmatch(path)), None)

    def find(
        self, root: Path, exposure: int | None, variant: str | None = None
    ) -> list[FoundSequence]:
        """Return all sequences, by seq."""
        content = self._content
        if exposure is not None and content.frames is None:
            raise AlignmentError(
                f"{self._where}: camera.exposure says how long frames are exposed; leave "
                "--exposure out"
            )
        files = list(_files(root))
        blurs = _collect(root, files, content.blur)
        sharps = _collect(root, files, content.sharp) if content.sharp else {}
        spikes = _collect(root, files, content.spikes.files)
        if not blurs:
            raise AlignmentError(
                f"{root}: expected blurred frames {content.blur} ({self._where}), found none "
                f"among {len(files)} files{': ' * bool(files)}{shorten(files, 3)}; correct the "
                "pattern or the path"
            )
        found = [
            self._sequence(root, key, frames, sharps.pop(key, {}), spikes, exposure)
            for key, frames in sorted(blurs.items())
        ]
        unused = [path for frames in sharps.values() for path in frames.values()]
        used = {window.spikes for sequence in found for window in sequence.windows}
        unused += [p for frames in spikes.values() for p in frames.values() if p not in used]
        orphans = tuple(f"{path}: no blurred frame belongs to it; left out" for path in unused)
        found[0] = replace(found[0], warnings=(*found[0].warnings, *orphans))
        return sorted(found, key=lambda sequence: sequence.seq)

    def _sequence(
        self,
        root: Path,
        key: _Key,
        blurs: dict[int, Path],
        sharps: dict[int, Path],
        spikes: Mapping[_Key, dict[int, Path]],
        exposure: int | None,
    ) -> FoundSequence:
        content = self._content
        own = _words(content.spikes.files)
        there = spikes.get(tuple(item for item in key if item[0] in own), {})
        own_files = "frame" in own
        streams = dict.fromkeys(blurs, there[0]) if there and not own_files else {}
        windows = pair_frames(
            blurs, sharps, there if own_files else streams, f"{root}/{content.spikes.files}"
        )
        names = dict(key)
        parts = [names[word] for word in _words(content.blur) if word not in ("split", "frame")]
        split = content.split or names["split"]
        fps, windows = _timed(content, windows)
        published = None
        if content.spikes.geometry is not None:
            published = SpikePreset(
                geometry=parse_geometry(content.spikes.geometry),
                source=self._where,
                rate=content.spikes.rate,
                gain=content.spikes.gain,
            )
        return FoundSequence(
            seq="/".join((split, *parts)),
            windows=windows,
            exposure=(exposure or content.frames.exposure) if content.frames else None,
            fps=fps,
            own_files=own_files,
            lead_samples=content.spikes.before,
            tail_samples=content.spikes.after,
            first=content.spikes.first,
            preset=published,
            spike_scale=content.spikes.scale,
            scene=names.get("scene"),
            warnings=tuple(leftovers(blurs, sharps, there if own_files else {})),
        )


def is_layout_file(name: str) -> bool:
    """Say whether a layout's name is that of a layout file."""
    return name.lower().endswith(LAYOUT_SUFFIXES)


def read_layout(path: str | os.PathLike[str], *, taken: frozenset[str]) -> CustomLayout:
    """Read a layout file and check every key of it.

    Args:
        path: a YAML file.
        taken: names that it can't have.

    Raises:
        AlignmentError: not there, not YAML, or a key that is missing, unknown or impossible;
            names the key.
    """
    try:
        with Path(path).open("rb") as file:
            content: Any = yaml.safe_load(file.read(_MAX_BYTES))
    except OSError as error:
        raise AlignmentError(f"{path}: can't read the layout file ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AlignmentError(f"{path}: expected a layout file in YAML ({error})") from error
    if not isinstance(content, dict):
        raise AlignmentError(
            f"{path}: expected a layout file with name, blur, spikes and frames or camera, found "
            f"{type(content).__name__}; docs/datasets.md has an example"
        )
    try:
        layout = LayoutFile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        found = repr(first["input"])
        if not isinstance(first["input"], dict) and found not in reason:
            reason += f", found {found if len(found) <= 80 else found[:77] + '...'}"
        raise AlignmentError(
            f"{path}: {f'{place}: ' if place else ''}{reason}; docs/datasets.md explains each key"
        ) from error
    if layout.name in taken:
        raise AlignmentError(f"{path}: name: {layout.name} is a built-in layout; choose another")
    return CustomLayout(layout, os.fspath(path))


_Key = tuple[tuple[str, str], ...]
"""Words but {frame} and what they stand for, by word."""


def _words(pattern: str) -> list[str]:
    """Return the words of a pattern, each once, in order."""
    return list(dict.fromkeys(_WORD.findall(pattern)))


def _expression(pattern: str) -> re.Pattern[str]:
    seen: set[str] = set()
    text = ""
    for i, part in enumerate(_WORD.split(pattern)):
        if i % 2 == 0:
            text += re.escape(part)
        elif part in seen:
            text += f"(?P={part})"
        else:
            seen.add(part)
            text += f"(?P<{part}>{'[0-9]{1,9}' if part == 'frame' else '[^/]+'})"
    return re.compile(text)


def _files(root: Path) -> Iterator[str]:
    """Yield all visible files below `root`, relative to it, in order."""
    for folder, _, names in walk_folders(root):
        top = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for name in names:
            yield top + name


def _collect(root: Path, files: list[str], pattern: str) -> dict[_Key, dict[int, Path]]:
    """Return the files that fit a pattern, by words and number; number 0 without {frame}."""
    expression = _expression(pattern)
    found: dict[_Key, dict[int, Path]] = {}
    for file in files:
        match = expression.fullmatch(file)
        if match is None:
            continue
        words = match.groupdict()
        number = int(words.pop("frame", "0"))
        frames = found.setdefault(tuple(sorted(words.items())), {})
        if number in frames:
            raise AlignmentError(
                f"{root}: {frames[number].relative_to(root)} and {file} are both frame {number} "
                f"by {pattern}; remove one"
            )
        frames[number] = root / file
    return found


def _timed(
    content: LayoutFile, windows: tuple[FoundWindow, ...]
) -> tuple[float, tuple[FoundWindow, ...]]:
    """Return sharp frames a second (of a camera its own), and the windows on the time axis."""
    if content.frames is not None:
        step, offset = content.frames.step, content.frames.offset
        return content.frames.fps, tuple(
            replace(window, centre=offset + step * window.frame_index) for window in windows
        )
    assert content.camera is not None
    camera = content.camera
    timed = []
    for window in windows:
        start = camera.first + window.frame_index * camera.period
        timed.append(replace(window, times=(start, start + camera.exposure)))
    return 1 / camera.period, tuple(timed)
