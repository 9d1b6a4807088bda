"""The restore stage: one or several sharp PNGs for each blurred frame of a recording.

Beside the frames lies `restore.json`, written before the first of them: what they are made from,
by content, and how. A killed run goes on where that record is the same: each PNG gets its name
only when it is whole, so those that are there are done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..calibrate.sensor_file import read_sensor
from ..frames.colours import colours_of, common_colours
from ..frames.images import read_image, require_png16, write_png, write_png16
from ..host.files import StrPath, inside, sha256_file, sweep
from ..host.locks import only_writer
from ..host.reporter import SILENT, Parts, Reporter
from ..methods.contract import Method, restored_instants, with_middles
from ..methods.make_method import METHODS, UNTRAINED, ModelOptions, make_method
from ..methods.parts import GUESSES, parts_of
from ..methods.tfp_tfi_sdm import DEFAULT_SHORT_BINS
from ..sequences.find_recording import recordings_of
from ..sequences.in_time import require_one_scene
from ..sequences.linear_frames import FrameCurve
from ..sequences.recording import Recording, RecordingSequence
from ..spikes.between import Between
from .gain import gain_taken
from .record import (
    MOST_FRAMES_PER_EXPOSURE,
    MOST_HEADROOM,
    Inputs,
    RestoreError,
    frame_stems,
    prepare_out,
    tile_before,
    white_of,
    write_record,
)
from .samples import alike, require_samples, without_light


@dataclass(frozen=True, kw_only=True, slots=True)
class Restoring(ModelOptions):
    """How frames are restored."""

    run: StrPath | None = None
    """Run folder of a trained model, or an exported one, for the method `model`."""
    method: str = "model"
    """One of `make_method.METHODS`."""
    short_bins: int = DEFAULT_SHORT_BINS
    """Width of the short window of tfp and sdm, in bins."""
    frames_per_exposure: int = 1
    """Number of sharp frames from each blurred one, each in the middle of its equal part of the
    exposure."""
    bits: Literal[8, 16] = 8
    """Bits of a channel in the PNGs; 16 need the extra `png16`."""
    headroom: int = 1
    """Brightest light that the PNGs show, 1 being white; more needs 16 bits."""
    curve: FrameCurve | None = None
    """What the numbers of the frames are; None: as the spikes tell."""
    force: bool = False
    """Restore even where spikes and frames are not alike at any lag."""

    def __post_init__(self) -> None:
        """Refuse what can't be done.

        Raises:
            RestoreError: an unknown method, a model too many or none, options of a model without
                one, or less than one frame.
            ImageError: 16 bits without OpenCV.
        """
        if self.method not in METHODS:
            names = ", ".join(METHODS)
            raise RestoreError(f"expected a method among {names}, got {self.method!r}")
        if self.method == "model" and self.run is None:
            raise RestoreError(
                "expected a way to restore; give --model small, which ships, --run DIR of a "
                "trained model, or --method path, which needs none"
            )
        if self.method != "model" and self.run is not None:
            raise RestoreError(
                f"--method {self.method} takes no trained model; leave it out, or --run and --model"
            )
        if self.method != "model" and (self.tile is not None or self.flips):
            raise RestoreError(
                f"tiles and flips are of trained models, and {self.method} is none; "
                "leave --tile and --flips out"
            )
        if not 1 <= self.frames_per_exposure <= MOST_FRAMES_PER_EXPOSURE:
            raise RestoreError(
                f"expected 1 to {MOST_FRAMES_PER_EXPOSURE} frames an exposure, got "
                f"{self.frames_per_exposure}"
            )
        if not 1 <= self.headroom <= MOST_HEADROOM:
            raise RestoreError(f"expected a headroom of 1 to {MOST_HEADROOM}, got {self.headroom}")
        if self.headroom > 1 and self.bits == 8:
            raise RestoreError(
                "frames of 8 bits end at white; for light beyond it give --bits 16 too"
            )
        if self.bits == 16:
            require_png16("--bits 16")


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreSummary:
    """Result of restoring one recording."""

    out: str
    seq: str
    method: str
    frames: int
    """Number of sharp frames in `out`."""
    restored: int
    """Number of frames that this run restored."""
    kept: int
    """Number of frames that were there already, from the same inputs."""
    tile: int | None
    """Side of the model's tiles in pixels; None: whole frames, or no model."""
    gain: float | None
    """Spikes a sample at unit luminance, as recorded or given; where it is not, as the blurred
    frames of up to three exposures show it. By `path`, the median of what it measured in each
    exposure that this run read. None: no gain was used."""
    gain_measured: bool
    """Whether the gain was measured."""
    curve: FrameCurve
    """What the numbers of the frames were taken for."""
    left_out: int
    """Number of frames that are not exposed wholly in the part of the recording that is read."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreManifestSummary:
    """Result of restoring all recordings of a manifest."""

    out: str
    restored: int
    """Number of frames that this run restored."""
    kept: int
    """Number of frames that were there already, from the same inputs."""
    left_out: int
    """Number of frames that are not exposed wholly in the parts that are read."""
    recordings: tuple[RestoreSummary, ...]


def restore(
    recording: Recording,
    out: StrPath,
    how: Restoring,
    *,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> RestoreSummary:
    """Restore all frames of a recording to `<out>/<frame>.png`.

    With several frames an exposure, they are `<out>/<frame>_<m>.png`, m from 0, in order of time.

    Args:
        recording: blurred frames and spikes, as `find_recording` returns them.
        out: folder to write; not that of the blurred frames.
        how: the method and its settings.
        overwrite: replace frames made from other inputs.
        reporter: receives progress in frames, and warnings.

    Raises:
        RestoreError: frames in `out` from other inputs.
        SpikeDeblurError: an input that can't be used; names it.
    """
    job = _Job(how, overwrite, reporter, [len(recording.exposures)])
    return job.restore(recording, Path(out))


def restore_manifest(
    manifest: StrPath,
    out: StrPath,
    how: Restoring,
    *,
    split: str | None = None,
    sensor: StrPath | None = None,
    between: Between | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> RestoreManifestSummary:
    """Restore all recordings of a manifest, each to `<out>/<seq>`, as `restore` does one.

    Clocks, geometry and registration are the manifest's. What is there already from the same
    inputs is kept.

    Args:
        manifest: a manifest that `align` wrote.
        out: folder to write below.
        how: the method and its settings.
        split: train, val or test; None: all.
        sensor: file of the sensor that all were recorded with; None: as their side files say.
        between: times between which each recording is read; None: all of it.
        overwrite: replace frames made from other inputs.
        reporter: receives progress in frames, and warnings.

    Raises:
        RestoreError: as `restore`, or no recordings in the split.
        SpikeDeblurError: a recording that can't be used; those before it are done.
    """
    recordings = recordings_of(manifest, split, sensor, between)
    exposures = [len(recording.exposures) for recording in recordings]
    job = _Job(how, overwrite, reporter, exposures)
    summaries = tuple(
        job.restore(recording, inside(Path(out), recording.seq, manifest))
        for recording in recordings
    )
    return RestoreManifestSummary(
        out=str(out),
        restored=sum(summary.restored for summary in summaries),
        kept=sum(summary.kept for summary in summaries),
        left_out=sum(summary.left_out for summary in summaries),
        recordings=summaries,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Frames of a recording that one method restores."""

    method: Method
    windows: RecordingSequence
    indices: Sequence[int]
    """Which of the recording's exposures the windows are."""
    numbers: Sequence[int]
    """Which of an exposure's sharp frames."""
    times: Sequence[float]
    """Their instants, in windows from the middle."""


