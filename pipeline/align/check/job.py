"""Is a data set still what its manifest says, and are its cameras sound? Everything is read once.

A finding is wrong if it makes figures or training wrong; all others are notes. What can't be
judged is reported as such: a rate needs moving frames that prove their time in one recording, a
gain needs light, and an image's content has no hash in the manifest to compare with.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....errors import SpikeDeblurError
from ...frames.listing import shorten
from ...host.files import all_inside
from ...host.reporter import SILENT, Reporter, Sized, counted
from ...host.threads import thread_pool
from ...spikes.clock import SpikeWindowError
from ...spikes.dat import SpikeFile, SpikeFileError
from ...spikes.sensor import SensorError
from ..manifest import (
    AlignedSequence,
    Manifest,
    ManifestError,
    Verification,
    Window,
    read_manifest,
)
from ..measure.dataset import frames_of
from ..measure.in_time import look
from ..measure.verify import verify_sequence
from ..named_sensor import UNCORRECTED
from .findings import CheckFinding, Checking
from .frames import check_images
from .stream import BadPixels, SpikeSums, find_bad_pixels

GAIN_TOLERANCE = 0.25
"""Largest difference of the measured gain from the stated one, as a share of the stated one."""

BAD_PIXELS = 1e-3
"""Share of dead or hot pixels, or of empty samples, above which they are wrong, not a note."""

DRIFT_PPM = 1000.0
"""Largest difference of the measured rate from the stated one, in millionths."""

_FRAMES_TO_DRIFT = 4
"""Fewest exposures of one recording that show a drift."""
_PROVES_NOTHING = ("flat", "unlike", "edge", "still")
"""Problems of a measured lag with which its drift is not known either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceCheck:
    """What `check` reports of one sequence."""

    seq: str
    windows: int
    files: int
    bytes: int
    """Size of all files together."""
    rate: float
    """Stated samples a second, in Hz."""
    rate_measured: float | None
    """Measured samples a second, in Hz; None: can't be judged."""
    rate_unknown: str | None
    """Why the rate can't be judged; None: it can."""
    gain: float | None
    """Stated spikes a sample at unit luminance."""
    gain_measured: float | None
    """Mean spikes a sample over mean luminance of the blurred frames; None: no light, no spikes,
    or cameras that see different places."""
    lag: float | None
    """Lag of the spikes behind the frames, in seconds, late > 0, as `align` measured it, or now
    where it was told not to; None: the frames prove none."""
    lag_applied: bool
    """Whether the clock was corrected by it."""
    dead_pixels: int
    hot_pixels: int
    pixels_judged: float
    """Share of the spike pixels around which there was light enough for a dead one to show."""
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


def check_manifest(
    path: str | os.PathLike[str],
    *,
    workers: int | None = None,
    reporter: Reporter = SILENT,
    remote: tuple[Manifest, str, Callable[[AlignedSequence], AbstractContextManager[Path]]]
    | None = None,
) -> ManifestCheck:
    """Read all files of a manifest once, and compare them with it and with each other.

    Memory grows with neither the files nor their number: each worker holds a few megabytes of
    spikes and one frame. What is wrong with the data is reported, not raised.

    Args:
        path: the manifest.
        workers: sequences at once; None: one a core, at most 8.
        reporter: hears each sequence.
        remote: for a manifest at a URL: its content, its data set's URL, and a function that
            gives a folder with a sequence's files.

    Raises:
        ManifestError: it can't be read, or its data set's folder is missing.
    """
    if remote is not None:
        manifest, root, files_of = remote
    else:
        manifest = read_manifest(path)
        folder = manifest.root_folder(path)
        root, files_of = os.fspath(folder), lambda sequence: nullcontext(folder)
        if not folder.is_dir():
            raise ManifestError(
                f"{path}: expected its data set in {root}, found no folder there; put it back, or "
                "align it where it is now"
            )

    def check(sequence: AlignedSequence) -> SequenceCheck:
        with files_of(sequence) as folder:
            return check_sequence(sequence, manifest, folder, path, has_sensor=remote is None)

    if any(sequence.sensor for sequence in manifest.sequences):
        reporter.note(UNCORRECTED)

    checks: list[SequenceCheck] = []
    with thread_pool(workers, "check") as pool:
        work = Sized(reporter, [len(sequence.windows) for sequence in manifest.sequences])
        for result in pool.map(check, manifest.sequences):
            checks.append(result)
            work.did(result.seq)
    return ManifestCheck(
        path=os.fspath(path),
        kind="manifest",
        root=root,
        files=sum(result.files for result in checks),
        bytes=sum(result.bytes for result in checks),
        wrong=sum(result.wrong for result in checks),
        sequences=tuple(checks),
    )


