"""Blurred frames and a spike stream brought together.

The times of the frames come from an alignment log, or from the exposure's length and the frames'
numbers; geometry, clock and gain from options, side file or preset.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..align.calibration import read_calibration
from ..align.exposure import exposure_window
from ..align.layouts.pairing import is_stream_name
from ..align.log import read_alignment_log
from ..align.manifest import manifest_beside, read_manifest
from ..frames.listing import IMAGE_SUFFIXES, folder_names, list_frames, shorten
from ..frames.video import VIDEO_SUFFIX, decode_to_folder
from ..host.files import StrPath, inside
from ..spikes import read_side_file
from ..spikes.settings import AS_RECORDED, SpikeOptions, SpikeSettings, settle
from ..spikes.sidefile import FOLDER_SIDE_FILE, has_own_side_file
from .contract import STREAM as STREAM
from .recording import Exposure, Recording, RecordingError

_BLUR_FOLDER = re.compile(r"(.+)_blurry_[1-9][0-9]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposureTimes:
    """When the frames were exposed: by an alignment log, or by their numbers."""

    log: StrPath | None = None
    """Alignment log with the frames' times; None: by `exposure` and `fps`."""
    seq: str | None = None
    """Name of the sequence in the log; None: found by the folder's name."""
    exposure: int | None = None
    """Number of sharp frames that make a blurred one; odd."""
    fps: float | None = None
    """Sharp frames a second, in Hz."""
    step: int | None = None
    """For a video: sharp frames from one blurred frame to the next. None: an exposure, so that
    they follow each other without gap. The first is centred in the first exposure."""

    def __post_init__(self) -> None:
        """Refuse what doesn't say the times, or says them twice.

        Raises:
            RecordingError: it is so; says what to give.
        """
        numbers = [value is not None for value in (self.exposure, self.fps)]
        if any(numbers) if self.log is not None else not all(numbers):
            raise RecordingError(
                "the frames' times come from an alignment log, or from the exposure and the frame "
                "rate; give --log, or both --exposure and --fps"
            )


