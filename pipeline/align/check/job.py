"""Is a data set still what its manifest says, and are its cameras sound? Everything is read once.

Wrong is what makes figures or training wrong; the rest is told as a note. What can't be judged
is said to be so, never passed over: a rate needs frames in motion that prove their place in one
recording, a gain needs light, and of images the manifest has no hashes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from ....errors import SpikeDeblurError
from ...frames.listing import shorten
from ...host.files import all_inside
from ...host.reporter import Progress
from ...spikes.clock import SpikeWindowError
from ...spikes.dat import SpikeFile, SpikeFileError
from ..manifest import AlignedSequence, Manifest, ManifestError, Window, read_manifest
from ..measure.dataset import frames_of
from ..measure.verify import verify_sequence
from .findings import CheckFinding, Checking
from .frames import check_images
from .stream import BadPixels, SpikeSums, find_bad_pixels

GAIN_TOLERANCE = 0.25
"""By how much the measured gain may differ from the stated one, of that."""

BAD_PIXELS = 1e-3
"""Share of dead and hot pixels from which a camera is wrong; fewer are told as a note."""

DRIFT_PPM = 1000.0
"""By how much the measured rate may differ from the stated one, in millionths."""

_FRAMES_TO_DRIFT = 4
"""Fewer show no drift."""
_PROVES_NOTHING = ("flat", "unlike", "edge", "still")
"""Problems of a measured lag that leave its drift in doubt too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceCheck:
    """What was found of one sequence."""

    seq: str
    windows: int
    files: int
    bytes: int
    """Read, in all."""
    rate: float
    """As stated, in Hz."""
    rate_measured: float | None
    """None: it can't be judged; `rate_unknown` says why."""
    rate_unknown: str | None
    gain: float | None
    """As stated."""
    gain_measured: float | None
    """Mean spikes a sample over mean luminance of the blurred frames; None: no light, no spikes,
    or cameras that see different places."""
    dead_pixels: int
    hot_pixels: int
    pixels_judged: float
    """Share of the spikes' pixels around which there was light enough for a dead one to show."""
    findings: tuple[CheckFinding, ...]

    @property
    def wrong(self) -> bool:
        """Whether anything is wrong."""
        return any(finding.wrong for finding in self.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestCheck:
    """What `check` reports of a manifest."""

    path: str
    kind: str
    root: str
    files: int
    bytes: int
    wrong: int
    """Sequences in which something is wrong."""
    sequences: tuple[SequenceCheck, ...]

    def as_dict(self) -> dict[str, object]:
        """Return all of it, for JSON."""
        return asdict(self)


def check_manifest(
    path: str | os.PathLike[str],
    *,
    workers: int | None = None,
    on_progress: Progress | None = None,
    remote: tuple[Manifest, str, Callable[[AlignedSequence], AbstractContextManager[Path]]]
    | None = None,
) -> ManifestCheck:
    """Read all files of a manifest once and compare them with it and with each other.

    Memory grows with neither the files nor their number: each worker holds a few megabytes of
    spikes and one frame.

    Args:
        path: as `align` wrote it.
        workers: sequences at once; None: one a core, at most 8.
        on_progress: told after each sequence.
        remote: of a manifest at a URL: its content, its data set's URL, and what gives a folder
            with a sequence's files.

    Raises:
        ManifestError: it can't be read, or its data set's folder is not there. What is wrong
            with the data is reported, not raised.
    """
    if remote is not None:
        manifest, root, files_of = remote
    else:
        manifest = read_manifest(path)
        folder = manifest.root_folder(path)
        root, files_of = os.fspath(folder), lambda sequence: nullcontext(folder)
        if not folder.is_dir():
            raise ManifestError(
                f"{path}: its data set's folder {root} is not there; put it back, or align it "
                "where it is now"
            )

    def check(sequence: AlignedSequence) -> SequenceCheck:
        with files_of(sequence) as folder:
            return check_sequence(sequence, manifest, folder, path)

    found: list[SequenceCheck] = []
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1), thread_name_prefix="check")
    try:
        for one in pool.map(check, manifest.sequences):
            found.append(one)
            if on_progress is not None:
                on_progress(len(found), len(manifest.sequences), one.seq)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return ManifestCheck(
        path=os.fspath(path),
        kind="manifest",
        root=root,
        files=sum(one.files for one in found),
        bytes=sum(one.bytes for one in found),
        wrong=sum(one.wrong for one in found),
        sequences=tuple(found),
    )


