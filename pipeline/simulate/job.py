"""Many clips, recorded by both cameras: blurred frames, spikes and sharp frames.

Each clip is one task. A clip is complete when the side file of its spikes is there, which is
written last. It records a digest of everything that the clip was made from, so that a second run
keeps clips from the same inputs and refuses to replace others. A hidden mark in an incomplete
clip shows that `simulate` began it, and may remove it.
"""

from __future__ import annotations

import math
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from ..host.files import require_inside, sweep
from ..host.locks import end_with_parent, only_writer
from ..host.machine import workers_that_fit
from ..host.reporter import SILENT, Parts, Reporter, Throughput, counted
from ..spikes.sidefile import read_side_file
from .clips import SimulateError, SourceClip
from .record import DAT, UNFINISHED, clip_folders, inputs_digest, record_clip
from .rig import Rig


@dataclass(frozen=True, slots=True)
class SimulateSummary:
    """What a run of `simulate` did."""

    clips: int
    written: int
    """Clips that were recorded."""
    kept: int
    """Clips that were there from the same inputs."""
    windows: int
    """Blurred frames of all clips."""
    spike_bytes: int
    """Bytes of spikes that were written."""


def simulate(
    out: Path,
    clips: list[SourceClip],
    rig: Rig,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> SimulateSummary:
    """Record clips into the layout `x4k1000fps` below `out`.

    Writes `<split>_blurry_<exposure>/<group>/<clip>/<centre>.png`, `<split>_fullRGB/...` with the
    sharp middle frames, and `<split>_spike_<scale>xds/<group>/<clip>/spike.dat` with its side
    file. Clips there from the same inputs are kept; the result depends on neither the number of
    workers nor the order.

    Args:
        out: folder of the data set.
        clips: clips to record.
        rig: settings of both cameras.
        workers: processes; None: one a core, as far as memory allows.
        overwrite: replace clips from other inputs, and files of others.
        reporter: hears each clip.

    Raises:
        SimulateError: a clip is too short, has odd sides, or is there from other inputs, or the
            disk can't hold the spikes. Nothing is written then. A worker that was ended from
            outside; complete clips are kept.
    """
    for clip in clips:
        if not rig.centres(clip.n_frames):
            raise SimulateError(
                f"{clip.seq}: expected at least {counted(rig.exposure, 'frame')}, the exposure, "
                f"got {clip.n_frames}; take a shorter --exposure or longer clips"
            )
    message = f"{out}: another `simulate` is writing there; wait for it, or stop it"
    with only_writer(out, message):
        todo = _todo(out, clips, rig, overwrite)
        _require_room(out, todo, rig)
        if workers is None:
            workers = workers_that_fit(max(map(rig.worker_bytes, todo), default=1))
        workers = min(workers, max(len(todo), 1))
        recorded = Throughput()
        spike_bytes = 0
        work = Parts(reporter, len(todo), {"pixels": 1.0})
        pixels = {clip.seq: clip.n_frames * math.prod(clip.shape()) for clip in todo}
        work.expect({"pixels": sum(pixels.values())})
        for clip, written in _run(out, todo, rig, workers):
            spike_bytes += written
            note = f"{recorded(written)} of spikes"
            work.did("pixels", note, size=pixels[clip.seq], finished=1)
    return SimulateSummary(
        clips=len(clips),
        written=len(todo),
        kept=len(clips) - len(todo),
        windows=sum(len(rig.centres(clip.n_frames)) for clip in clips),
        spike_bytes=spike_bytes,
    )


def _todo(out: Path, clips: list[SourceClip], rig: Rig, overwrite: bool) -> list[SourceClip]:
    """Return the clips to record: those that are not there from the same inputs."""
    return [
        clip
        for clip in clips
        if must_record(
            out, clip_folders(out, clip, rig), inputs_digest(clip, rig), overwrite=overwrite
        )
    ]


def must_record(top: Path, folders: list[Path], inputs: str, *, overwrite: bool) -> bool:
    """Return whether a recording is not there yet, or is to be replaced.

    Args:
        top: folder that the recording must stay in.
        folders: folders of its spikes and frames, that of the spikes first.
        inputs: digest of everything that it is made from.
        overwrite: replace a recording from other inputs, and files of others.

    Raises:
        SimulateError: another recording is there, or files of others, and `overwrite` is not set.
        UnsafePathError: a folder is a link that leaves `top`.
    """
    for folder in folders:
        require_inside(top, folder)
    if overwrite:
        return True
    dat = folders[0] / DAT
    side = read_side_file(dat)
    if side is None:
        foreign = [folder for folder in folders if folder.is_dir() and any(folder.iterdir())]
        if foreign and not (folders[0] / UNFINISHED).exists():
            raise SimulateError(
                f"{foreign[0]}: holds files that `simulate` did not write; use another output "
                "folder, or --overwrite to replace them"
            )
        return True
    if side.made_by.get("inputs") != inputs:
        raise SimulateError(
            f"{dat}: made from other frames or settings; use another output folder, or "
            "--overwrite to replace it"
        )
    return False


def _require_room(out: Path, clips: list[SourceClip], rig: Rig) -> None:
    scale = rig.spike_scale
    needed = 0
    for clip in clips:
        height, width = clip.shape()
        if rig.spike_size is None and (height % scale or width % scale):
            raise SimulateError(
                f"{clip.seq}: expected sides that are multiples of --spike-scale {scale}, got "
                f"{height}x{width}; give --spike-size, or other frames"
            )
        samples = (clip.n_frames - 1) * rig.spikes_per_frame + 1
        needed += samples * math.prod(rig.spike_shape((height, width))) // 8
    top = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(top).free
    if needed > free:
        raise SimulateError(
            f"{out}: expected room for {needed / 1e6:.1f} MB of spikes, found {free / 1e6:.1f} MB "
            "free; take fewer, smaller or shorter clips, or fewer --spikes-per-frame"
        )


def _run(
    out: Path, todo: list[SourceClip], rig: Rig, workers: int
) -> Iterator[tuple[SourceClip, int]]:
    """Record clips; yield each, as it is done, and the bytes of its spikes."""
    if workers == 1:
        for clip in todo:
            yield clip, record_clip(out, clip, rig)
        return
    others = set(multiprocessing.active_children())
    # Spawned, because a forked child inherits locks of threads that it doesn't have.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        # Workers inherit the mask: Ctrl-C, which reaches all, would end one that is starting up.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            tasks = {pool.submit(record_clip, out, clip, rig): clip for clip in todo}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BrokenProcessPool as error:
            raise SimulateError(
                f"{out}: a worker process was ended from outside, most often for lack of memory; "
                "run again with fewer --workers: complete clips are kept"
            ) from error
        except BaseException:
            # A clip may be cut short at any moment; to wait for it would take a clip's time.
            processes = set(multiprocessing.active_children()) - others
            for process in processes:
                process.kill()
            for process in processes:
                process.join()
            for clip in todo:
                for folder in clip_folders(out, clip, rig):
                    sweep(folder, own=True)
            raise
