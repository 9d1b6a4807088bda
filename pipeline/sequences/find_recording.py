"""Blurred frames and a spike stream brought together.

Which spikes belong to each frame is said by an alignment log, or by the exposure's length and the
frame's number; geometry, clock and gain by option, side file or preset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..align.calibration import read_calibration
from ..align.exposure import exposure_window, names_are_interpolated
from ..align.layouts.contract import index_frames
from ..align.log import read_alignment_log
from ..align.manifest import manifest_beside, read_manifest
from ..frames.listing import IMAGE_SUFFIXES, folder_names, shorten
from ..host.files import inside
from ..spikes import read_side_file
from ..spikes.settings import SpikeOptions, SpikeSettings, settle
from ..spikes.sidefile import FOLDER_SIDE_FILE, side_file_path
from .recording import Exposure, Recording, RecordingError

STREAM = "spike.dat"
"""Name under which a folder's side file speaks of one stream, first time included."""
_BLUR_FOLDER = re.compile(r"(.+)_blurry_[1-9][0-9]*")


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
    options = SpikeOptions(geometry=geometry, rate=rate, gain=gain, first=first)
    settings = settle_spikes(spikes, options)
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


def settle_spikes(dat: str | os.PathLike[str], options: SpikeOptions) -> SpikeSettings:
    """Decide geometry, clock and gain of one stream, as `settle` does.

    Raises:
        SpikeSettingsError: geometry or rate are not known, or an impossible rate or gain.
        RecordingError: the time of the first sample is not known.
    """
    side = read_side_file(dat)
    if side is not None and not side_file_path(dat).is_file() and Path(dat).name != STREAM:
        if options.first is None:
            raise RecordingError(
                f"{dat}: {FOLDER_SIDE_FILE} describes all files of its folder and can't say when "
                "this one begins; give --first, the time of its first sample in seconds"
            )
        side = side.model_copy(update={"first": options.first})
    return settle(str(dat), options, side)


def _shared_last_parts(a: Sequence[str], b: Sequence[str]) -> int:
    shared = 0
    for one, other in zip(reversed(a), reversed(b), strict=False):
        if one != other:
            break
        shared += 1
    return shared
