"""The manifest: all that `align` found out, as JSON that later stages start from.

Paths are POSIX and relative: `root` to the manifest's own folder, the rest to the root.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

import pydantic_core
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ... import __version__
from ...errors import SpikeDeblurError
from ..host.files import write_text
from ..spikes.clock import SpikeClock
from ..spikes.geometry import SpikeGeometry
from ..spikes.presets import parse_geometry
from ..spikes.registration import Registration
from .log import AlignmentRow, format_alignment_log, require_seq

FORMAT: Final = "spikedeblur.manifest"
SCHEMA_VERSION: Final = 1

_REMEDY = "write it again with `spikedeblur align`"


class ManifestError(SpikeDeblurError):
    """A manifest can't be read; the message names the file and the entry."""


def _require_relative(path: str) -> str:
    # By hand: a manifest of X-TRAIN has 140,000 paths, and pathlib takes 10 us for each.
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or set(parts) <= {"", "."} or "\x00" in path:
        raise ValueError("expected a relative path that stays inside the root")
    return path


def _require_climbing(path: str) -> str:
    if PurePosixPath(path).is_absolute() or not path or "\x00" in path:
        raise ValueError("expected a path relative to the manifest's folder")
    return path


def _require_geometry(spec: str) -> str:
    parse_geometry(spec)
    return spec