def find_recording(
    blur: StrPath,
    spikes: StrPath,
    times: ExposureTimes,
    options: SpikeOptions = AS_RECORDED,
    *,
    decode_to: StrPath | None = None,
) -> Recording:
    """Bring blurred frames and a spike stream together.

    Args:
        blur: folder of blurred frames named by number, or one of them; or a video of them, if there
            is `decode_to`.
        spikes: one `.dat` stream that holds all their exposures.
        times: when the frames were exposed.
        options: what the user says about the stream. Without a calibration, the spikes' place is
            the one in the manifest beside the log, else both cameras see the same.
        decode_to: folder in which a video's frames get a folder of their own.

    Raises:
        SpikeDeblurError: an input that can't be used; names it.
    """
    blur = Path(blur)
    settings = settle_spikes(spikes, options)
    if blur.suffix.lower() == VIDEO_SUFFIX and decode_to is not None:
        if times.exposure is None:
            raise RecordingError(
                f"{blur}: a video's frames have no numbers; give --exposure and --fps, not --log"
            )
        step = times.exposure if times.step is None else times.step
        blur = decode_to_folder(blur, Path(decode_to), times.exposure // 2, step)
    elif times.step is not None:
        raise RecordingError(
            f"{blur}: a step is for videos, and these frames have their numbers; leave out --step"
        )
    if times.log is not None:
        seq, exposures = exposures_by_log(blur, times.log, times.seq)
        clock_given = options.rate is not None or options.first is not None
        settings = as_aligned(settings, times.log, seq, keep_clock=clock_given)
    else:
        assert times.exposure is not None, "checked by ExposureTimes"
        assert times.fps is not None, "checked by ExposureTimes"
        seq = times.seq or (blur.parent if blur.is_file() else blur).name
        exposures = [
            Exposure(path, number, *exposure_window(number, times.exposure, times.fps))
            for number, path in find_frames(blur).items()
        ]
    if options.calibration is not None:
        settings = replace(settings, registration=read_calibration(options.calibration))
    if blur.is_dir() and (left_out := list_frames(blur).left_out()):
        settings = replace(settings, warnings=(*settings.warnings, *left_out))
    log = None if times.log is None else str(times.log)
    return Recording(
        seq=seq,
        exposures=exposures,
        dat=Path(spikes),
        settings=settings,
        sources={"blur": str(blur), "spikes": str(spikes), "log": log},
    )


def recordings_of(manifest: StrPath, split: str | None = None) -> list[Recording]:
    """Return the recordings of a manifest, with the times, clocks and places that it holds.

    Args:
        manifest: a manifest that `align` wrote.
        split: train, val or test; None: all.

    Raises:
        RecordingError: none in the split, or one whose exposures lie in several streams.
        ManifestError: the manifest can't be read.
    """
    content = read_manifest(manifest)
    root = content.root_folder(manifest)
    recordings = []
    for sequence in content.sequences:
        if split not in (None, sequence.split) or not sequence.windows:
            continue
        streams = {(window.spikes, window.first) for window in sequence.windows}
        if len(streams) > 1:
            raise RecordingError(
                f"{manifest}: {sequence.seq}: expected one stream that holds all exposures, found "
                f"{len(streams)}; restore them one by one, with --blur and --spikes"
            )
        ((stream, first),) = streams
        dat = inside(root, stream, manifest, sequence.links)
        recordings.append(
            Recording(
                seq=sequence.seq,
                exposures=[
                    Exposure(
                        inside(root, w.blur, manifest, sequence.links), w.frame_index, w.t0, w.t1
                    )
                    for w in sequence.windows
                ],
                dat=dat,
                settings=SpikeSettings(
                    geometry=sequence.spike_geometry(),
                    rate=sequence.rate,
                    gain=sequence.gain,
                    first=first,
                    registration=sequence.registration(),
                ),
                sources={"manifest": str(manifest), "spikes": str(dat)},
            )
        )
    if not recordings:
        where = f" in the split {split}" if split else ""
        raise RecordingError(f"{manifest}: no recordings{where}; align them, or correct --split")
    return recordings


def find_frames(blur: Path) -> dict[int, Path]:
    """Return a folder's frames by number, in order; an image is returned alone.

    Raises:
        RecordingError: no folder or image, no frames in it, or an image whose name is no frame's.
        FrameNameError: two files with one number.
    """
    alone = blur.is_file() and blur.suffix.lower() in IMAGE_SUFFIXES
    folder = blur.parent if alone else blur
    if not folder.is_dir() or (blur.is_file() and not alone):
        raise RecordingError(
            f"{blur}: expected a folder of blurred frames or one of them "
            f"({', '.join(IMAGE_SUFFIXES)}); check --blur"
        )
    listed = list_frames(folder)
    odd = [path for path in listed.unnamed if not alone or path == blur]
    if odd:
        raise RecordingError(
            f"{odd[0]}: not a frame's name; name the frames by number, such as 0031.png, or move "
            "the file away"
        )
    if not listed.frames:
        raise RecordingError(
            f"{blur}: expected images named by number, such as 0031.png, found "
            f"{shorten(list(folder_names(blur))) or 'nothing'}"
        )
    return {number: path for number, path in listed.frames.items() if not alone or path == blur}


def exposures_by_log(blur: Path, log: StrPath, seq: str | None) -> tuple[str, list[Exposure]]:
    """Return the sequence's name and its frames, timed by an alignment log.

    Args:
        blur: folder of blurred frames.
        log: alignment log.
        seq: name of the sequence in the log; None: see `find_seq`.

    Raises:
        SpikeDeblurError: no such sequence, or a frame without a row; names it.
    """
    rows = read_alignment_log(log)
    seq = find_seq(blur, {name for name, _ in rows}, seq, log)
    exposures = []
    for number, path in find_frames(blur).items():
        row = rows.get((seq, number))
        if row is None:
            raise RecordingError(
                f"{path}: no row for frame {number} of {seq} in {log}; align this data set "
                "again, or give --exposure and --fps instead of --log"
            )
        exposures.append(Exposure(path, number, row.t0, row.t1))
    return seq, exposures


def as_aligned(
    settings: SpikeSettings, log: StrPath, seq: str, *, keep_clock: bool
) -> SpikeSettings:
    """Return a stream's settings with the clock and registration that `align` measured.

    They are read from the manifest that `align` wrote beside the log. A manifest that isn't there,
    or belongs to another log, changes nothing.

    Args:
        settings: settings of the stream.
        log: alignment log.
        seq: name of the sequence.
        keep_clock: whether the clock was given by hand, and stays.
    """
    manifest = manifest_beside(log)
    if manifest is None:
        return settings
    path = Path(log).with_suffix(".json")
    (sequence,) = [sequence for sequence in manifest.sequences if sequence.seq == seq]
    verification = sequence.verification
    warnings = list(settings.warnings)
    if sequence.space is not None:
        settings = replace(settings, registration=sequence.registration())
        warnings.append(f"spikes are registered to the frames as {path} says")
    if verification is not None and verification.applied and not keep_clock:
        first = sequence.windows[0].first
        settings = replace(settings, first=first, rate=sequence.rate)
        warnings.append(
            f"clock corrected as {path} says: first sample at {first:.6f} s, {sequence.rate:g} Hz"
        )
    return replace(settings, warnings=tuple(warnings))


def find_seq(blur: Path, seqs: Iterable[str], seq: str | None, log: StrPath) -> str:
    """Return the name of a folder's sequence in a log.

    `seq` is taken if it is given. The folder `.../<split>_blurry_<L>/<group>/<clip>` is exactly
    `<split>/<group>/<clip>`. Any other folder is the one sequence whose name shares most last
    parts with its path; a last part `blur` or `blur_gamma`, as in the layout unified, doesn't
    count.

    Args:
        blur: folder of blurred frames.
        seqs: names of the log's sequences.
        seq: the name that the user gave, or None.
        log: the log, for messages.

    Raises:
        RecordingError: none fits, or several; lists them.
    """
    known = sorted(seqs)
    blur_folder = blur.parent if blur.is_file() else blur
    parts = Path(os.path.normpath(blur_folder.absolute())).parts
    if seq is None:
        for i, part in enumerate(parts[:-1]):
            if match := _BLUR_FOLDER.fullmatch(part):
                seq = "/".join((match[1], *parts[i + 1 :]))
                break
    if seq is not None:
        if seq not in known:
            raise RecordingError(
                f"{log}: expected the sequence {seq!r} for {blur}, found "
                f"{shorten(known) or 'no rows'}; give one of them as --seq"
            )
        return seq
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


def settle_spikes(dat: StrPath, options: SpikeOptions) -> SpikeSettings:
    """Decide geometry, clock and gain of one stream, as `settle` does.

    Raises:
        SpikeSettingsError: geometry or rate are not known, or an impossible rate or gain.
        RecordingError: the time of the first sample is not known.
    """
    side = read_side_file(dat)
    if side is not None and not has_own_side_file(dat) and not is_stream_name(Path(dat).name):
        if options.first is None:
            raise RecordingError(
                f"{dat}: {FOLDER_SIDE_FILE} describes all files of its folder and can't say when "
                "this one begins; give --first, the time of its first sample in seconds"
            )
        side = side.model_copy(update={"first": options.first})
    return settle(str(dat), options, side)


def _shared_last_parts(a: Sequence[str], b: Sequence[str]) -> int:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