class _Job:
    """One run: its method, and how many frames are done."""

    def __init__(
        self, how: Restoring, overwrite: bool, reporter: Reporter, exposures: list[int]
    ) -> None:
        self._how, self._overwrite, self._reporter = how, overwrite, reporter
        self._work = Parts(reporter, sum(exposures) * how.frames_per_exposure, GUESSES | _GUESSES)
        self._model = None if how.run is None else how.open(how.run)
        self._to_come = exposures
        """Numbers of exposures of the recordings to come."""

    def restore(self, recording: Recording, out: Path) -> RestoreSummary:
        """Restore one recording's frames to a folder."""
        how, model = self._how, self._model
        if out.resolve() == recording.exposures[0].path.parent.resolve():
            raise RestoreError(f"{out}: the blurred frames are there; choose another --out")
        each = how.frames_per_exposure
        require_samples(recording, each)
        if how.method != "blur" or each > 1:  # the blurred frame itself needs no light
            recording = recording.with_frame_curve(how.curve)
        parts = list(self._parts(recording))
        shortest = min((part.windows for part in parts), key=lambda windows: windows.bins)
        short_bins = min(how.short_bins, shortest.bins)
        if model is not None:
            model.tile = tile_before(out) if how.tile is None and not self._overwrite else how.tile
        tile = model.tile_side(shortest.frame_shape, shortest.length) if model else None
        inputs = _inputs(how, recording, bins=shortest.bins, short_bins=short_bins, tile=tile)
        sources = {
            **recording.sources,
            "seq": recording.seq,
            "run": None if how.run is None else str(how.run),
        }
        warnings = []
        for warning in _warnings(how, recording):
            self._reporter.warn(warning)
            warnings.append(warning)
        message = f"{out}: another `restore` is writing there; wait for it, or stop it"
        files = [out / f"{stem}.png" for stem in frame_stems(inputs)]
        if len(set(files)) < len(recording.exposures) * each:
            raise RestoreError(
                f"{out}: expected a name of its own for each of {len(recording.exposures) * each} "
                f"sharp frames, found {len(set(files))} by the names of the blurred ones; rename "
                "these, or ask for another number of --frames-per-exposure"
            )
        with only_writer(out, message):
            sweep(out)
            prepare_out(out, inputs, sources, self._overwrite)
            missing = [not file.exists() for file in files]
            wanted = [
                [[missing[i * each + m] for m in part.numbers] for i in part.indices]
                for part in parts
            ]
            self._expect(recording, parts, wanted)
            write: Callable[[Path, Any, bytes], None]
            write = write_png if how.bits == 8 else write_png16
            shown: list[float] = []
            for part, wanted_here in zip(parts, wanted, strict=True):
                for window, instant, frame in restored_instants(
                    part.method, part.windows, part.times, wanted_here, how.bits, how.headroom
                ):
                    exposure = part.indices[window]
                    file = files[exposure * each + part.numbers[instant]]
                    write(file, frame, colours_of(recording.exposures[exposure].path).chunks())
                    self._work.did("frames", file.name, finished=1)
                shown += part.method.measured_gains(part.windows)
            write_record(out, inputs, sources, complete=True)
        gain = gain_taken(recording, how.method, model, shown)
        return RestoreSummary(
            out=str(out),
            seq=recording.seq,
            method=how.method,
            frames=len(files),
            restored=sum(missing),
            kept=len(files) - sum(missing),
            tile=tile,
            gain=gain.value,
            gain_measured=gain.measured,
            curve=recording.frame_curve,
            left_out=recording.left_out,
            warnings=tuple(warnings),
        )

    def _expect(
        self, recording: Recording, parts: Sequence[_Part], wanted: Sequence[list[list[bool]]]
    ) -> None:
        """Tell what is left: in this recording, and in those to come, as if they were like it."""
        each, here = self._how.frames_per_exposure, len(recording.exposures)
        self._to_come.remove(here)
        later = sum(self._to_come) / here
        left = dict.fromkeys(GUESSES | _GUESSES, 0.0)
        left |= {"checks": len(self._to_come), "frames": later * here * each}
        missing = sum(sum(window) for part in wanted for window in part)
        left["frames"] += missing
        for part, of_part in zip(parts, wanted, strict=True):
            if part.method.shared is not None:
                part.method.shared.heard = self._work.did
            some = with_middles(of_part)
            several = len(part.times)
            for kind, number in parts_of([part.method], part.windows, some, several).items():
                left[kind] += number
            for kind, number in parts_of([part.method], part.windows, instants=several).items():
                left[kind] += later * number
        self._work.expect(left, done=here * each - missing)
        self._work.did("checks", recording.seq)

    def _parts(self, recording: Recording) -> Iterator[_Part]:
        """Yield what to restore, and by which method.

        A network sees exposures together; other methods, those of as many bins. Where the method
        does not follow motion, each instant has windows of its own around it.
        """
        how, model, each = self._how, self._model, self._how.frames_per_exposure
        times = [(m + 0.5) / each - 0.5 for m in range(each)]
        bins = model.config.DATA.K if model else None
        for group in [range(len(recording.exposures))] if model else alike(recording):
            exposed = recording.only(group)
            windows = RecordingSequence(exposed, bins)
            method = model or make_method(how.method, min(how.short_bins, windows.bins))
            if each == 1 or method.exposures(windows) is not None:
                yield _Part(method, windows, group, range(each), times)
                continue
            for m, time in enumerate(times):
                around = RecordingSequence(exposed, bins, at=time)
                method = model or make_method(how.method, min(how.short_bins, around.bins))
                yield _Part(method, around, group, [m], [0.0])


