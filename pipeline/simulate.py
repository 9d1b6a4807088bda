"""From sharp high-speed frames to what two cameras would have recorded: blur, spikes, sharp.

Each clip is one task. A clip is complete when the side file of its spikes is there, which is
written last; it records a digest of everything the clip was made from, so that a second run
keeps what is the same and refuses what is not. A hidden mark shows that an incomplete clip is
ours to clear away.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import shutil
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .. import __version__
from .align.timeline import exposure_window
from .clips import SPLITS, Clip, SimulateError, folder_clips, rng, scene_clips
from .files import atomic_write, require_inside, sweep, write_text
from .images import decode_srgb, encode_srgb, to_bytes, write_png
from .locks import end_with_parent, only_writer
from .machine import workers_that_fit
from .progress import Progress, Throughput
from .scenes import layers_area
from .spikes.camera import SpikeCamera, luminance
from .spikes.clock import SpikeClock
from .spikes.dat import pack_spikes
from .spikes.geometry import SpikeGeometry
from .spikes.sidefile import SideFile, read_side_file, side_file_path, write_side_file

__all__ = [
    "SPLITS",
    "Clip",
    "Recording",
    "SimulateError",
    "SimulateSummary",
    "folder_clips",
    "scene_clips",
    "simulate",
]

_SAMPLES_AT_ONCE = 256
"""A multiple of 8, so that pieces of any geometry end on whole bytes."""

_PROCESS_BYTES = 100 * 2**20
"""What a recording process holds beside pixels."""

_FRAME_BYTES, _SCENE_BYTES = 100, 900
"""What decoding and averaging a frame takes a pixel, and rendering a scene (measured)."""

_UNFINISHED = ".unfinished"
"""File beside the spikes of a clip that is being written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Both cameras' settings, the same for all clips."""

    exposure: int = 33
    """Frames that one blurred frame averages; odd."""
    stride: int = 15
    """Frames between the centres of two exposures."""
    fps: float = 1000.0
    """Sharp frames a second, in Hz."""
    spike_scale: int = 2
    """Side of a spike pixel, in colour pixels."""
    spikes_per_frame: int = 8
    """Spike samples in one frame interval."""
    threshold: float = 2.0
    """Integral at which the spike camera fires."""
    noise: float = 0.0
    """Spikes a sample that a pixel fires for no reason."""
    linear_light: bool = False
    """Decode frames from sRGB before averaging and before the spike camera."""
    seed: int = 0
    """Seed of scenes, phases and noise."""

    def __post_init__(self) -> None:
        exposure_window(0, self.exposure, self.fps)
        for name in ("stride", "spike_scale", "spikes_per_frame"):
            if getattr(self, name) < 1:
                raise SimulateError(f"expected {name} of at least 1, got {getattr(self, name)}")
        self.camera()
        self.clock(0)

    def camera(self) -> SpikeCamera:
        """Return the spike camera."""
        return SpikeCamera(threshold=self.threshold, noise=self.noise)

    def clock(self, first_frame: int) -> SpikeClock:
        """Return the clock of a clip whose first frame has this number."""
        rate = self.fps * self.spikes_per_frame
        return SpikeClock(rate=rate, first=first_frame / self.fps)

    def centres(self, n_frames: int) -> range:
        """Return the centre frames of all exposures that fit in a clip."""
        half = self.exposure // 2
        return range(half, n_frames - half, self.stride)

    def worker_bytes(self, clip: Clip) -> int:
        """Return what a process comes to hold that records a clip."""
        sums = 3 * 8 * (self.exposure // self.stride + 1)  # of exposures that overlap
        samples = 3 * _SAMPLES_AT_ONCE // self.spike_scale**2  # apart, as one array, upside down
        layers = layers_area(clip.fastest) / layers_area(1)
        frame = _FRAME_BYTES if clip.frames else math.ceil(_SCENE_BYTES * layers)
        return _PROCESS_BYTES + math.prod(clip.shape()) * (sums + samples + frame)


@dataclass(frozen=True, slots=True)
class SimulateSummary:
    """What a run of `simulate` did."""

    clips: int
    written: int
    kept: int
    windows: int
    spike_bytes: int


def simulate(
    out: Path,
    clips: list[Clip],
    recording: Recording,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> SimulateSummary:
    """Record clips into the layout `x4k1000fps` below `out`.

    Writes `<split>_blurry_<exposure>/<group>/<clip>/<centre>.png`, `<split>_fullRGB/...` with the
    sharp centre frames, and `<split>_spike_<scale>xds/<group>/<clip>/spike.dat` with its side
    file. Clips there from the same inputs are kept; the result depends on neither the number of
    workers nor the order.

    Raises:
        SimulateError: a clip is too short, has odd sides, or is there from other inputs, or the
            disk can't hold the spikes. Nothing is written then.
    """
    for clip in clips:
        if not recording.centres(clip.n_frames):
            raise SimulateError(
                f"{clip.seq}: expected at least {recording.exposure} frames, the exposure, got "
                f"{clip.n_frames}; take a shorter --exposure or longer clips"
            )
    message = f"{out}: another `simulate` is writing there; wait for it, or stop it"
    with only_writer(out, message):
        todo = _todo(out, clips, recording, overwrite)
        _require_room(out, todo, recording)
        if workers is None:
            workers = workers_that_fit(max(map(recording.worker_bytes, todo), default=1))
        workers = min(workers, max(len(todo), 1))
        recorded = Throughput()
        spike_bytes = 0
        for done, written in enumerate(_run(out, todo, recording, workers), start=1):
            spike_bytes += written
            note = f"{recorded(written)} of spikes"
            if on_progress is not None:
                on_progress(done, len(todo), note)
    return SimulateSummary(
        clips=len(clips),
        written=len(todo),
        kept=len(clips) - len(todo),
        windows=sum(len(recording.centres(clip.n_frames)) for clip in clips),
        spike_bytes=spike_bytes,
    )


def _todo(out: Path, clips: list[Clip], recording: Recording, overwrite: bool) -> list[Clip]:
    """Return the clips to record: those that are not there from the same inputs."""
    todo = []
    for clip in clips:
        folders = (
            _spike_path(out, clip.seq, recording).parent,
            *_picture_folders(out, clip.seq, recording),
        )
        for folder in folders:
            require_inside(out, folder)
        made = _made_from(out, clip, recording)
        if made == clip.inputs(recording) and not overwrite:
            continue
        if made is not None and not overwrite:
            raise SimulateError(
                f"{_spike_path(out, clip.seq, recording)}: made from other frames or settings; "
                "use another output folder, or --overwrite to replace the clip"
            )
        if made is None and not overwrite:
            _require_free(out, clip.seq, recording)
        todo.append(clip)
    return todo


def _require_room(out: Path, clips: list[Clip], recording: Recording) -> None:
    scale = recording.spike_scale
    needed = 0
    for clip in clips:
        recording.clock(clip.first)
        height, width = clip.shape()
        if height % scale or width % scale:
            raise SimulateError(
                f"{clip.seq}: expected sides that are multiples of --spike-scale {scale}, got "
                f"{height}x{width}; crop the frames, or take another --size or --spike-scale"
            )
        samples = (clip.n_frames - 1) * recording.spikes_per_frame + 1
        needed += samples * (height // scale) * (width // scale) // 8
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise SimulateError(
            f"{out}: expected room for {needed / 1e9:.1f} GB of spikes, found {free / 1e9:.1f} GB "
            "free; take fewer, smaller or shorter clips, or fewer --spikes-per-frame"
        )


def _run(out: Path, todo: list[Clip], recording: Recording, workers: int) -> Iterator[int]:
    if workers == 1:
        for clip in todo:
            yield record_clip(out, clip, recording)
        return
    others = set(multiprocessing.active_children())
    # Spawned, because a forked child inherits locks of threads that it doesn't have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        # Workers inherit the mask: Ctrl-C, which reaches all, would end one that is starting up.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            tasks = [pool.submit(record_clip, out, clip, recording) for clip in todo]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenProcessPool as error:
            raise SimulateError(
                f"{out}: a worker process was ended from outside, most often for lack of memory; "
                "run again with fewer --workers: complete clips are kept"
            ) from error
        except BaseException:
            # Clips are written so that any moment will do; waiting would take a clip's time.
            ours = set(multiprocessing.active_children()) - others
            for process in ours:
                process.kill()
            for process in ours:
                process.join()
            for clip in todo:
                for folder in (
                    _spike_path(out, clip.seq, recording).parent,
                    *_picture_folders(out, clip.seq, recording),
                ):
                    sweep(folder, own=True)
            raise


def record_clip(out: Path, clip: Clip, recording: Recording) -> int:
    """Record one clip with both cameras; returns the bytes of its spike file."""
    blurry, sharp = _picture_folders(out, clip.seq, recording)
    spike_path = _spike_path(out, clip.seq, recording)
    unfinished = spike_path.with_name(_UNFINISHED)
    write_text(unfinished, "")
    side_file_path(spike_path).unlink(missing_ok=True)
    sweep(spike_path.parent)
    spike_path.unlink(missing_ok=True)
    for folder in (blurry, sharp):
        if folder.exists():
            shutil.rmtree(folder)

    def light() -> Iterator[npt.NDArray[np.float32]]:
        """Yield what the spike camera sees, writing the colour camera's frames on the way."""
        half = recording.exposure // 2
        centres = recording.centres(clip.n_frames)
        sums: dict[int, npt.NDArray[np.float64]] = {}
        for i, frame in enumerate(clip.render(recording.seed)):
            values = decode_srgb(frame) if recording.linear_light else frame
            for centre in centres:
                if abs(i - centre) <= half:
                    total = sums.setdefault(centre, np.zeros(frame.shape, np.float64))
                    total += values
                if i == centre:
                    write_png(sharp / f"{clip.first + centre:04d}.png", frame)
                if i == centre + half:
                    mean = sums.pop(centre) / recording.exposure
                    blurred = encode_srgb(mean) if recording.linear_light else to_bytes(mean)
                    write_png(blurry / f"{clip.first + centre:04d}.png", blurred)
            yield area_mean(luminance(values), recording.spike_scale)

    camera, clock = recording.camera(), recording.clock(clip.first)
    samples = _interpolate(light(), recording.spikes_per_frame)
    spikes = camera.record(samples, rng(recording.seed, clip.seq, "camera"))
    geometry: SpikeGeometry | None = None
    with atomic_write(spike_path) as file:
        while block := list(itertools.islice(spikes, _SAMPLES_AT_ONCE)):
            height, width = block[0].shape
            geometry = SpikeGeometry(height=height, width=width, flip_rows=True)
            file.write(pack_spikes(np.stack(block), geometry))
    assert geometry is not None, "a clip has frames"
    side = SideFile(
        geometry=geometry.describe(),
        rate=clock.rate,
        first=clock.first,
        gain=camera.gain,
        made_by={
            "tool": "spikedeblur simulate",
            "version": __version__,
            "inputs": clip.inputs(recording),
            "frames_sha256": clip.frames_sha256(),
            **asdict(recording),
        },
    )
    write_side_file(spike_path, side)
    unfinished.unlink()
    return spike_path.stat().st_size


def area_mean(image: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    """Return (H / scale, W / scale) means of (H, W) over squares of `scale` pixels."""
    height, width = image.shape
    squares = image.reshape(height // scale, scale, width // scale, scale)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32))


def _interpolate(
    light: Iterable[npt.NDArray[np.float32]], per_frame: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield `per_frame` linearly interpolated images a frame interval, then the last frame."""
    now: npt.NDArray[np.float32] | None = None
    for after in light:
        if now is not None:
            for k in range(per_frame):
                share = np.float32(k / per_frame)
                yield now + share * (after - now)
        now = after
    if now is not None:
        yield now


def _spike_path(out: Path, seq: str, recording: Recording) -> Path:
    split, group, name = seq.split("/")
    return out / f"{split}_spike_{recording.spike_scale}xds" / group / name / "spike.dat"


def _picture_folders(out: Path, seq: str, recording: Recording) -> tuple[Path, Path]:
    """Return where a clip's blurred and sharp frames go."""
    split, group, name = seq.split("/")
    return (
        out / f"{split}_blurry_{recording.exposure}" / group / name,
        out / f"{split}_fullRGB" / group / name,
    )


def _require_free(out: Path, seq: str, recording: Recording) -> None:
    """Refuse to write where files are that no run of ours was writing.

    Raises:
        SimulateError: names the folder.
    """
    spikes = _spike_path(out, seq, recording).parent
    if (spikes / _UNFINISHED).exists():
        return
    for folder in (spikes, *_picture_folders(out, seq, recording)):
        if folder.is_dir() and any(folder.iterdir()):
            raise SimulateError(
                f"{folder}: holds files that `simulate` did not write; use another output folder, "
                "or --overwrite to replace the clip"
            )


def _made_from(out: Path, clip: Clip, recording: Recording) -> str | None:
    """Return the digest that a complete clip at the same place was made from, if there is one."""
    side = read_side_file(_spike_path(out, clip.seq, recording))
    if side is None:
        return None
    return str(side.made_by.get("inputs", "another tool"))