def check_sequence(
    sequence: AlignedSequence, manifest: Manifest, root: Path, named_in: str | os.PathLike[str]
) -> SequenceCheck:
    """Check one sequence; see `check_manifest`."""
    checking = Checking(sequence, all_inside(root, sequence.files, named_in))
    _check_there(checking)
    sums = _check_spikes(checking)
    check_images(checking, linear=manifest.linear_light is True)
    bad = _check_bad_pixels(checking, sums)
    gain = _check_gain(checking)
    rate, unknown = _check_rate(checking, root)
    return SequenceCheck(
        seq=sequence.seq,
        windows=len(sequence.windows),
        files=len(sequence.files),
        bytes=checking.bytes,
        rate=sequence.rate,
        rate_measured=rate,
        rate_unknown=unknown,
        gain=sequence.gain,
        gain_measured=gain,
        dead_pixels=bad.dead,
        hot_pixels=bad.hot,
        pixels_judged=bad.judged,
        findings=tuple(checking.findings),
    )


def _check_there(checking: Checking) -> None:
    """Look for the files, and whether they were written since."""
    missing, resized, rewritten = [], [], []
    for name, recorded in checking.sequence.files.items():
        try:
            stat = Path(checking.paths[name]).stat()
        except OSError:
            missing.append(name)
            continue
        checking.bytes += stat.st_size
        if stat.st_size != recorded.size:
            resized.append(f"{name} ({recorded.size} bytes when aligned, now {stat.st_size})")
        elif stat.st_mtime_ns != recorded.mtime_ns and recorded.sha256 is None:
            rewritten.append(name)
    checking.unreadable.update(missing)
    of = len(checking.sequence.files)
    if missing:
        checking.tell("missing", f"{len(missing)} of {of} files are missing: {shorten(missing)}")
    if resized:
        checking.tell("changed", f"{len(resized)} of {of} files changed: {shorten(resized)}")
    if rewritten:
        checking.tell(
            "changed",
            f"{len(rewritten)} of {of} files were written since they were aligned, in the same "
            f"size: {shorten(rewritten)}",
        )


def _check_spikes(checking: Checking) -> SpikeSums:
    """Read the spikes; returns their sums over the whole sequence."""
    sequence = checking.sequence
    geometry = sequence.spike_geometry()
    sums = SpikeSums.of_shape(geometry.shape)
    windows: dict[str, list[Window]] = {}
    for window in sequence.windows:
        windows.setdefault(window.spikes, []).append(window)
    for name, own in windows.items():
        if name in checking.unreadable:
            continue
        path, recorded = Path(checking.paths[name]), sequence.files[name]
        try:
            spikes = SpikeFile.open(path, geometry)
            digest = sums.add(spikes)
        except (SpikeFileError, OSError) as error:
            checking.tell("cut" if isinstance(error, SpikeFileError) else "unreadable", str(error))
            checking.unreadable.add(name)
            continue
        if recorded.sha256 is not None and digest != recorded.sha256:
            checking.tell("changed", f"{name}: its content is not what was aligned")
        elif path.stat().st_mtime_ns != recorded.mtime_ns and recorded.sha256 is not None:
            checking.tell("touched", f"{name}: written anew with the same content", wrong=False)
        for window in own:
            try:
                sequence.clock(window).require_inside(
                    window.t0, window.t1, spikes.n_frames, f"{name}, frame {window.frame_index}"
                )
            except SpikeWindowError as error:
                checking.tell("exposure", str(error))
    return sums


