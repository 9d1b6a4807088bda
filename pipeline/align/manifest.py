"""The manifest: everything that `align` learned of a data set, as JSON for the later stages.

Paths are POSIX and relative: `root` to the manifest's folder, all others to the root.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Annotated, Literal

import pydantic_core
from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from ...errors import SpikeDeblurError
from ...version import __version__
from ..host.documents import MAX_JSON_BYTES
from ..host.files import stays_below, write_text
from ..host.header import ProductFormat
from ..host.pieces import HashForm
from ..host.reading import read_file
from ..host.validation import first_problem
from ..spikes.between import Between, Cut
from ..spikes.bounds import MOST_COUNT, Count, Gain, Hertz, Instant
from ..spikes.clock import SpikeClock
from ..spikes.geometry import SpikeGeometry
from ..spikes.presets import GeometrySpec, parse_geometry
from ..spikes.registration import Matrix, Registration
from .log import AlignmentRow, format_alignment_log, require_seq
from .named_sensor import ClimbingPath, NamedSensor
from .verification import Misread as Misread
from .verification import Problem as Problem
from .verification import Record
from .verification import ReferenceKind as ReferenceKind
from .verification import Unproved as Unproved
from .verification import Verification as Verification

FORMAT = ProductFormat("spikedeblur.manifest", schema_version=1)

_REMEDY = "write it again with `spikedeblur align`"


class ManifestError(SpikeDeblurError):
    """A manifest can't be read; the message names the file and the entry."""


def _require_relative(path: str) -> str:
    if not stays_below(path):
        raise ValueError("expected a relative path that stays inside the root")
    return path


Nanoseconds = Annotated[int, Field(ge=-MOST_COUNT, le=MOST_COUNT)]
RelativePath = Annotated[str, AfterValidator(_require_relative)]