_GUESSES = {"frames": 0.05, "checks": 0.0}
"""Time to make and write one of several frames that move along, as `methods.parts.GUESSES`, and to
look whether a recording is fit, which is not guessed."""


def _image_sha256(path: Path) -> str:
    return hashlib.sha256(read_image(path)).hexdigest()


def _inputs(
    how: Restoring, recording: Recording, *, bins: int, short_bins: int, tile: int | None
) -> Inputs:
    """Return what decides every pixel of the frames; frames of equal inputs are kept."""
    settings = recording.settings
    model_hash = None
    if how.run is not None:
        from ..weights.find import weights_file

        model_hash = sha256_file(weights_file(how.run))
    untrained = UNTRAINED.get(how.method)
    return {
        "method": how.method,
        "short_bins": short_bins if untrained and untrained.has_short_window else None,
        "bins": bins,
        "tile": tile,
        "flips": how.flips and how.run is not None,
        "frames_per_exposure": how.frames_per_exposure,
        "model_sha256": model_hash,
        **recording.hashed_spikes(),
        "geometry": settings.geometry.describe(),
        "rate": settings.rate,
        "gain": settings.gain,
        "first": settings.first,
        **({"matrix": settings.registration.matrix} if settings.registration else {}),
        **({"readout": settings.readout} if settings.readout is not None else {}),
        **({"sensor_sha256": read_sensor(settings.sensor).sha256} if settings.sensor else {}),
        **({"bits": how.bits} if how.bits != 8 else {}),
        **({"white": white_of(how.headroom)} if how.headroom != 1 else {}),
        **({"curve": recording.frame_curve} if recording.frame_curve != "linear" else {}),
        "frames": {
            e.path.stem: {"t0": e.t0, "t1": e.t1, "blur_sha256": _image_sha256(e.path)}
            for e in recording.exposures
        },
    }


def _warnings(how: Restoring, recording: Recording) -> Iterator[str]:
    """Yield what may be wrong with a recording, or with what the user said about it.

    Raises:
        RecordingError: its spikes are of another scene.
    """
    settings = recording.settings
    yield from settings.warnings
    if how.run is None and settings.gain is None and UNTRAINED[how.method].needs_gain:
        yield "gain not known: taken from the blurred frames' brightness; give --gain"
    colours = {exposure.path.name: colours_of(exposure.path) for exposure in recording.exposures}
    if differ := common_colours(colours):
        yield differ
    if how.method != "blur":
        yield from without_light(recording)
        yield from require_one_scene(recording, force=how.force)[1]
