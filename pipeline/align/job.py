"""The align stage: a data set's folders in, an alignment log and a manifest out.

Plan, then run: the layout pairs files by name, each sequence gets its geometry and clock, and
only then are spikes read, one sequence a task.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ... import __version__
from ..frames.listing import shorten
from ..host.files import UnsafePathError, atomic_write, sha256_file, sweep
from ..host.locks import only_writer_of
from ..host.reporter import Progress
from ..spikes.clock import SpikeClock, SpikeWindowError
from ..spikes.dat import SpikeFile
from ..spikes.registration import Registration
from ..spikes.settings import SpikeSettings
from .calibration import read_calibration
from .correct_clock import with_calibration
from .exposure import exposure_window
from .layouts import AlignmentError, FoundSequence, detect, find_layout, require_root
from .log import format_alignment_log, require_seq
from .manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    ManifestError,
    Window,
    format_manifest,
    read_manifest,
)
from .measure.dataset import find_owners, measure, with_clock_seen, with_space_seen
from .measure.registration import Model
from .plot import require_page_free, write_page
from .settings import settle_sequence

_logger = logging.getLogger(__name__)

OnWarning = Callable[[str], None]


def align(
    root: str | os.PathLike[str],
    layout: str,
    *,
    log: str | os.PathLike[str],
    manifest: str | os.PathLike[str],
    exposure: int | None = None,
    fps: float | None = None,
    rate: float | None = None,
    geometry: str | None = None,
    gain: float | None = None,
    variant: str | None = None,
    verify: bool = True,
    estimate: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    estimate_space: Model | None = None,
    plot: str | os.PathLike[str] | None = None,
    strict: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    on_progress: Progress | None = None,
    on_warning: OnWarning | None = None,
) -> Manifest:
    """Align a data set and write its log and manifest.

    What has not changed since the former manifest (path, size, mtime_ns and settings) is taken
    over from it. The same data gives the same bytes, whatever the number of workers.

    Args:
        root: the data set's folder.
        layout: a name in `layouts.LAYOUTS`, `auto`, or a layout file.
        log: alignment log to write.
        manifest: manifest to write.
        exposure: sharp frames that make a blurred one; None: the layout's own.
        fps: sharp frames a second; None: the layout's own.
        rate: spike frames a second, in Hz; None: from side file or preset.
        geometry: a geometry SPEC or preset; None: from side file or the layout's preset.
        gain: spikes a sample at unit luminance; None: from side file or preset.
        variant: folder to take where the layout knows several; None: its usual one.
        verify: measure each sequence's lag from its frames.
        estimate: correct each sequence's clock by the lag and drift that were measured, where they
            are proved; exposures that then leave the recording are left out, with a warning.
        calibration: file that says where spike pixels lie in the frames; see `calibration`.
        estimate_space: find that out from the frames, as a similarity, affine or homography.
        plot: HTML page to write, with pictures and correlation curves.
        strict: refuse to write if there is any warning.
        overwrite: replace a log or manifest that `align` did not write.
        workers: sequences at once; None: one a core, at most 8.
        on_progress: told after each sequence.
        on_warning: told each warning; None: they are logged.

    Raises:
        AlignmentError: files missing or in disagreement, or, if strict, any warning.
        SpikeDeblurError: a file that can't be read; its message names it.
    """
    root, log, manifest = Path(root), Path(log), Path(manifest)
    require_root(root)
    _check_options(fps, rate, gain, workers)
    named = None if layout == "auto" else find_layout(layout)
    if log.resolve() == manifest.resolve():
        raise AlignmentError(f"{log}: log and manifest need different names; give --manifest")
    if plot is not None:
        require_page_free(plot, overwrite=overwrite)
    if calibration is not None and estimate_space is not None:
        raise AlignmentError("expected --calibration or --estimate-space, got both; give one")
    with only_writer_of(log), only_writer_of(manifest):
        former = None if overwrite else _former_products(log, manifest)
        if overwrite and manifest.is_file():
            former = _own_manifest(manifest)
        if named is None:
            named, reason = detect(root)
            _logger.info("%s: layout %s, by %s", root, named.NAME, reason)
        if variant is not None and variant not in named.VARIANTS:
            raise AlignmentError(
                f"--variant {variant}: the layout {named.NAME} has "
                f"{' and '.join(named.VARIANTS) or 'no variants'}; correct the option or leave it "
                "out"
            )
        found = named.find(root, exposure, variant)
        common_fps = _common_fps(root, found, fps)

        options = _Options(
            geometry=geometry,
            rate=rate,
            gain=gain,
            fps=common_fps,
            verify=verify or estimate,
            estimate=estimate,
            calibration=None if calibration is None else read_calibration(calibration),
            estimate_space=estimate_space,
        )
        known = _known_sequences(former, root, manifest)
        inside = _Inside(root)

        def work(sequence: FoundSequence) -> _Done:
            return _align_sequence(sequence, root, inside, options, known.get(sequence.seq))

        done: list[_Done] = []
        n_workers = workers or min(8, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(n_workers, thread_name_prefix="align")
        try:
            for one in pool.map(work, found):
                done.append(one)
                if on_progress is not None:
                    on_progress(len(done), len(found), one.sequence.seq)
            # Only now is it known which sequences others' spikes may have been exchanged with.
            sequences = find_owners([one.sequence for one in done], root, pool.map)
        finally:
            # After an error, sequences not yet begun are not worth waiting for.
            pool.shutdown(wait=True, cancel_futures=True)

        exposures = {sequence.exposure for sequence in found}
        lights = {one.linear_light for one in done}
        result = Manifest(
            version=__version__,
            layout=named.NAME,
            root=relative_root(Path(inside.real_root), manifest),
            fps=common_fps,
            exposure_frames=exposures.pop() if len(exposures) == 1 else None,
            linear_light=lights.pop() if len(lights) == 1 else None,
            split=former.split if former is not None and known else None,
            sequences=tuple(sequences),
        )
        warnings = _warnings(done, sequences)
        new = [sequence.seq for sequence in found if sequence.seq not in known]
        if result.split is not None and new:
            warnings.append(
                f"{shorten(new)}: new since `spikedeblur split`, and in the split of their "
                "folders; run it again to deal them out"
            )
        _tell(warnings, strict, on_warning)
        _write(log, manifest, result)
        if plot is not None:
            with ThreadPoolExecutor(n_workers) as drawing:
                write_page(plot, result, root, drawing.map)
        return result


@dataclass(frozen=True)
class _Options:
    geometry: str | None
    rate: float | None
    gain: float | None
    fps: float
    verify: bool
    estimate: bool
    calibration: Registration | None
    estimate_space: Model | None


@dataclass(frozen=True)
class _Done:
    sequence: AlignedSequence
    warnings: tuple[str, ...]
    linear_light: bool | None


def _align_sequence(
    found: FoundSequence,
    root: Path,
    inside: _Inside,
    options: _Options,
    former: AlignedSequence | None,
) -> _Done:
    settings, linear_light = settle_sequence(
        found, geometry=options.geometry, rate=options.rate, gain=options.gain, fps=options.fps
    )
    warnings = [f"{found.seq}: {warning}" for warning in (*found.warnings, *settings.warnings)]
    planned = _plan(found, root, inside, settings, options.fps)
    if former is not None:
        planned = planned.model_copy(update={"assigned_split": former.assigned_split})
    if options.calibration is not None:
        planned = with_calibration(planned, root, options.calibration)
    elif options.estimate_space is not None:
        planned, more = with_space_seen(
            planned, root, options.estimate_space, former, any_lag=options.estimate
        )
        warnings += more
    if options.estimate:
        planned, more = with_clock_seen(planned, root, former)
        warnings += more
    if former is not None and former.plan() == planned.plan():
        update = {"verification": planned.verification, "space": planned.space}
        sequence = former.model_copy(update=update)
    else:
        sequence = _read_spikes(found, planned, root)
    if options.verify and sequence.verification is None:
        measured = measure(sequence, root, former)
        sequence = sequence.model_copy(update={"verification": measured})
    return _Done(sequence, tuple(warnings), linear_light)


def _warnings(done: list[_Done], sequences: list[AlignedSequence]) -> list[str]:
    warnings: list[str] = []
    for one, sequence in zip(done, sequences, strict=True):
        warnings += one.warnings
        if sequence.verification is not None and sequence.verification.warning:
            warnings.append(f"{sequence.seq}: {sequence.verification.warning}")
    return warnings


def _plan(
    found: FoundSequence, root: Path, inside: _Inside, settings: SpikeSettings, fps: float
) -> AlignedSequence:
    """Return the sequence as far as names, sizes and times tell: no counts, no hashes."""
    require_seq(found.seq)
    files: dict[str, FileRecord] = {}
    prefix = "" if root == Path() else f"{root}/"

    def record(path: Path) -> str:
        text = str(path)
        name = text.removeprefix(prefix)
        if name not in files:
            seen = inside.stat(text)
            files[name] = FileRecord(size=seen.st_size, mtime_ns=seen.st_mtime_ns)
        return name

    lead = found.lead_samples / settings.rate
    windows = []
    for window in found.windows:
        t0, t1 = window.times or exposure_window(window.centre, _exposure(found), fps)
        windows.append(
            Window(
                frame_index=window.frame_index,
                t0=t0,
                t1=t1,
                spike_count=0,
                spikes=record(window.spikes),
                first=t0 - lead if found.own_files else settings.first,
                blur=record(window.blur),
                sharp=record(window.sharp) if window.sharp else None,
            )
        )
    return AlignedSequence(
        seq=found.seq,
        scene=found.scene,
        blur_kind=found.blur_kind,
        geometry=settings.geometry.describe(),
        rate=settings.rate,
        gain=settings.gain,
        windows=tuple(windows),
        files=dict(sorted(files.items())),
    )


def _exposure(found: FoundSequence) -> int:
    assert found.exposure is not None, "windows without times have an exposure in frames"
    return found.exposure


def _read_spikes(found: FoundSequence, planned: AlignedSequence, root: Path) -> AlignedSequence:
    """Return `planned` with true spike counts and the hashes of the files they are from."""
    geometry = planned.spike_geometry()
    files = dict(planned.files)
    opened: dict[str, SpikeFile] = {}
    windows = []
    for window in planned.windows:
        path = root / window.spikes
        if window.spikes not in opened:
            opened = {window.spikes: SpikeFile.open(path, geometry)}
        spikes = opened[window.spikes]
        clock = planned.clock(window)
        if found.own_files:
            _check_own_length(found, path, spikes, clock, window)
        where = f"{path}, frame {window.frame_index}"
        try:
            start, stop = clock.require_inside(window.t0, window.t1, spikes.n_frames, where)
        except SpikeWindowError as error:
            raise AlignmentError(f"{error}, or let --estimate find it from the frames") from error
        count = spikes.count_spikes(start, stop)
        windows.append(window.model_copy(update={"spike_count": count}))
        if files[window.spikes].sha256 is None:
            files[window.spikes] = _hashed(path, files[window.spikes])
    return planned.model_copy(update={"windows": tuple(windows), "files": files})


def _check_own_length(
    found: FoundSequence, path: Path, spikes: SpikeFile, clock: SpikeClock, window: Window
) -> None:
    _, stop = clock.samples(window.t0, window.t1)
    allowed = [stop + tail for tail in found.tail_samples]
    if spikes.n_frames not in allowed:
        raise AlignmentError(
            f"{path}: expected {' or '.join(map(str, allowed))} spike frames for the exposure "
            f"[{window.t0:.6f}, {window.t1:.6f}] s at {clock.rate:g} Hz, found "
            f"{spikes.n_frames} of {spikes.geometry.describe()}; check --exposure, --fps, --rate "
            "and --geometry"
        )


def _hashed(path: Path, seen: FileRecord) -> FileRecord:
    digest = sha256_file(path)
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (seen.size, seen.mtime_ns):
        raise AlignmentError(f"{path}: changed while it was read; align again when it is complete")
    return seen.model_copy(update={"sha256": digest})


def _common_fps(root: Path, found: list[FoundSequence], fps: float | None) -> float:
    if fps is not None:
        timed = next((s.seq for s in found if s.exposure is None), None)
        if timed is not None:
            raise AlignmentError(
                f"{root}: the layout file states the times of {timed}; leave --fps out"
            )
        return fps
    own = {sequence.fps: sequence.seq for sequence in reversed(found)}
    if None in own:
        raise AlignmentError(
            f"{root}: this layout has no frame rate of its own; give --fps, sharp frames a second"
        )
    if len(own) > 1:
        named = ", ".join(f"{rate:g} ({seq})" for rate, seq in own.items() if rate)
        raise AlignmentError(
            f"{root}: sequences differ in frames a second by their names: {named}; align them "
            "from separate folders"
        )
    (common,) = own
    assert common is not None
    return common


def _check_options(
    fps: float | None, rate: float | None, gain: float | None, workers: int | None
) -> None:
    for name, value in (("fps", fps), ("rate", rate), ("gain", gain)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise AlignmentError(f"expected --{name} above 0, found {value}")
    if workers is not None and workers < 1:
        raise AlignmentError(f"expected workers of 1 or more, found {workers}")


def _known_sequences(
    former: Manifest | None, root: Path, manifest: Path
) -> dict[str, AlignedSequence]:
    """Return what the former run found in this folder; nothing from another version."""
    if former is None or former.version != __version__:
        return {}
    if former.root_folder(manifest) != root.resolve():
        return {}
    return {sequence.seq: sequence for sequence in former.sequences}


def _former_products(log: Path, manifest: Path) -> Manifest | None:
    """Return the former manifest, refusing to go on where a file is not ours to replace."""
    former = None
    if manifest.exists():
        former = _own_manifest(manifest)
        if former is None:
            raise AlignmentError(
                f"{manifest}: there, but not a manifest that this spikedeblur wrote; give another "
                "--manifest, or --overwrite to replace it"
            )
    if log.exists():
        # The format belongs to the field, so only the manifest can show whose log it is.
        ours = format_alignment_log(former.log_rows()).encode() if former else None
        if not log.is_file() or log.read_bytes() != ours:
            raise AlignmentError(
                f"{log}: there, but not the log of {manifest}; give another --log, or "
                "--overwrite to replace it"
            )
    return former


def _own_manifest(path: Path) -> Manifest | None:
    try:
        return read_manifest(path)
    except ManifestError:
        return None


class _Inside:
    """Refuses links that leave the root; readers of the manifest would."""

    def __init__(self, root: Path) -> None:
        self.real_root = os.path.realpath(root)
        self._real = {"" if root == Path() else str(root): self.real_root}

    def stat(self, path: str) -> os.stat_result:
        """Return what a file is; raise if a link on the way to it leaves the root."""
        self._folder(path.rpartition("/")[0])
        found = os.lstat(path)
        if not stat.S_ISLNK(found.st_mode):
            return found
        self._require(os.path.realpath(path), path)
        return Path(path).stat()

    def _folder(self, path: str) -> str:
        """Return where a folder really is; each is looked at once."""
        if path not in self._real:
            above, _, name = path.rpartition("/")
            real = f"{self._folder(above)}/{name}"
            if stat.S_ISLNK(os.lstat(path).st_mode):
                real = os.path.realpath(path)
            self._real[path] = self._require(real, path)
        return self._real[path]

    def _require(self, real: str, path: str) -> str:
        if real != self.real_root and not real.startswith(self.real_root.rstrip("/") + "/"):
            raise _leaves(path, self.real_root)
        return real


def _leaves(path: str, real_root: str) -> UnsafePathError:
    return UnsafePathError(
        f"{path}: is a link that leaves {real_root}; align the folder that holds both, or copy "
        "the data in"
    )


def relative_root(real_root: Path, manifest: Path) -> str:
    """Return what a manifest at this path calls its data set's folder."""
    folder = manifest.absolute().parent.resolve()
    return Path(os.path.relpath(real_root, folder)).as_posix()


def _tell(warnings: list[str], strict: bool, on_warning: OnWarning | None) -> None:
    for warning in warnings:
        if on_warning is None:
            _logger.warning("%s", warning)
        else:
            on_warning(warning)
    if strict and warnings:
        raise AlignmentError(
            f"--strict, and {len(warnings)} warning{'s' * (len(warnings) > 1)}: "
            + "; ".join(warnings)
        )


def _write(log: Path, manifest: Path, result: Manifest) -> None:
    """Write both; a log is never there beside the manifest of another, whenever we are killed.

    The next run would take it for a foreign one. Without a log, it writes one.
    """
    for path in (manifest, log):
        sweep(path.parent, path.name)
    former = log.with_name(f".{log.name}.{secrets.token_hex(6)}.partial")
    try:
        with atomic_write(log) as log_file:
            log_file.write(format_alignment_log(result.log_rows()).encode())
            log_file.finish()
            try:
                with atomic_write(manifest) as manifest_file:
                    manifest_file.write(format_manifest(result).encode())
                    if log.exists():
                        log.rename(former)
            except BaseException:
                if former.exists():
                    former.rename(log)
                raise
    finally:
        former.unlink(missing_ok=True)