class FileRecord(Record):
    """Size, time and hash of a file when `align` saw it, for later stages to compare."""

    size: Count
    """Size in bytes."""
    mtime_ns: Nanoseconds
    """Time of the last change, in nanoseconds since 1970."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Hex SHA-256 of the content; None: the content was not read."""
    piece: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    """Bytes of the pieces whose digests `sha256` is of; None: it is of the content itself."""
    part: tuple[Count, Count] | None = None
    """Bytes [start, stop) that `sha256` is of; None: all."""

    @property
    def form(self) -> HashForm:
        """How `sha256` is made."""
        return HashForm(self.piece, self.part)

    @model_serializer(mode="wrap")
    def _without_what_few_have(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = dump(self)
        return {k: v for k, v in content.items() if v is not None or k == "sha256"}


class Space(Record):
    """Registration: where spike pixels lie in the colour frames; see `spikes.registration`."""

    matrix: Matrix
    """3x3, row by row: (x, y, 1) in spike pixels to frame pixels, (0, 0) the outer corner."""
    frame_shape: tuple[int, int]
    """(H, W) of the frames, in pixels."""
    by: Literal["calibration", "similarity", "affine", "homography"]
    """Read from a calibration file, or estimated from the frames with this model."""
    correlation: float | None = None
    """Correlation of registered blurred frames with long TFPs; None: calibrated."""
    error_pixels: float | None = Field(default=None, ge=0)
    """Standard error at the worst corner, in frame pixels; None: calibrated."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """Probability that every corner is right to a spike pixel; None: calibrated."""


class Window(Record):
    """One blurred frame and the spikes of its exposure."""

    frame_index: Count
    """The frame's number, as in its file name."""
    t0: Instant
    """Start of the exposure, in seconds."""
    t1: Instant
    """End of the exposure, in seconds; it belongs to the exposure."""
    spike_count: Count
    """Spikes of all pixels in [t0, t1]."""
    spikes: RelativePath
    """The `.dat` that holds the exposure's spikes."""
    first: Instant
    """Time of sample 0 of `spikes`, in seconds."""
    blur: RelativePath
    sharp: RelativePath | None = None
    instants: tuple[RelativePath, ...] = ()
    """Sharp frames at the sequence's `instants`, in order of time; none: it has none."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the window, without a sharp frame where there is none."""
        found = (self.spikes, self.blur, self.sharp, *self.instants)
        return tuple(path for path in found if path is not None)

    @model_serializer(mode="wrap")
    def _without_instants(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = dump(self)
        if not self.instants:
            del content["instants"]
        return content

    @model_validator(mode="after")
    def _check_times(self) -> Window:
        if self.t0 > self.t1:
            raise ValueError(f"expected t0 <= t1, found {self.t0} and {self.t1}")
        return self


class AlignedSequence(Record):
    """One recording: one camera's spikes, and the blurred frames of the camera beside it."""

    seq: Annotated[str, AfterValidator(require_seq)]
    """`<split>/<group>/<clip>`; in the unified layout `<split>/<sequence>`."""
    geometry: GeometrySpec
    """How spikes lie in the files, as `SpikeGeometry.describe` writes it."""
    rate: Hertz
    """Spike samples a second, in Hz."""
    gain: Gain | None = None
    """Spikes a sample at unit luminance; None: not known."""
    windows: tuple[Window, ...]
    """Exposures in ascending order of `frame_index`."""
    files: dict[RelativePath, FileRecord]
    """Every file that the windows name, by path."""
    links: dict[RelativePath, str] = Field(default_factory=dict)
    """Links in the data set's folder that lead out of it, and the absolute path of each target."""
    blur_kind: str | None = None
    """How the data set averaged the blurred frames, such as GoPro's blur or blur_gamma."""
    scene: str | None = None
    """What was filmed, where the data set says; None: see `scene_name`."""
    assigned_split: str | None = Field(default=None, pattern=r"^[^/]+$")
    """Split by `spikedeblur split`; None: the first part of `seq`."""
    readout: float | None = None
    """Time from the exposure of a frame's first row to that of its last one, in seconds; less than
    0: the last row comes first. None: not known. The windows' times are those of the first row."""
    instants: tuple[Annotated[float, Field(ge=-0.5, le=0.5)], ...] = ()
    """When the windows' sharp `instants` are, in exposures from the middle; none: it has none."""
    space: Space | None = None
    """Registration of the spikes; None: both cameras see the same field."""
    sensor: NamedSensor | None = None
    """How the spike pixels differ; None: not known, they are taken as equal."""
    verification: Verification | None = None
    """Measured lag; None: not measured."""
    part: tuple[Instant | None, Instant | None] | None = None
    """Times between which the recording was read, in seconds; None: all of it."""

    @property
    def between(self) -> Between | None:
        """Times between which the recording is read; None: all of it."""
        return None if self.part is None else Between(start=self.part[0], end=self.part[1])

    @property
    def finding(self) -> str | None:
        """What the frames show to be wrong with the spikes, in a sentence; None: nothing."""
        measured = self.verification
        return measured.warning if measured is not None and measured.is_wrong else None

    @model_serializer(mode="wrap")
    def _without_what_few_have(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = dump(self)
        if not self.links:
            del content["links"]
        for name in ("readout", "part", "sensor"):
            if content[name] is None:
                del content[name]
        if not self.instants:
            del content["instants"]
        return content

    @model_validator(mode="after")
    def _check_windows(self) -> AlignedSequence:
        indices = [window.frame_index for window in self.windows]
        if any(a >= b for a, b in itertools.pairwise(indices)):
            raise ValueError("expected windows in ascending order of frame_index, each once")
        if any(a >= b for a, b in itertools.pairwise(self.instants)):
            raise ValueError("expected instants in order of time, each once")
        if any(len(window.instants) != len(self.instants) for window in self.windows):
            raise ValueError("expected a sharp frame of each window at each of the instants")
        missing = sorted({p for w in self.windows for p in w.paths} - self.files.keys())
        if missing:
            raise ValueError(f"expected a record in `files` of {missing[0]!r}")
        return self

    @property
    def split(self) -> str:
        """train, val or test: as assigned, else the first part of `seq`."""
        return self.assigned_split or self.folder_split

    @property
    def folder_split(self) -> str:
        """First part of `seq`, which is the split by the data set's folders."""
        return self.seq.split("/", 1)[0]

    @property
    def scene_name(self) -> str:
        """Name of what was filmed: `scene`, else `seq` without its first and last part."""
        if self.scene is not None:
            return self.scene
        _, *middle, last = self.seq.split("/")
        return "/".join(middle) or last

    def spike_geometry(self) -> SpikeGeometry:
        """Return how the spikes lie in the files."""
        return parse_geometry(self.geometry)

    def registration(self) -> Registration | None:
        """Return the registration of `space`; None: both cameras see the same field.

        Raises:
            RegistrationError: the matrix maps spike pixels to no place in the frames.
        """
        if self.space is None:
            return None
        shape = self.spike_geometry().shape
        return Registration(self.space.matrix, shape, self.space.frame_shape)

    def plan(self) -> tuple[object, ...]:
        """Return what is known before any file is read: all but counts, hashes, measurements.

        Two sequences with the same plan are the same data, described in the same way.
        """
        windows = [
            (w.frame_index, w.t0, w.t1, w.spikes, w.first, w.blur, w.sharp, w.instants)
            for w in self.windows
        ]
        files = {name: (seen.size, seen.mtime_ns) for name, seen in self.files.items()}
        known = (self.seq, self.geometry, self.rate, self.gain, self.scene, self.blur_kind)
        calibrated = self.space is not None and self.space.by == "calibration"
        space = self.space if calibrated else None
        seen = (self.readout, self.part, self.instants, self.sensor)
        return *known, *seen, space, windows, files, self.links

    def clock(self, window: Window) -> SpikeClock:
        """Return the clock of the file that holds the window's spikes."""
        return SpikeClock(rate=self.rate, first=window.first, readout=self.readout or 0.0)

    def cut(self, window: Window) -> Cut | None:
        """Return the part that is read of the file with the window's spikes; None: all of it."""
        between = self.between
        return None if between is None else Cut(between, self.clock(window))


class SplitRecord(Record):
    """How `spikedeblur split` put the sequences in splits."""

    by: Literal["scene", "clip"]
    """What stays in one split."""
    val: float = Field(ge=0, lt=1)
    """Share of the exposures outside the test set that validation should get."""
    test: float = Field(ge=0, lt=1)
    """Share of the exposures outside the test set that should be added to it."""
    seed: int = Field(ge=-MOST_COUNT, le=MOST_COUNT)
    """Seed of the order in which scenes are drawn."""


class Manifest(Record):
    """All sequences of one data set, with the timeline that aligns them."""

    format: Literal["spikedeblur.manifest"] = "spikedeblur.manifest"
    schema_version: Literal[1] = 1
    version: str = __version__
    """Version of spikedeblur that wrote it."""
    layout: str
    root: ClimbingPath
    """The data set's folder, relative to the manifest's; may climb with `..`."""
    fps: Hertz
    """Sharp frames a second, in Hz."""
    exposure_frames: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    """Sharp frames that make a blurred one; None: sequences differ."""
    linear_light: bool | None = None
    """True: frames averaged in linear light; False: in gamma space; None: not known."""
    split: SplitRecord | None = None
    """How sequences were split; None: by their folders."""
    sequences: tuple[AlignedSequence, ...]
    """Sequences in ascending order of `seq`."""

    @model_validator(mode="after")
    def _check_sequences(self) -> Manifest:
        names = [sequence.seq for sequence in self.sequences]
        if any(a >= b for a, b in itertools.pairwise(names)):
            raise ValueError("expected sequences in ascending order of seq, each once")
        return self

    @property
    def links(self) -> dict[str, str]:
        """Links by which files of any sequence lie outside of the data set's folder."""
        return {link: to for sequence in self.sequences for link, to in sequence.links.items()}

    def root_folder(self, manifest_path: str | os.PathLike[str]) -> Path:
        """Return the absolute path of the data set's folder, from that of the manifest."""
        # Links are resolved first: `..` after a link leads elsewhere than it reads.
        return (Path(manifest_path).absolute().parent.resolve() / self.root).resolve()

    def log_rows(self) -> list[AlignmentRow]:
        """Return the alignment log's rows."""
        return [
            AlignmentRow(window.frame_index, window.t0, window.t1, window.spike_count, sequence.seq)
            for sequence in self.sequences
            for window in sequence.windows
        ]


def relative_root(root: Path, manifest: Path) -> str:
    """Return the data set's folder as a manifest at the path `manifest` names it."""
    folder = manifest.absolute().parent.resolve()
    return Path(os.path.relpath(root.resolve(), folder)).as_posix()


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write the manifest atomically; the same manifest gives the same bytes."""
    write_text(path, format_manifest(manifest))


def format_manifest(manifest: Manifest) -> str:
    """Return the manifest as JSON text."""
    try:
        return manifest.model_dump_json(indent=1) + "\n"
    except pydantic_core.PydanticSerializationError as error:
        raise ManifestError(
            f"{manifest.root!r}: a file or folder has a name that is no text in UTF-8, which a "
            "manifest can't hold; rename it"
        ) from error


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest and check every value in it.

    Raises:
        ManifestError: missing, not JSON, another format or version, or a wrong entry.
    """
    try:
        content = read_file(path, MAX_JSON_BYTES)
    except OSError as error:
        raise ManifestError(
            f"{path}: can't read the manifest ({error.strerror}); {_REMEDY}"
        ) from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: str | os.PathLike[str]) -> Manifest:
    """Check every value of a manifest.

    Args:
        content: bytes of the file.
        path: the file, for messages.

    Raises:
        ManifestError: not JSON, another format or version, or a wrong entry.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        # Only now, since to parse it twice takes as long as half of all the checks.
        try:
            header = pydantic_core.from_json(content)
        except ValueError as broken:
            raise ManifestError(
                f"{path}: expected a manifest (JSON), found text that isn't JSON ({broken}); "
                f"{_REMEDY}"
            ) from broken
        FORMAT.require(header, path, ManifestError, _REMEDY)
        raise ManifestError(f"{path}: {first_problem(error)}; {_REMEDY}") from error


def manifest_beside(log: str | os.PathLike[str]) -> Manifest | None:
    """Return the manifest `<log>.json` that `align` wrote with a log.

    None: it is missing, can't be read, or has other rows than the log.
    """
    beside = Path(log).with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        manifest = read_manifest(beside)
        same = format_alignment_log(manifest.log_rows()).encode() == read_file(log, MAX_JSON_BYTES)
    except (ManifestError, OSError):
        return None
    return manifest if same else None


def was_corrected(sequence: AlignedSequence) -> bool:
    """Whether clock, registration or readout are other than side files say."""
    applied = sequence.verification is not None and sequence.verification.applied
    return applied or sequence.space is not None or bool(sequence.readout)