def check_sequence(
    sequence: AlignedSequence,
    manifest: Manifest,
    root: Path,
    named_in: str | os.PathLike[str],
    *,
    has_sensor: bool = True,
) -> SequenceCheck:
    """Check one sequence; see `check_manifest`.

    Args:
        sequence: the manifest's entry.
        manifest: the manifest.
        root: folder with the sequence's files.
        named_in: path of the manifest, for messages.
        has_sensor: whether a sensor that the entry names is to be there, too.
    """
    checking = Checking(sequence, all_inside(root, sequence.files, named_in, sequence.links))
    _check_there(checking)
    if sequence.sensor is not None and has_sensor:
        try:
            sequence.sensor.at(root, named_in)
        except SensorError as error:
            checking.note("sensor", str(error))
    sums = _check_spikes(checking)
    check_images(checking, linear=manifest.linear_light is True)
    bad = _check_bad_pixels(checking, sums)
    gain = _check_gain(checking)
    rate, unknown = _check_rate(checking, root)
    lag = _check_alignment(checking, root)
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
        lag=lag.lag_seconds if lag is not None and lag.confident else None,
        lag_applied=lag is not None and lag.applied,
        dead_pixels=bad.dead,
        hot_pixels=bad.hot,
        pixels_judged=bad.judged,
        findings=tuple(checking.findings),
    )


def _check_there(checking: Checking) -> None:
    """Look for the files, and for a size or time that is not the recorded one."""
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
    checking.note_files("missing", missing, "are missing")
    checking.note_files("changed", resized, "changed")
    checking.note_files(
        "changed", rewritten, "were written since they were aligned, in the same size"
    )


def _check_spikes(checking: Checking) -> SpikeSums:
    """Read the spikes, and return their sums over the whole sequence."""
    sequence = checking.sequence
    geometry = sequence.spike_geometry()
    sums = SpikeSums(np.zeros(geometry.shape, np.int64))
    exposures: dict[str, list[Window]] = {}
    for window in sequence.windows:
        exposures.setdefault(window.spikes, []).append(window)
    for name, windows in exposures.items():
        if name in checking.unreadable:
            continue
        path, recorded = Path(checking.paths[name]), sequence.files[name]
        try:
            spikes = SpikeFile.open(path, geometry, sequence.cut(windows[0]))
            digest = sums.add(spikes, recorded.form)
        except (SpikeFileError, OSError) as error:
            checking.note("cut" if isinstance(error, SpikeFileError) else "unreadable", str(error))
            checking.unreadable.add(name)
            continue
        if recorded.sha256 is not None and digest != recorded.sha256:
            checking.note("changed", f"{name}: its content is not what was aligned")
        elif path.stat().st_mtime_ns != recorded.mtime_ns and recorded.sha256 is not None:
            checking.note("touched", f"{name}: written anew with the same content", wrong=False)
        for window in windows:
            try:
                sequence.clock(window).require_inside(
                    window.t0, window.t1, spikes.n_frames, f"{name}, frame {window.frame_index}"
                )
            except SpikeWindowError as error:
                checking.note("exposure", str(error))
    return sums


