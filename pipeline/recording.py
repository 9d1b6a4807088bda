"""One recording to restore: a folder of blurred frames and one spike stream, nothing voxelized.

Says which spikes belong to each frame (from an alignment log, or from the exposure's length and
the frame's number) and reads both as a `WindowSequence`, spikes counted when asked for.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import SpikeDeblurError
from .align.beside import manifest_beside
from .align.calibration import read_calibration
from .align.layouts.contract import folder_names, index_frames, shorten
from .align.log import read_alignment_log
from .align.manifest import read_manifest
from .align.timeline import exposure_window, names_are_interpolated
from .files import inside
from .images import IMAGE_SUFFIXES, read_rgb
from .metrics import to_uint8
from .spikes import read_side_file
from .spikes.reconstruct import sdm
from .spikes.registration import open_spikes
from .spikes.settings import SpikeSettings, settle
from .spikes.sidefile import FOLDER_SIDE_FILE, side_file_path
from .store.sequence import Span

STREAM = "spike.dat"
"""Name under which a folder's side file speaks of one stream, first time included."""

_FRAMES_KEPT = 8
_BLUR_FOLDER = re.compile(r"(.+)_blurry_[1-9][0-9]*")


class RecordingError(SpikeDeblurError):
    """Blurred frames and spikes can't be brought together."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One blurred frame and when it was exposed."""

    path: Path
    frame_index: int
    t0: float
    """In seconds."""
    t1: float
    """In seconds; it belongs to the exposure."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Blurred frames, when they were exposed, and one spike stream that holds all exposures."""

    seq: str
    exposures: Sequence[Exposure]
    dat: Path
    settings: SpikeSettings


