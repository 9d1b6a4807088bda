"""Blurred frames and a spike stream brought together.

The times of the frames come from an alignment log, or from the exposure's length and the frames'
numbers; geometry, clock and gain from options, side file or preset.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..align.calibration import read_calibration
from ..align.layouts.pairing import is_stream_name
from ..align.log import read_alignment_log
from ..align.manifest import AlignedSequence, manifest_beside, read_manifest
from ..clocks.camera import FPS_OR_FRAME_RATE, CameraClock
from ..clocks.durations import describe_duration
from ..clocks.exposures import Exposures
from ..clocks.names import (
    natural_order,
    same_number,
)
from ..frames.images import image_shape
from ..frames.listing import IMAGE_SUFFIXES, folder_names, list_frames, list_images, shorten
from ..frames.video import (
    VIDEO_SUFFIX,
    count_frames,
    decode_frames,
    decoded_files,
    read_stamps,
)
from ..host.files import StrPath, inside
from ..spikes import read_side_file
from ..spikes.between import Between, both
from ..spikes.frame_grid import size_warning
from ..spikes.parts import open_stream, require_stream
from ..spikes.settings import AS_RECORDED, SpikeOptions, SpikeSettings, sensor_file, settle
from ..spikes.sidefile import FOLDER_SIDE_FILE, has_own_side_file
from .contract import STREAM as STREAM
from .find_seq import find_seq
from .notices import gaps_in_numbers, gaps_in_order, left_out_of
from .recording import Exposure, Recording, RecordingError, wholly_read


@dataclass(frozen=True, kw_only=True, slots=True)
class ExposureTimes:
    """When the frames were exposed: by a camera's clock, an alignment log, or their numbers."""

    camera: CameraClock | None = None
    """Clock of the camera that took the frames; None: by `log`, or by `exposure` and `fps`."""
    log: StrPath | None = None
    """Alignment log with the frames' times."""
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
        averaged = [value is not None for value in (self.exposure, self.fps, self.step)]
        if self.camera is not None and any(averaged):
            raise RecordingError(FPS_OR_FRAME_RATE)
        ways = [self.camera is not None, self.log is not None, any(averaged[:2])]
        if sum(ways) != 1 or (any(averaged[:2]) and not all(averaged[:2])):
            raise RecordingError(
                "expected one way to the frames' times; give --frame-rate 30 --shutter 16ms for a "
                "camera, --times FILE.csv, or --log; or, for simulated frames, both --exposure and "
                "--fps"
            )

    def averaged(self, centres: Iterable[int]) -> Exposures:
        """Return the exposures of frames that average sharp ones, by the numbers of the middles."""
        assert self.exposure is not None, "checked by __post_init__"
        assert self.fps is not None, "checked by __post_init__"
        return Exposures.averaged(centres, self.exposure, self.fps)


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
        blur: folder of blurred frames, named by number unless a camera's clock times them; one of
            them; or a video of them, if there is `decode_to`.
        spikes: one `.dat` stream that holds all their exposures.
        times: when the frames were exposed.
        options: what the user says about the stream. Without a calibration, the spikes' place is
            the one in the manifest beside the log, else both cameras see the same.
        decode_to: folder in which a video's frames get a folder of their own.

    Raises:
        SpikeDeblurError: an input that can't be used; names it.
    """
    blur = Path(blur)
    require_stream(spikes)
    settings = settle_spikes(spikes, options)
    if blur.suffix.lower() == VIDEO_SUFFIX and decode_to is not None:
        seq, frames, exposures = _of_video(blur, times, Path(decode_to))
        decode = True
    else:
        seq, frames, exposures = _of_folder(blur, times)
        decode = False
    if times.log is not None:
        clock_given = options.rate is not None or options.first is not None
        settings = as_aligned(settings, times.log, seq, keep_clock=clock_given)
    if not decode and (times.camera is None or times.camera.times is None):
        in_order = gaps_in_order if times.camera is not None else gaps_in_numbers
        settings = replace(settings, warnings=(*settings.warnings, *in_order(frames)))
    windows = exposures.windows(settings.clock, [str(path) for path in frames.values()])
    files = list(frames.values())
    frames, windows = wholly_read(settings, spikes, frames, windows)
    samples = open_stream(spikes, settings.geometry, settings.cut).n_frames
    for window, path in zip(windows, frames.values(), strict=True):
        where = f"{spikes}, frame {path.name}"
        settings.clock.require_inside(*window, samples, where, exposures.remedy)
    if decode:
        decode_frames(blur, files, list(frames.values()))
    if blur.is_dir() and (left_out := left_out_of(blur, times.camera)):
        settings = replace(settings, warnings=(*settings.warnings, *left_out))
    if options.calibration is not None:
        settings = replace(settings, registration=read_calibration(options.calibration))
    if settings.registration is None:
        frame_shape = image_shape(next(iter(frames.values())))
        if (odd := size_warning(frame_shape, settings.geometry.shape)) is not None:
            settings = replace(settings, warnings=(*settings.warnings, odd))
    log, camera = times.log, times.camera
    sources = {"blur": str(blur), "spikes": str(spikes), "log": None if log is None else str(log)}
    if camera is not None and camera.times is not None:
        sources["times"] = str(camera.times)
    return Recording(
        seq=seq,
        exposures=_exposed(frames, windows),
        dat=Path(spikes),
        settings=settings,
        sources=sources,
        left_out=len(files) - len(frames),
    )


_Timed = tuple[str, dict[int, Path], Exposures]
"""Name of a sequence, its frames by number, and their exposures."""


def _of_folder(blur: Path, times: ExposureTimes) -> _Timed:
    if times.step is not None:
        raise RecordingError(
            f"{blur}: a step is for videos, and these frames have their numbers; leave out --step"
        )
    if times.log is not None:
        return exposures_by_log(blur, times.log, times.seq)
    seq = times.seq or (blur.parent if blur.is_file() else blur).name
    if times.camera is not None:
        alone = _is_image(blur)
        frames = camera_frames(blur.parent if alone else blur)
        exposures = times.camera.exposures([path.name for path in frames.values()])
        if not alone:
            return seq, frames, exposures
        # The other frames of its folder say when it was exposed.
        place = next(place for place, path in frames.items() if path.name == blur.name)
        return seq, {place: frames[place]}, exposures.only(place)
    frames = find_frames(blur)
    return seq, frames, times.averaged(frames)


def _of_video(video: Path, times: ExposureTimes, decode_to: Path) -> _Timed:
    """Return a video's frames, which are still to be decoded."""
    if times.log is not None:
        raise RecordingError(
            f"{video}: a video's frames have no numbers; give --shutter, or --exposure and --fps, "
            "not --log"
        )
    seq = times.seq or video.stem
    if times.camera is not None:
        stamps = read_stamps(video)
        files = decoded_files(video, decode_to, range(len(stamps)))
        names = [f"{video}, frame {i}" for i in range(len(stamps))]
        return seq, dict(enumerate(files)), times.camera.exposures(names, stamps)
    times.averaged([])  # refuses an exposure that can't be
    exposure = times.exposure or 0
    step = exposure if times.step is None else times.step
    numbers = range(exposure // 2, exposure // 2 + step * count_frames(video), step)
    files = decoded_files(video, decode_to, numbers)
    return seq, dict(zip(numbers, files, strict=True)), times.averaged(numbers)


def recordings_of(
    manifest: StrPath,
    split: str | None = None,
    sensor: StrPath | None = None,
    between: Between | None = None,
) -> list[Recording]:
    """Return the recordings of a manifest, with the times, clocks and places that it holds.

    Args:
        manifest: a manifest that `align` wrote.
        split: train, val or test; None: all.
        sensor: file of the sensor that all were recorded with; None: as the manifest or their side
            files say.
        between: times between which each is read; None: all of it. Recordings without a frame that
            is exposed wholly between are left out.

    Raises:
        RecordingError: none in the split, or one whose exposures lie in several streams.
        ManifestError: the manifest can't be read.
    """
    content = read_manifest(manifest)
    root = content.root_folder(manifest)
    recordings, outside = [], None
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
        settings = SpikeSettings(
            geometry=sequence.spike_geometry(),
            rate=sequence.rate,
            gain=sequence.gain,
            first=first,
            registration=sequence.registration(),
            readout=sequence.readout,
            sensor=_sensor_of(sequence, dat, root, manifest, sensor),
            between=both(between, sequence.between),
        )
        frames = {
            w.frame_index: inside(root, w.blur, manifest, sequence.links) for w in sequence.windows
        }
        exposures = Exposures.closed(
            ((w.t0, w.t1) for w in sequence.windows), str(manifest), "align again"
        )
        windows = exposures.windows(settings.clock, [str(path) for path in frames.values()])
        try:
            read, windows = wholly_read(settings, dat, frames, windows)
        except RecordingError as error:
            outside = error
            continue
        recordings.append(
            Recording(
                seq=sequence.seq,
                exposures=_exposed(read, windows),
                dat=dat,
                settings=settings,
                left_out=len(frames) - len(read),
                sources={"manifest": str(manifest), "spikes": str(dat)},
            )
        )
    if not recordings and outside is not None:
        raise outside
    if not recordings:
        where = f" in the split {split}" if split else ""
        raise RecordingError(f"{manifest}: no recordings{where}; align them, or correct --split")
    return recordings


def _sensor_of(
    sequence: AlignedSequence, dat: Path, root: Path, manifest: StrPath, sensor: StrPath | None
) -> Path | None:
    """Return the sensor's file of a manifest's sequence: as given, named there, or beside it."""
    if sensor is None and sequence.sensor is not None:
        return sequence.sensor.at(root, manifest)
    return sensor_file(str(dat), SpikeOptions(sensor=sensor), read_side_file(dat))


def _is_image(blur: Path) -> bool:
    return blur.is_file() and blur.suffix.lower() in IMAGE_SUFFIXES


def find_frames(blur: Path) -> dict[int, Path]:
    """Return a folder's frames by number, in order; an image is returned alone.

    Raises:
        RecordingError: no folder or image, no frames in it, or an image whose name is no frame's.
        FrameNameError: two files with one number.
    """
    alone = _is_image(blur)
    folder = blur.parent if alone else blur
    if not folder.is_dir() or (blur.is_file() and not alone):
        raise RecordingError(
            f"{blur}: expected a folder of blurred frames or one of them "
            f"({', '.join(IMAGE_SUFFIXES)}), or a video ({VIDEO_SUFFIX}), "
            f"found {'another file' if blur.is_file() else 'none'}; check the path"
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
            f"{shorten(list(folder_names(blur))) or 'nothing'}; rename them, or for a camera's own "
            "frames give --frame-rate and --shutter"
        )
    return {number: path for number, path in listed.frames.items() if not alone or path == blur}


def camera_frames(blur: Path) -> dict[int, Path]:
    """Return a folder's images by their place in the natural order of their names.

    Raises:
        RecordingError: no folder, no images in it, or two that differ in their ending only.
    """
    if not blur.is_dir():
        raise RecordingError(
            f"{blur}: expected a folder of blurred frames or one of them, "
            f"found {'another file' if blur.is_file() else 'none'}; check the path"
        )
    images = {path.name: path for path in list_images(blur)}
    if not images:
        raise RecordingError(
            f"{blur}: expected images, found {shorten(list(folder_names(blur))) or 'nothing'}; "
            "check --blur"
        )
    ordered = natural_order(images)
    for before, name in itertools.pairwise(ordered):
        if same_number(before, name):
            raise RecordingError(
                f"{blur}: {before} and {name} are both the frame {Path(name).stem}; remove one"
            )
    return dict(enumerate(images[name] for name in ordered))


def _exposed(frames: dict[int, Path], windows: Iterable[tuple[float, float]]) -> list[Exposure]:
    pairs = zip(frames.items(), windows, strict=True)
    return [Exposure(path, number, *window) for (number, path), window in pairs]


def exposures_by_log(
    blur: Path, log: StrPath, seq: str | None
) -> tuple[str, dict[int, Path], Exposures]:
    """Return the sequence's name, its frames by number, and their exposures by a log.

    Args:
        blur: folder of blurred frames.
        log: alignment log.
        seq: name of the sequence in the log; None: see `find_seq`.

    Raises:
        SpikeDeblurError: no such sequence, or a frame without a row; names it.
    """
    rows = read_alignment_log(log)
    seq = find_seq(blur, {name for name, _ in rows}, seq, log)
    windows = []
    frames = find_frames(blur)
    for number, path in frames.items():
        row = rows.get((seq, number))
        if row is None:
            raise RecordingError(
                f"{path}: no row for frame {number} of {seq} in {log}; align this data set "
                "again, or give --exposure and --fps instead of --log"
            )
        windows.append((row.t0, row.t1))
    remedy = "check the log's times, the spikes' rate and --first, their first sample's time"
    return seq, frames, Exposures.closed(windows, str(log), remedy)


def as_aligned(
    settings: SpikeSettings, log: StrPath, seq: str, *, keep_clock: bool
) -> SpikeSettings:
    """Return a stream's settings with the clock, registration and readout that `align` recorded.

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
    if sequence.readout is not None and settings.readout is None:
        settings = replace(settings, readout=sequence.readout)
        warnings.append(
            f"rows are read out in {describe_duration(sequence.readout)}, as {path} says"
        )
    if sequence.sensor is not None and settings.sensor is None:
        named = sequence.sensor.at(manifest.root_folder(path), path)
        settings = replace(settings, sensor=named)
        warnings.append(f"spike pixels are corrected by {named}, as {path} says")
    if verification is not None and verification.applied and not keep_clock:
        first = sequence.windows[0].first
        settings = replace(settings, first=first, rate=sequence.rate)
        warnings.append(
            f"clock corrected as {path} says: first sample at {first:.6f} s, {sequence.rate:g} Hz"
        )
    return replace(settings, warnings=tuple(warnings))


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