def _check_bad_pixels(checking: Checking, sums: SpikeSums) -> BadPixels:
    bad = find_bad_pixels(sums)
    for kind, count, lines, did in (
        ("dead", bad.dead, bad.dead_lines, "never fired, where their neighbours did"),
        ("hot", bad.hot, bad.hot_lines, "fired at every sample, where their neighbours did not"),
    ):
        if lines:
            checking.tell(kind, f"{shorten(list(lines))} of the spikes {did}")
        if count:
            share = count / sums.spikes.size
            checking.tell(
                kind, f"{count} pixels ({share:.2%}) of the spikes {did}", wrong=share > BAD_PIXELS
            )
    if sums.empty_samples and sums.spikes.sum() > 2 * sums.samples:
        share = sums.empty_samples / sums.samples
        checking.tell(
            "empty",
            f"{sums.empty_samples} of {sums.samples} samples have no spike in any pixel: lost in "
            "recording or copying",
            wrong=share > BAD_PIXELS,
        )
    return bad


def _check_gain(checking: Checking) -> float | None:
    """Return the measured gain; None where there is no common light or no spikes."""
    sequence = checking.sequence
    if sequence.space is not None:
        return None  # spikes and frames see different places, and so different light
    pixels = math.prod(sequence.spike_geometry().shape)
    rates, lights = [], []
    for window in sequence.windows:
        if window.blur in checking.luminances and window.spikes not in checking.unreadable:
            start, stop = sequence.clock(window).samples(window.t0, window.t1)
            rates.append(window.spike_count / ((stop - start) * pixels))
            lights.append(checking.luminances[window.blur])
    light, rate = sum(lights), sum(rates)
    if rate == 0 and lights:
        checking.tell("gain", "no spikes in any exposure, though the frames show light")
    if rate == 0:
        return None
    measured = rate / light
    if sequence.gain is None:
        checking.tell(
            "gain", f"not stated; the frames' brightness gives {measured:.3f}", wrong=False
        )
    elif abs(measured / sequence.gain - 1) > GAIN_TOLERANCE:
        checking.tell(
            "gain",
            f"stated {sequence.gain:g}, but the frames' brightness gives {measured:.3f}: check "
            "--gain, and whether light was averaged linearly",
        )
    return measured


def _check_rate(checking: Checking, root: Path) -> tuple[float | None, str | None]:
    """Return the measured rate in Hz; None and the reason where it can't be judged.

    A wrong rate lets spikes and frames drift apart over a recording. A file for each exposure has
    no room to drift.
    """
    sequence = checking.sequence
    windows = tuple(
        window
        for window in sequence.windows
        if not {window.spikes, window.blur, window.sharp} & checking.unreadable
    )
    if len({window.spikes for window in windows}) == len(sequence.windows) > 1:
        return None, "one file an exposure"
    if len(windows) < _FRAMES_TO_DRIFT or any(f.kind == "exposure" for f in checking.findings):
        return None, f"fewer than {_FRAMES_TO_DRIFT} exposures in one recording"
    found = sequence.verification
    changed = any(finding.kind == "changed" for finding in checking.findings)
    if found is None or found.applied or changed:
        try:
            found = verify_sequence(
                frames_of(sequence.model_copy(update={"windows": windows}), root)
            )
        except SpikeDeblurError as error:
            return None, f"not measured ({error})"
    if found is None or found.drift_ppm is None or found.problem in _PROVES_NOTHING:
        return None, "the frames do not prove their place among the spikes"
    measured = sequence.rate * (1 + 1e-6 * found.drift_ppm)
    error_ppm = found.drift_error_ppm or 0.0
    if abs(found.drift_ppm) > max(DRIFT_PPM, 5 * error_ppm):
        checking.tell(
            "rate",
            f"stated {sequence.rate:g} Hz, but spikes and frames drift apart as at "
            f"{measured:.1f} +- {1e-6 * error_ppm * sequence.rate:.1f} Hz: check --rate and --fps",
        )
    return measured, None
