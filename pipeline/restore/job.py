"""The restore stage: one sharp PNG for each blurred frame of a recording.

Beside the frames lies `restore.job.json`, written before the first of them: what they were made
from, by content, and how. A killed run goes on where that record is the same: each PNG takes its
name only when it is whole, so those that are there are done.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..frames.images import require_png16, write_png, write_png16
from ..frames.video import VIDEO_SUFFIX, decode_to_folder
from ..host.files import inside, sha256_file, sweep
from ..host.locks import only_writer
from ..host.reporter import Progress
from ..methods.contract import METHODS, Method, restored_frames
from ..methods.tfp_tfi_sdm import DEFAULT_SHORT_BINS, BlurMethod, SdmMethod, TfiMethod, TfpMethod
from ..sequences.find_recording import find_recording, recordings_of, settle_spikes
from ..sequences.lag import NOTABLE
from ..sequences.recording import Recording, RecordingSequence
from ..spikes.settings import SpikeOptions

if TYPE_CHECKING:
    from ..methods.network import ModelMethod

from .record import RestoreError, frame_stems, prepare_out, tile_before, write_record

LAG_EXPOSURES = 16
"""On which it is looked whether spikes are late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreSummary:
    """What a run did."""

    out: str
    seq: str
    method: str
    frames: int
    restored: int
    kept: int
    """Were there already, from the same inputs."""
    tile: int | None
    """Side of the model's tiles in pixels; None: whole frames, or no model."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreManifestSummary:
    """What a run on all recordings of a manifest did."""

    out: str
    restored: int
    kept: int
    """Frames that were there already, from the same inputs."""
    recordings: tuple[RestoreSummary, ...]


def restore(
    blur: str | os.PathLike[str],
    spikes: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    method: str | None = None,
    log: str | os.PathLike[str] | None = None,
    seq: str | None = None,
    exposure: int | None = None,
    fps: float | None = None,
    rate: float | None = None,
    geometry: str | None = None,
    gain: float | None = None,
    first: float | None = None,
    calibration: str | os.PathLike[str] | None = None,
    tile: int | None = None,
    flips: bool = False,
    short_bins: int = DEFAULT_SHORT_BINS,
    frames_per_exposure: int = 1,
    step: int | None = None,
    bits: Literal[8, 16] = 8,
    device: str | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> RestoreSummary:
    """Restore all frames of a folder to `<out>/<frame>.png`.

    More than one of an exposure: `<out>/<frame>_<m>.png`, m from 0, in order of time, each in the
    middle of its equal part of the exposure.

    Args:
        blur: folder of blurred frames named by number, or a video of them.
        spikes: one `.dat` stream that holds all their exposures.
        out: folder to write; may not be `blur`.
        run: run folder of a trained model, or an exported one, for the method `model`.
        method: one of `METHODS`; None: model.
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
        tile: as in `ModelMethod`.
        flips: as in `ModelMethod`.
        short_bins: width of the short window of tfp and sdm, in bins.
        frames_per_exposure: sharp frames from each blurred one.
        step: of a video: sharp frames from one blurred frame to the next; None: an exposure, so
            that they follow each other without gap. The first is centred in the first exposure.
        bits: of a channel in the PNGs; 16 need the extra `png16`.
        device: a torch device for the model; None: the GPU where there is one.
        overwrite: replace frames made from other inputs.
        on_progress: told after each frame.

    Raises:
        RestoreError: no way to tell method or times, or frames in `out` from other inputs.
        SpikeDeblurError: an input that can't be used; names it.
    """
    blur, out = Path(blur), Path(out)
    way = _Way(run, method, tile, flips, short_bins, frames_per_exposure, bits, device)
    if (log is None) == (exposure is None and fps is None):
        raise RestoreError("expected the frames' times from a log, or from exposure and fps")
    if bits == 16:
        require_png16(out)
    if out.resolve() == blur.resolve():
        raise RestoreError(f"{out}: the blurred frames are there; choose another --out")
    if blur.suffix == VIDEO_SUFFIX:
        if exposure is None:
            raise RestoreError(f"{blur}: a video's frames have no numbers; give exposure and fps")
        # What is wrong with the spikes is told before anything is written.
        options = SpikeOptions(geometry=geometry, rate=rate, gain=gain, first=first)
        settle_spikes(spikes, options)
        blur = decode_to_folder(blur, out, exposure // 2, exposure if step is None else step)
    elif step is not None:
        raise RestoreError(f"{blur}: a step is for videos; these frames have their numbers")
    recording = find_recording(
        blur,
        spikes,
        log=log,
        seq=seq,
        exposure=exposure,
        fps=fps,
        rate=rate,
        geometry=geometry,
        gain=gain,
        first=first,
        calibration=calibration,
    )
    sources = {"blur": str(blur), "spikes": str(spikes), "log": None if log is None else str(log)}
    return _restore_recording(recording, out, way, sources, overwrite, on_progress)


def restore_manifest(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str | None = None,
    run: str | os.PathLike[str] | None = None,
    method: str | None = None,
    tile: int | None = None,
    flips: bool = False,
    short_bins: int = DEFAULT_SHORT_BINS,
    frames_per_exposure: int = 1,
    bits: Literal[8, 16] = 8,
    device: str | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> RestoreManifestSummary:
    """Restore all recordings of a manifest, each to `<out>/<seq>`, as `restore` does one.

    Clocks, geometry and registration are the manifest's. What is there already from the same
    inputs is kept.

    Args:
        manifest: that `align` wrote.
        out: folder to write below.
        split: train, val or test; None: all.
        run: as the further arguments, as in `restore`.

    Raises:
        RestoreError: as `restore`, or no recordings in the split.
        SpikeDeblurError: a recording that can't be used; those before it are done.
    """
    way = _Way(run, method, tile, flips, short_bins, frames_per_exposure, bits, device)
    if bits == 16:
        require_png16(out)
    recordings = recordings_of(manifest, split)
    total = sum(len(recording.exposures) for recording in recordings) * frames_per_exposure
    summaries: list[RestoreSummary] = []
    for recording in recordings:
        before = sum(summary.frames for summary in summaries)

        def told(done: int, of_this: int, note: str, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + done, total, note)

        folder = inside(Path(out), recording.seq, manifest)
        sources = {"manifest": str(manifest), "spikes": str(recording.dat)}
        summaries.append(_restore_recording(recording, folder, way, sources, overwrite, told))
    return RestoreManifestSummary(
        out=str(out),
        restored=sum(summary.restored for summary in summaries),
        kept=sum(summary.kept for summary in summaries),
        recordings=tuple(summaries),
    )


class _Way:
    """How frames are restored, the same for all recordings of a run; see `restore`."""

    def __init__(
        self,
        run: str | os.PathLike[str] | None,
        method: str | None,
        tile: int | None,
        flips: bool,
        short_bins: int,
        frames_per_exposure: int,
        bits: Literal[8, 16],
        device: str | None,
    ) -> None:
        self.method = checked_method(method, has_run=run is not None)
        if frames_per_exposure < 1:
            raise RestoreError(f"expected at least 1 frame an exposure, got {frames_per_exposure}")
        self.run, self.tile, self.flips, self.device = run, tile, flips, device
        self.short_bins, self.frames_per_exposure, self.bits = short_bins, frames_per_exposure, bits

    @cached_property
    def model(self) -> ModelMethod | None:
        """The trained model; None: a method without one."""
        if self.method != "model":
            return None
        from ..methods.network import ModelMethod

        assert self.run is not None, "checked_method lets model pass only with a run"
        return ModelMethod.from_run(self.run, tile=self.tile, flips=self.flips, device=self.device)


def _restore_recording(
    recording: Recording,
    out: Path,
    way: _Way,
    sources: Mapping[str, str | None],
    overwrite: bool,
    on_progress: Progress | None,
) -> RestoreSummary:
    """Restore one recording's frames to a folder."""
    seq, exposures, settings = recording.seq, recording.exposures, recording.settings
    spikes, model, bits = recording.dat, way.model, way.bits
    frames_per_exposure = way.frames_per_exposure
    bins = model.config.DATA.K if model else None
    instants = [(m + 0.5) / frames_per_exposure - 0.5 for m in range(frames_per_exposure)]
    sequences = [
        RecordingSequence(seq, exposures, spikes, settings, bins, at=at) for at in instants
    ]
    sequence = min(sequences, key=lambda of_instant: of_instant.bins)
    short_bins = min(way.short_bins, sequence.bins)
    restoring = model or _simple_method(way.method, short_bins)
    if model is not None:
        model.tile = tile_before(out) if way.tile is None and not overwrite else way.tile
    side = model.tile_side(sequence.frame_shape, sequence.length) if model else None
    inputs = {
        "method": way.method,
        "short_bins": short_bins if way.method in ("tfp", "sdm") else None,
        "bins": sequence.bins,
        "tile": side,
        "flips": way.flips and model is not None,
        "frames_per_exposure": frames_per_exposure,
        "model_sha256": _model_hash(way.run) if way.run is not None else None,
        "spikes_sha256": sha256_file(spikes),
        "geometry": settings.geometry.describe(),
        "rate": settings.rate,
        "gain": settings.gain,
        "first": settings.first,
        **({"matrix": settings.registration.matrix} if settings.registration else {}),
        **({"bits": bits} if bits != 8 else {}),
        "frames": {
            e.path.stem: {"t0": e.t0, "t1": e.t1, "blur_sha256": sha256_file(e.path)}
            for e in exposures
        },
    }
    sources = {**sources, "seq": seq, "run": str(way.run) if model else None}
    message = f"{out}: another `restore` is writing there; wait for it, or stop it"
    with only_writer(out, message):
        sweep(out)
        prepare_out(out, inputs, sources, overwrite)

        targets = [out / f"{stem}.png" for stem in frame_stems(inputs)]
        missing = [not target.exists() for target in targets]
        done = kept = len(targets) - sum(missing)
        for m, of_instant in enumerate(sequences):
            ours = slice(m, None, frames_per_exposure)
            for window, frame in restored_frames(
                restoring, of_instant, missing[ours].__getitem__, bits
            ):
                target = targets[ours][window]
                (write_png if bits == 8 else write_png16)(target, frame)
                done += 1
                if on_progress is not None:
                    on_progress(done, len(targets), target.name)
        write_record(out, inputs, sources, complete=True)
    return RestoreSummary(
        out=str(out),
        seq=seq,
        method=way.method,
        frames=len(targets),
        restored=len(targets) - kept,
        kept=kept,
        tile=side,
        warnings=(
            *settings.warnings,
            *_gain_warning(way.method, settings.gain),
            *_lag_warning(sequences[frames_per_exposure // 2], model),
        ),
    )


def checked_method(method: str | None, *, has_run: bool) -> str:
    """Return the method's name; a run alone means the model.

    Raises:
        RestoreError: unknown, or a run where none is needed, or the other way about.
    """
    if method is None:
        if not has_run:
            raise RestoreError(
                "expected a way to restore; give --model small, which ships, --run DIR of a "
                "trained model, or --method sdm, which needs none"
            )
        return "model"
    if method not in METHODS:
        raise RestoreError(f"expected a method among {', '.join(METHODS)}, got {method!r}")
    if (method == "model") != has_run:
        raise RestoreError(
            "the method model needs a trained one; give --run DIR or --model small"
            if method == "model"
            else f"the method {method} takes no trained model; give one or the other, not both"
        )
    return method


def _simple_method(name: str, short_bins: int) -> Method:
    if name == "blur":
        return BlurMethod()
    if name == "tfp":
        return TfpMethod(short_bins)
    if name == "tfi":
        return TfiMethod()
    if name == "path":
        from ..methods.path import PathMethod

        return PathMethod()
    assert name == "sdm", name
    return SdmMethod(short_bins)


def _gain_warning(method: str, gain: float | None) -> tuple[str, ...]:
    if gain is None and method in ("tfp", "tfi", "sdm", "path"):
        return ("gain not known: taken from the blurred frames' brightness; give --gain",)
    return ()


def _lag_warning(windows: RecordingSequence, model: ModelMethod | None) -> tuple[str, ...]:
    """Warn of spikes that the first blurred frames show to be late or early."""
    if model is None:
        return ()
    from ..methods.network import lag_in_bins

    lag = lag_in_bins(windows, 0, min(windows.length, LAG_EXPOSURES)) / windows.bins
    if abs(lag) <= NOTABLE:
        return ()
    when = "late" if lag > 0 else "early"
    moved = "; the model was given them in time" if model.config.DATA.NORM.CORRECT_LAG else ""
    return (
        f"by the blurred frames the spikes come {when} by {abs(lag):.0%} of the exposure"
        f"{moved}; check --fps and --first, or let `align --estimate` correct the clock",
    )


def _model_hash(run: str | os.PathLike[str]) -> str:
    from ..trained.model_file import weights_file

    return sha256_file(weights_file(run))