class RecordingSequence:
    """Blurred frames and their spikes; see `WindowSequence`. Has no sharp frames."""

    has_sharp = False
    has_spikes = True
    is_remote = False
    windows_are_raw = True

    def __init__(
        self,
        seq: str,
        exposures: Sequence[Exposure],
        dat: str | os.PathLike[str],
        settings: SpikeSettings,
        bins: int | None,
        *,
        at: float = 0.0,
    ) -> None:
        """Check that every exposure lies inside the recording.

        Another instant than an exposure's middle gets a window around it, as long as the exposure
        or as far as the recording reaches on both sides, and the blurred frame of that window:
        the exposure's own, times the spikes' rate there over their rate in the exposure.

        Args:
            seq: the recording's name.
            exposures: in order of time, at least one.
            dat: the spike stream.
            settings: of the stream.
            bins: K; None: 32, or one a sample where an exposure holds fewer.
            at: the instant, from the exposure's middle, in exposures; -0.5 to 0.5.

        Raises:
            SpikeDeblurError: an exposure outside the recording or with fewer samples than bins,
                or a first frame that can't be read.
        """
        self.seq = seq
        self.gain = settings.gain
        self._file = open_spikes(Path(dat), settings.geometry, settings.registration)
        self._exposures = tuple(exposures)
        self._spans = [
            settings.clock.require_inside(
                e.t0, e.t1, self._file.n_frames, f"{dat}, frame {e.path.name}"
            )
            for e in exposures
        ]
        self._own_spans = self._spans
        if at:
            self._spans = [_span_around(span, at, self._file.n_frames) for span in self._spans]
        fewest = min(stop - start for start, stop in self._spans)
        self.bins = min(32, fewest) if bins is None else bins
        if fewest < self.bins:
            raise RecordingError(
                f"{dat}: an exposure holds {fewest} spike samples at {settings.rate:g} Hz, but "
                f"the model was trained with {self.bins} bins; check exposure, fps and rate, ask "
                "for fewer --frames-per-exposure, or use --method sdm"
            )
        self.frame_shape: tuple[int, int] = read_rgb(exposures[0].path).shape[:2]
        self.voxel_shape = settings.geometry.shape
        where = settings.registration
        if where is not None and where.frame_shape != self.frame_shape:
            raise RecordingError(
                f"{exposures[0].path}: expected frames of {where.frame_shape}, for which the "
                f"spikes are registered, found {self.frame_shape}"
            )
        self._frames: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()

    @property
    def length(self) -> int:
        """N."""
        return len(self._exposures)

    @property
    def exposures(self) -> tuple[Exposure, ...]:
        """The frames, in order of time."""
        return self._exposures

    @property
    def frame_index(self) -> np.ndarray:
        """(N,) int64."""
        return np.array([e.frame_index for e in self._exposures], np.int64)

    @property
    def t0(self) -> np.ndarray:
        """(N,) float64, seconds."""
        return np.array([e.t0 for e in self._exposures], np.float64)

    @property
    def t1(self) -> np.ndarray:
        """(N,) float64, seconds."""
        return np.array([e.t1 for e in self._exposures], np.float64)

    @property
    def samples(self) -> np.ndarray:
        """(N,) int64."""
        return np.array([stop - start for start, stop in self._spans], np.int64)

    @property
    def voxel_dtype(self) -> str:
        """uint8, or uint16 where a bin can exceed 255."""
        return "uint16" if -(-int(self.samples.max()) // self.bins) > 255 else "uint8"

    def voxels(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return raw counts (T, K, h, w), uint8 or uint16."""
        counts = [
            self._file.counts(self.bins, *span, rows=rows, columns=columns)
            for span in self._spans[start:stop]
        ]
        return np.stack(counts)

    def blur(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Return blurred frames (T, H, W, 3) uint8."""
        y, x = (slice(None) if span is None else slice(*span) for span in (rows, columns))
        return np.stack([self._frame(i)[y, x] for i in range(start, stop)])

    def sharp(
        self, start: int, stop: int, rows: Span | None = None, columns: Span | None = None
    ) -> np.ndarray:
        """Refuse: a recording has no sharp frames."""
        raise RecordingError(f"{self.seq}: no sharp frames in a recording")

    def spikes(self, window: int, rows: Span | None = None) -> npt.NDArray[np.uint8]:
        """Return one exposure's spikes (samples, h, w) uint8 of 0/1, upright."""
        return self._file.read(*self._spans[window], rows)

    def spikes_beside(
        self, window: int, beside: int, rows: Span | None = None, columns: Span | None = None
    ) -> tuple[npt.NDArray[np.uint8], int]:
        """Return one exposure's spikes, with some before and after it; see `SpikeWindows`."""
        start, stop = self._spans[window]
        first, last = max(0, start - beside), min(stop + beside, self._file.n_frames)
        return self._file.read(first, last, rows, columns), start - first

    def _frame(self, i: int) -> npt.NDArray[np.uint8]:
        # Tiles of one clip ask for the same few frames again and again.
        if i not in self._frames:
            self._frames[i] = self._moved(i, read_rgb(self._exposures[i].path, self.frame_shape))
            if len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        self._frames.move_to_end(i)
        return self._frames[i]

    def _moved(self, i: int, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the blurred frame (H, W, 3) of the window around the instant wanted."""
        if self._spans[i] == self._own_spans[i]:
            return frame
        there, own = (
            self._file.counts(1, *span)[0] / np.float32(span[1] - span[0])
            for span in (self._spans[i], self._own_spans[i])
        )
        blur = np.asarray(frame / np.float32(255), np.float32)
        return to_uint8(sdm(blur, there, own))


def _span_around(own: Span, at: float, samples: int) -> Span:
    """Return samples [start, stop) around an instant, inside a recording."""
    start, stop = own
    middle = (start + stop) / 2 + at * (stop - start)
    half = min((stop - start) / 2, middle, samples - middle)
    return round(middle - half), round(middle + half)


def find_recording(
    blur: Path,
    spikes: str | os.PathLike[str],
    *,
    log: str | os.PathLike[str] | None = None,
    seq: str | None = None,
    exposure: int | None = None,
    fps: float | None = None,
    rate: float | None = None,
    geometry: str | None = None,
    gain: float | None = None,
    first: float | None = None,
    calibration: str | os.PathLike[str] | None = None,
) -> Recording:
    """Bring a folder of blurred frames and a spike stream together.

    Args:
        blur: folder of blurred frames named by number.
        spikes: one `.dat` stream that holds all their exposures.
        log: alignment log with the frames' times; or else `exposure` and `fps`.
        seq: the sequence's name in the log; None: found by the folder's name.
        exposure: sharp frames that make a blurred one; odd.
        fps: sharp frames a second.
        rate: spike samples a second, in Hz; None: from side file or preset.
        geometry: SPEC or preset; None: from the side file.
        gain: spikes a sample at unit luminance; None: from side file or preset.
        first: time of the stream's sample 0 in seconds; None: from the side file, else 0.
        calibration: file that says where spike pixels lie in the frames; None: as the manifest
            beside the log says, else both cameras see the same.

    Raises:
        SpikeDeblurError: no way to tell the times, or an input that can't be used; names it.
    """
    settings = settle_spikes(spikes, geometry=geometry, rate=rate, gain=gain, first=first)
    if log is not None:
        seq, exposures = exposures_by_log(blur, log, seq)
        given = rate is not None or first is not None
        settings = as_aligned(settings, log, seq, keep_clock=given)
    elif exposure is None or fps is None:
        raise RecordingError(
            "expected the frames' times from a log, or from both exposure and fps; give --log, or "
            "--exposure and --fps"
        )
    else:
        seq, exposures = seq or blur.name, exposures_by_number(blur, exposure, fps)
    if calibration is not None:
        settings = replace(settings, registration=read_calibration(calibration))
    return Recording(seq, exposures, Path(spikes), settings)


def recordings_of(manifest: str | os.PathLike[str], split: str | None = None) -> list[Recording]:
    """Return the recordings of a manifest, with the times, clocks and places that it holds.

    Args:
        manifest: that `align` wrote.
        split: train, val or test; None: all.

    Raises:
        RecordingError: none in the split, or one whose exposures lie in several streams.
        ManifestError: it can't be read.
    """
    content = read_manifest(manifest)
    root = content.root_folder(manifest)
    found = []
    for sequence in content.sequences:
        if (split is not None and sequence.split != split) or not sequence.windows:
            continue
        streams = {(window.spikes, window.first) for window in sequence.windows}
        if len(streams) > 1:
            raise RecordingError(
                f"{manifest}: {sequence.seq}: expected one stream that holds all exposures, found "
                f"{len(streams)}; restore them one by one, with --blur and --spikes"
            )
        ((stream, first),) = streams
        dat = inside(root, stream, manifest)
        settings = SpikeSettings(
            geometry=sequence.spike_geometry(),
            rate=sequence.rate,
            gain=sequence.gain,
            first=first,
            registration=sequence.registration(),
        )
        exposures = [
            Exposure(inside(root, w.blur, manifest), w.frame_index, w.t0, w.t1)
            for w in sequence.windows
        ]
        found.append(Recording(sequence.seq, exposures, dat, settings))
    if not found:
        raise RecordingError(
            f"{manifest}: no recordings" + (f" in the split {split!r}" if split else "")
        )
    return found


def find_frames(blur: Path) -> dict[int, Path]:
    """Return a folder's frames by number, in order.

    Raises:
        RecordingError: no folder, no frames in it, or an image whose name is no frame's.
        AlignmentError: two files with one number.
    """
    if not blur.is_dir():
        raise RecordingError(f"{blur}: expected a folder of blurred frames; check --blur")
    names = folder_names(blur)
    interpolated = names_are_interpolated(name.rpartition(".")[0] for name in names)
    frames, odd = index_frames(blur, names, IMAGE_SUFFIXES, interpolated=interpolated)
    if odd:
        raise RecordingError(
            f"{odd[0].removesuffix('; left out')}; name the frames by number, such as 0031.png, "
            "or move the file away"
        )
    if not frames:
        raise RecordingError(
            f"{blur}: expected images named by number, such as 0031.png, found "
            f"{shorten(list(names)) or 'nothing'}"
        )
    return dict(sorted(frames.items()))


def exposures_by_log(
    blur: Path, log: str | os.PathLike[str], seq: str | None
) -> tuple[str, list[Exposure]]:
    """Return the sequence's name and its frames, timed by an alignment log.

    Args:
        blur: folder of blurred frames.
        log: alignment log.
        seq: the sequence in the log; None: see `find_seq`.

    Raises:
        SpikeDeblurError: no such sequence, or a frame without a row; names it.
    """
    rows = read_alignment_log(log)
    found = find_seq(blur, {name for name, _ in rows}, seq, log)
    exposures = []
    for number, path in find_frames(blur).items():
        row = rows.get((found, number))
        if row is None:
            raise RecordingError(
                f"{path}: no row for frame {number} of {found} in {log}; align this data set "
                "again, or give --exposure and --fps instead of --log"
            )
        exposures.append(Exposure(path, number, row.t0, row.t1))
    return found, exposures


def as_aligned(
    settings: SpikeSettings, log: str | os.PathLike[str], seq: str, *, keep_clock: bool
) -> SpikeSettings:
    """Return the settings with what the manifest beside a log found out about the cameras.

    `align` writes both, and its log has no room for a corrected clock or a registration. A
    manifest that isn't there, or not of this log, changes nothing.

    Args:
        settings: of the stream.
        log: alignment log.
        seq: the sequence.
        keep_clock: the clock was given by hand.
    """
    manifest = manifest_beside(log)
    if manifest is None:
        return settings
    beside = Path(log).with_suffix(".json")
    (sequence,) = [sequence for sequence in manifest.sequences if sequence.seq == seq]
    found = sequence.verification
    warnings = list(settings.warnings)
    if sequence.space is not None:
        settings = replace(settings, registration=sequence.registration())
        warnings.append(f"spikes are registered to the frames as {beside} says")
    if found is not None and found.applied and not keep_clock:
        first = sequence.windows[0].first
        settings = replace(settings, first=first, rate=sequence.rate)
        warnings.append(
            f"clock corrected as {beside} says: first sample at {first:.6f} s, {sequence.rate:g} Hz"
        )
    return replace(settings, warnings=tuple(warnings))


def exposures_by_number(blur: Path, exposure: int, fps: float) -> list[Exposure]:
    """Return the frames, frame c exposed from (c - h) / fps to (c + h) / fps, 2 h + 1 = exposure.

    Raises:
        SpikeDeblurError: no frames, or an exposure or rate that can't be.
    """
    return [
        Exposure(path, number, *exposure_window(number, exposure, fps))
        for number, path in find_frames(blur).items()
    ]


def find_seq(blur: Path, seqs: Iterable[str], seq: str | None, log: str | os.PathLike[str]) -> str:
    """Return the name under which a log knows the frames of `blur`.

    A given `seq` is taken. A folder `.../<split>_blurry_<L>/<group>/<clip>` is exactly
    `<split>/<group>/<clip>`. Any other is the only sequence that shares most last parts with it;
    a last part `blur` or `blur_gamma`, as in the layout unified, doesn't count.

    Raises:
        RecordingError: none fits, or several; lists them.
    """
    known = sorted(seqs)
    if seq is not None:
        if seq not in known:
            raise RecordingError(
                f"{log}: no sequence {seq!r}; it has {shorten(known) or 'no rows'}; correct --seq"
            )
        return seq
    parts = Path(os.path.normpath(blur.absolute())).parts
    for i, part in enumerate(parts[:-1]):
        match = _BLUR_FOLDER.fullmatch(part)
        if match is not None:
            exact = "/".join((match[1], *parts[i + 1 :]))
            if exact not in known:
                raise RecordingError(
                    f"{log}: no sequence {exact!r}, which {blur} is; it has "
                    f"{shorten(known) or 'no rows'}; give --seq"
                )
            return exact
    if parts[-1] in ("blur", "blur_gamma"):
        parts = parts[:-1]
    shared = {name: _shared_last_parts(name.split("/"), parts) for name in known}
    most = max(shared.values(), default=0)
    fitting = [name for name in known if shared[name] == most > 0]
    if len(fitting) == 1:
        return fitting[0]
    raise RecordingError(
        f"{log}: {'several sequences fit' if fitting else 'no sequence fits'} {blur}: "
        f"{shorten(fitting or known, 20) or 'there are none'}; give one as --seq"
    )


def settle_spikes(
    dat: str | os.PathLike[str],
    *,
    geometry: str | None,
    rate: float | None,
    gain: float | None,
    first: float | None,
) -> SpikeSettings:
    """Decide geometry, clock and gain: option, then side file, then preset; never a guess.

    As in `align`, an option that contradicts the side file wins, with a warning.

    Raises:
        SpikeSettingsError: geometry or rate are not known, or an impossible rate or gain.
        RecordingError: the first sample's time is not known.
    """
    side = read_side_file(dat)
    known = settle(str(dat), geometry=geometry, rate=rate, gain=gain, side=side)
    own_side = side is not None and (side_file_path(dat).is_file() or Path(dat).name == STREAM)
    if side is not None and not own_side and first is None:
        raise RecordingError(
            f"{dat}: {FOLDER_SIDE_FILE} speaks of all files of its folder and can't say when this "
            "one begins; give --first, the time of its first sample in seconds"
        )
    if first is None:
        return known
    warning = f"--first {first:g} taken over the side file's {known.first:g}"
    contradicts = own_side and first != known.first
    warnings = (*known.warnings, warning) if contradicts else known.warnings
    return replace(known, first=first, warnings=warnings)


def _shared_last_parts(a: Sequence[str], b: Sequence[str]) -> int:
    shared = 0
    for one, other in zip(reversed(a), reversed(b), strict=False):
        if one != other:
            break
        shared += 1
    return shared