RelativePath = Annotated[str, AfterValidator(_require_relative)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileRecord(_Record):
    """What a file was when it was seen; later stages compare."""

    size: int = Field(ge=0)
    """In bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds since 1970."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Hex SHA-256 of the content; None: not read yet."""


ReferenceKind = Literal["blur", "sharp"]

Problem = Literal[
    "flat",
    "still",
    "unlike",
    "rows flipped",
    "columns flipped",
    "rotated",
    "transposed",
    "geometry",
    "swapped",
    "edge",
    "rival",
    "unsure",
    "sharp apart",
]
"""What the images show to be wrong, or why they prove nothing; see docs/alignment.md."""


class Verification(_Record):
    """How far the spikes are from the images in time, as measured from both."""

    lag_frames: float
    """Spike samples by which the best match comes after the expected one."""
    lag_seconds: float
    """The same, in seconds."""
    correlation: float = Field(ge=-1, le=1)
    """Of the image and the TFP at the best lag."""
    confident: bool
    """False if the images prove nothing, such as a flat scene."""
    warning: str | None = None
    """What is wrong, in words; None if nothing is."""
    by: ReferenceKind = "sharp"
    """Which images it was measured from."""
    problem: Problem | None = None
    """What is wrong, in a word; None if nothing is."""
    confidence: float = Field(default=0.0, ge=0, le=1)
    """Probability that the lag is right to within 1 % of the exposure, or one sample."""
    error_frames: float | None = Field(default=None, ge=0)
    """Standard error of the lag, in samples."""
    at_frame: float | None = None
    """Sample, as the clock before any correction counts, at which the lag holds."""
    drift_ppm: float | None = None
    """By how much the true rate is above the known one, in millionths; None: can't be told."""
    drift_error_ppm: float | None = Field(default=None, ge=0)
    """Its standard error."""
    rival: float | None = None
    """Best correlation outside the main lobe."""
    applied: bool = False
    """True: the sequence's clock has been corrected by lag and drift."""


class Space(_Record):
    """Where spike pixels lie in the colour frames; see `spikes.registration`."""

    matrix: tuple[float, float, float, float, float, float, float, float, float]
    """3x3, row by row: (x, y, 1) in spike pixels to frame pixels, (0, 0) the outer corner."""
    frame_shape: tuple[int, int]
    """(H, W) of the frames, in pixels."""
    by: Literal["calibration", "similarity", "affine", "homography"]
    """Given by a file, or estimated from the frames with this model."""
    correlation: float | None = None
    """Of blurred frames and long TFPs, once registered; None: given."""
    error_pixels: float | None = Field(default=None, ge=0)
    """Standard error at the worst corner, in frame pixels; None: given."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """Probability that every corner is right to a spike pixel; None: given."""


class Window(_Record):
    """One blurred frame and the spikes of its exposure."""

    frame_index: int = Field(ge=0)
    """The frame's number, as in its file name."""
    t0: float
    """Start of the exposure, in seconds."""
    t1: float
    """End of the exposure, in seconds; it belongs to the exposure."""
    spike_count: int = Field(ge=0)
    """Spikes of all pixels in [t0, t1]."""
    spikes: RelativePath
    """The `.dat` that holds them."""
    first: float
    """Time of that file's sample 0, in seconds."""
    blur: RelativePath
    sharp: RelativePath | None = None

    @model_validator(mode="after")
    def _check_times(self) -> Window:
        if self.t0 > self.t1:
            raise ValueError(f"expected t0 <= t1, found {self.t0} and {self.t1}")
        return self


class AlignedSequence(_Record):
    """One recording: spikes of one camera and the blurred frames beside them."""

    seq: Annotated[str, AfterValidator(require_seq)]
    """`<split>/<group>/<clip>`; in the unified layout `<split>/<sequence>`."""
    geometry: Annotated[str, AfterValidator(_require_geometry)]
    """`SpikeGeometry.describe()`."""
    rate: float = Field(gt=0)
    """Spike frames a second, in Hz."""
    gain: float | None = Field(default=None, gt=0)
    """Spikes a sample at unit luminance; None: not known."""
    windows: tuple[Window, ...]
    """By frame_index, ascending."""
    files: dict[RelativePath, FileRecord]
    """Every file that the windows name."""
    blur_kind: str | None = None
    """Which of the data set's ways to average frames: GoPro's blur or blur_gamma."""
    scene: str | None = None
    """What was filmed, where the data set says; None: see `scene_name`."""
    assigned_split: str | None = Field(default=None, pattern=r"^[^/]+$")
    """The split that `spikedeblur split` put it in; None: the first part of `seq`."""
    space: Space | None = None
    """None: both cameras see the same field, whole."""
    verification: Verification | None = None
    """None: not verified."""

    @model_validator(mode="after")
    def _check_windows(self) -> AlignedSequence:
        indices = [window.frame_index for window in self.windows]
        if any(a >= b for a, b in itertools.pairwise(indices)):
            raise ValueError("expected windows in ascending order of frame_index, each once")
        named = {p for w in self.windows for p in (w.spikes, w.blur, w.sharp) if p is not None}
        missing = sorted(named - self.files.keys())
        if missing:
            raise ValueError(f"expected a record in `files` of {missing[0]!r}")
        return self

    @property
    def split(self) -> str:
        """train, val or test: as assigned, else the first part of `seq`."""
        return self.assigned_split or self.folder_split

    @property
    def folder_split(self) -> str:
        """The first part of `seq`."""
        return self.seq.split("/", 1)[0]

    @property
    def scene_name(self) -> str:
        """What was filmed: as the data set says, else `seq` without its ends."""
        if self.scene is not None:
            return self.scene
        _, *middle, last = self.seq.split("/")
        return "/".join(middle) or last

    def spike_geometry(self) -> SpikeGeometry:
        """Return how the spikes lie in the files."""
        return parse_geometry(self.geometry)

    def registration(self) -> Registration | None:
        """Return where spike pixels lie in the frames; None: both cameras see the same field.

        Raises:
            RegistrationError: the matrix maps them to no place.
        """
        if self.space is None:
            return None
        shape = self.spike_geometry().shape
        return Registration(self.space.matrix, shape, self.space.frame_shape)

    def plan(self) -> tuple[object, ...]:
        """Return all that is known before anything is read: no counts, hashes, measurements.

        Two sequences with the same plan are the same data, described in the same way.
        """
        windows = [
            (w.frame_index, w.t0, w.t1, w.spikes, w.first, w.blur, w.sharp) for w in self.windows
        ]
        files = {name: (seen.size, seen.mtime_ns) for name, seen in self.files.items()}
        known = (self.seq, self.geometry, self.rate, self.gain, self.scene, self.blur_kind)
        given = self.space if self.space is not None and self.space.by == "calibration" else None
        return *known, given, windows, files

    def clock(self, window: Window) -> SpikeClock:
        """Return the clock of the file that holds the window's spikes."""
        return SpikeClock(rate=self.rate, first=window.first)


class SplitRecord(_Record):
    """How `spikedeblur split` dealt the sequences out."""

    by: Literal["scene", "clip"]
    """What is never divided."""
    val: float = Field(ge=0, lt=1)
    """Share of the exposures outside the test set that was aimed at for validation."""
    test: float = Field(ge=0, lt=1)
    """The same, added to the test set."""
    seed: int


class Manifest(_Record):
    """All sequences of one data set, with the timeline that aligns them."""

    format: Literal["spikedeblur.manifest"] = FORMAT
    schema_version: Literal[1] = SCHEMA_VERSION
    version: str = __version__
    """Of the spikedeblur that wrote it."""
    layout: str
    root: Annotated[str, AfterValidator(_require_climbing)]
    """The data set's folder, relative to the manifest's; may climb with `..`."""
    fps: float = Field(gt=0)
    """Sharp frames a second."""
    exposure_frames: int | None = Field(default=None, ge=1)
    """Sharp frames that make a blurred one; None where it varies by sequence."""
    linear_light: bool | None = None
    """True: averaged in linear light; False: in gamma space; None: not known."""
    split: SplitRecord | None = None
    """None: sequences are in the splits that their folders name."""
    sequences: tuple[AlignedSequence, ...]
    """By seq, ascending."""

    @model_validator(mode="after")
    def _check_sequences(self) -> Manifest:
        names = [sequence.seq for sequence in self.sequences]
        if any(a >= b for a, b in itertools.pairwise(names)):
            raise ValueError("expected sequences in ascending order of seq, each once")
        return self

    def root_folder(self, manifest_path: str | os.PathLike[str]) -> Path:
        """Return the data set's folder, given where this manifest lies."""
        # Links are resolved first: `..` after a link leads elsewhere than it reads.
        return (Path(manifest_path).absolute().parent.resolve() / self.root).resolve()

    def log_rows(self) -> list[AlignmentRow]:
        """Return the alignment log's rows."""
        return [
            AlignmentRow(window.frame_index, window.t0, window.t1, window.spike_count, sequence.seq)
            for sequence in self.sequences
            for window in sequence.windows
        ]


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
        ManifestError: not there, not JSON, another format or version, or a wrong entry.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ManifestError(
            f"{path}: can't read the manifest ({error.strerror}); {_REMEDY}"
        ) from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: str | os.PathLike[str]) -> Manifest:
    """Check every value of a manifest.

    Args:
        content: the file.
        path: where it is from, for messages.

    Raises:
        ManifestError: not JSON, another format or version, or a wrong entry.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        # Only now, since to parse it twice takes as long as half of all the checks.
        _check_header(path, _parse(path, content))
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        found = repr(first["input"])
        reason = first["msg"].removeprefix("Value error, ")
        if found not in reason:
            reason += f", found {found if len(found) <= 80 else found[:77] + '...'}"
        raise ManifestError(
            f"{path}: {place.lstrip('.') or 'manifest'}: {reason}; {_REMEDY}"
        ) from error


def _parse(path: str | os.PathLike[str], content: bytes) -> Any:
    try:
        return pydantic_core.from_json(content)
    except ValueError as error:
        raise ManifestError(
            f"{path}: expected a manifest (JSON), found text that isn't JSON ({error}); {_REMEDY}"
        ) from error


def _check_header(path: str | os.PathLike[str], header: Any) -> None:
    found = header.get("format") if isinstance(header, dict) else type(header).__name__
    if not isinstance(header, dict) or found != FORMAT:
        raise ManifestError(
            f'{path}: expected a manifest with "format": {FORMAT!r}, found {found!r}; give the '
            "file that `spikedeblur align` wrote"
        )
    version = header.get("schema_version")
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise ManifestError(
            f"{path}: expected manifest schema {SCHEMA_VERSION}, found {version!r} "
            f"(written by spikedeblur {header.get('version')!r}); "
            + ("it is newer than this program: update spikedeblur" if newer else _REMEDY)
        )


def manifest_beside(log: str | os.PathLike[str]) -> Manifest | None:
    """Return the manifest that `align` wrote with a log, `<log>.json`; None if it isn't there.

    One that is of another log, or can't be read, is none.
    """
    beside = Path(log).with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        manifest = read_manifest(beside)
        same = format_alignment_log(manifest.log_rows()).encode() == Path(log).read_bytes()
    except (ManifestError, OSError):
        return None
    return manifest if same else None


def was_corrected(sequence: AlignedSequence) -> bool:
    """Whether clock or place differ from what side files and sizes say."""
    applied = sequence.verification is not None and sequence.verification.applied
    return applied or sequence.space is not None