def _check_bad_pixels(checking: Checking, sums: SpikeSums) -> BadPixels:
    bad = find_bad_pixels(sums)
    for kind, count, lines, behaviour in (
        ("dead", bad.dead, bad.dead_lines, "never fired, where their neighbours did"),
        ("hot", bad.hot, bad.hot_lines, "fired at every sample, where their neighbours did not"),
    ):
        if lines:
            checking.note(kind, f"{shorten(list(lines))} of the spikes {behaviour}")
        if count:
            share = count / sums.spikes.size
            checking.note(
                kind,
                f"{counted(count, 'pixel')} ({share:.2%}) of the spikes {behaviour}",
                wrong=share > BAD_PIXELS,
            )
    if sums.empty_samples and sums.spikes.sum() > 2 * sums.samples:
        share = sums.empty_samples / sums.samples
        checking.note(
            "empty",
            f"{sums.empty_samples} of {counted(sums.samples, 'sample')} without a spike in any "
            "pixel: lost in recording or copying",
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
    if sum(rates) == 0:
        if lights:
            checking.note("gain", "no spikes in any exposure, though the frames show light")
        return None
    measured = sum(rates) / sum(lights)
    if sequence.gain is None:
        checking.note(
            "gain", f"not stated; the frames' brightness gives {measured:.3f}", wrong=False
        )
    elif abs(measured / sequence.gain - 1) > GAIN_TOLERANCE:
        checking.note(
            "gain",
            f"stated {sequence.gain:g}, but the frames' brightness gives {measured:.3f}: check "
            "--gain, and whether light was averaged linearly",
        )
    return measured


def _check_alignment(checking: Checking, root: Path) -> Verification | None:
    """Repeat what `align` found of the lag, or look where it was told not to."""
    sequence = checking.sequence
    if sequence.verification is None and not checking.unreadable:
        with suppress(SpikeDeblurError):  # what can't be read is a finding already
            known = sequence.readout is not None
            measured = look(frames_of(sequence, root), readout_known=known)
            sequence = sequence.model_copy(update={"verification": measured})
    if sequence.finding is not None:
        checking.note("alignment", sequence.finding)
    return sequence.verification


def _check_rate(checking: Checking, root: Path) -> tuple[float | None, str | None]:
    """Return the measured rate in Hz; None and the reason where it can't be judged.

    With a wrong rate, spikes and frames drift apart over a recording. A file that holds a single
    exposure is too short to show that.
    """
    sequence = checking.sequence
    windows = tuple(
        window for window in sequence.windows if checking.unreadable.isdisjoint(window.paths)
    )
    if len({window.spikes for window in windows}) == len(sequence.windows) > 1:
        return None, "one file an exposure"
    if len(windows) < _FRAMES_TO_DRIFT or any(f.kind == "exposure" for f in checking.findings):
        return None, f"fewer than {_FRAMES_TO_DRIFT} exposures in one recording"
    lag = sequence.verification
    changed = any(finding.kind == "changed" for finding in checking.findings)
    if lag is None or lag.applied or changed:
        readable = sequence.model_copy(update={"windows": windows})
        try:
            lag = verify_sequence(frames_of(readable, root))
        except SpikeDeblurError as error:
            return None, f"not measured ({error})"
    if lag is None or lag.drift_ppm is None or lag.problem in _PROVES_NOTHING:
        return None, "the frames do not prove their place among the spikes"
    measured = sequence.rate * (1 + 1e-6 * lag.drift_ppm)
    error_ppm = lag.drift_error_ppm or 0.0
    if abs(lag.drift_ppm) > max(DRIFT_PPM, 5 * error_ppm):
        checking.note(
            "rate",
            f"stated {sequence.rate:g} Hz, but spikes and frames drift apart as at "
            f"{measured:.1f} +- {1e-6 * error_ppm * sequence.rate:.1f} Hz: check --rate and --fps",
        )
    return measured, None
