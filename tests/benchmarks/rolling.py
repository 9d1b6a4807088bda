"""`python -m tests.benchmarks.rolling`: when `align` names a rolling shutter, and how well.

Embedded scenes are recorded by `simulate`, whose shutter is global, with cameras of many kinds; and
real recordings against frames that their own spikes make: no shutter may be named there. Then the
same scenes are photographed again row after row, and the readout that `align` names is compared
with the true one. Last, the time that `align` takes because of the question.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from rolling_scenes import LONGEST, photograph_rows

from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.align.measure.rolling import estimate_readout
from spikedeblur.pipeline.align.measure.verify import FrameAt, find_best
from spikedeblur.pipeline.frames.images import to_uint8, write_png
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import SourceClip
from spikedeblur.pipeline.simulate.record import clip_folders
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.spikes import SpikeClock, parse_geometry, read_spikes, write_spikes
from spikedeblur.pipeline.spikes.dat import SpikeFile
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.spikes.sidefile import read_side_file

from .figures import Figure

LENGTH = 129
"""Frames of a scene of which some are photographed."""
SIZES = ((128, 128), (192, 256), (96, 128), (256, 192))
READOUTS = (0.005, 0.01, 0.02, 0.033)
"""True readouts, in seconds."""
REALDATA = Path(__file__).resolve().parents[3] / "shared" / "realdata"
"""Recordings that are not part of the project; without them their figures are left out."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Scenes and cameras with a global shutter."""

    what: str
    rig: Rig = Rig()  # noqa: RUF009  # frozen
    fastest: float = 1.0
    light: float = 1.0
    """Share of the light that is left."""
    dead: float = 0.0
    """Share of the spike pixels that never fire."""


KINDS = (
    Kind("scenes as they come, of which some are still or slow"),
    Kind("fast scenes", fastest=5),
    Kind("slow: exposures of 9 ms", Rig(exposure=9)),
    Kind("threshold x4", Rig(threshold=8.0)),
    Kind("2 % noise", Rig(noise=0.02)),
    Kind("2 % dead pixels", dead=0.02),
    Kind("a tenth of the light", light=0.1),
    Kind("spikes of a quarter of the frame's size", Rig(spike_scale=4)),
)


def clip_of(index: int, fastest: float, length: int) -> SourceClip:
    """Return a scene, the same one for each index."""
    size = SIZES[index % len(SIZES)]
    seq = f"val/scenes/{index:05d}"
    return SourceClip(seq=seq, size=size, length=length, fastest=fastest)


def seen_by_align(root: Path, exposure: int, readout: float | None = None) -> tuple[dict, float]:
    """Return what `align` says of the one sequence, and the seconds of CPU time that it took."""
    log = root / "log.txt"
    options = AlignOptions(exposure=exposure, spikes=SpikeOptions(readout=readout))
    began = time.process_time()
    manifest = align(
        root,
        "x4k1000fps",
        log=log,
        manifest=log.with_suffix(".json"),
        options=options,
        overwrite=True,
        workers=1,
    )
    took = time.process_time() - began
    found = manifest.sequences[0].verification
    for file in (log, log.with_suffix(".json")):
        file.unlink()
    assert found is not None
    return json.loads(found.model_dump_json()), took


@dataclass(frozen=True, slots=True)
class Seen:
    """What `align` said of one sequence."""

    kind: str
    problem: str | None
    readout: float | None
    """Readout that it named, in seconds."""
    seconds: float = 0.0
    """CPU time of `align`."""
    seconds_unasked: float = 0.0
    """CPU time of `align` that is told of a global shutter."""


def record_kind(root: Path, kind: Kind, index: int) -> None:
    """Record a scene in `root / "data"` as a kind of camera sees it."""
    clip = clip_of(index, kind.fastest, LENGTH)
    if kind.light < 1:
        for i, frame in enumerate(clip.render(kind.rig.seed)):
            path = root / "frames" / clip.seq / f"{i:04d}.png"
            write_png(path, np.rint(kind.light * frame).astype(np.uint8))
        frames = tuple(sorted((root / "frames" / clip.seq).iterdir()))
        clip = replace(clip, frames=frames, size=(0, 0), length=0)
    simulate(root / "data", [clip], kind.rig, workers=1)
    if kind.dead:
        dat = clip_folders(root / "data", clip, kind.rig)[0] / "spike.dat"
        silence(dat, kind.dead)


def see_global(case: tuple[Kind, int]) -> Seen:
    """Record a scene with a global shutter, and align it."""
    kind, index = case
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        record_kind(root, kind, index)
        seen_by_align(root / "data", kind.rig.exposure)  # what is slow once
        told = [seen_by_align(root / "data", kind.rig.exposure, 0.0)[1] for _ in range(2)]
        asked = [seen_by_align(root / "data", kind.rig.exposure) for _ in range(2)]
    said, seconds = asked[0][0], min(took for _, took in asked)
    return Seen(kind.what, said["problem"], said.get("readout"), seconds, min(told))


def silence(dat: Path, share: float) -> None:
    """Let a share of a recording's pixels never fire."""
    side = read_side_file(dat)
    assert side is not None
    geometry = parse_geometry(side.geometry)
    spikes = read_spikes(dat, geometry)
    alive = np.random.default_rng(0).random(spikes.shape[1:]) >= share
    write_spikes(dat, spikes * alive.astype(np.uint8), geometry)


def see_rolling(index: int) -> list[tuple[float, Seen]]:
    """Record a scene with rolling shutters; returns the true readouts, and what `align` said."""
    rig = Rig()
    clip = clip_of(index, 5.0 if index % 2 else 1.0, LENGTH + round(1000 * LONGEST))
    seen = []
    for readout in READOUTS:
        with tempfile.TemporaryDirectory() as work:
            root = Path(work)
            simulate(root, [clip], rig, workers=1)
            photograph_rows(root, clip, rig, readout)
            said, _ = seen_by_align(root, rig.exposure)
        seen.append((readout, Seen("rolling", said["problem"], said.get("readout"))))
    return seen


def real_frames(folder: Path) -> Iterator[tuple[str, list[FrameAt]]]:
    """Yield real recordings with a global shutter: every other sample makes the frames."""
    sources = [(dat, "250x400,bottom-up") for dat in sorted(REALDATA.glob("reds_spike/*.dat"))]
    sources += [(dat, "224x224,bottom-up") for dat in sorted(REALDATA.glob("uhsr/*.dat"))]
    for (dat, geometry), exposure in itertools.product(sources, (16, 32, 48)):
        spikes = read_spikes(dat, parse_geometry(geometry))
        seen, shown = spikes[0::2], spikes[1::2]
        place = folder / f"{dat.stem}_{exposure}"
        write_spikes(place / "spike.dat", seen, parse_geometry(geometry))
        file = SpikeFile.open(place / "spike.dat", parse_geometry(geometry))
        frames = []
        for start in range(exposure // 2, len(shown) - exposure, exposure // 2):
            rate = shown[start : start + exposure].mean(axis=0, dtype=np.float32)
            path = place / f"{start:04d}.png"
            gray = to_uint8(rate / max(0.1, float(np.quantile(rate, 0.999))))
            write_png(path, np.repeat(gray[..., None], 3, axis=-1))
            t0, t1 = start / 1000, (start + exposure - 1) / 1000
            frames.append(
                FrameAt(
                    blur=path, sharp=None, spikes=file, clock=SpikeClock(rate=1000.0), t0=t0, t1=t1
                )
            )
        yield f"{dat.stem}, {exposure}", frames


def seen_in(frames: list[FrameAt]) -> float | None:
    """Return the readout that `align` would name, in seconds."""
    match = find_best(frames, "blur")
    return None if match is None else estimate_readout(frames, match)


def figures(cases: int, rolling: int, workers: int) -> Iterator[Figure]:
    """Yield the figures of so many scenes of each kind, and of so many rolling shutters."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        all_cases = [(kind, 100 * k + i) for k, kind in enumerate(KINDS) for i in range(cases)]
        seen = list(pool.map(see_global, all_cases))
        for kind in KINDS:
            part = [one for one in seen if one.kind == kind.what]
            named = [one.readout for one in part if one.readout is not None]
            problems = sorted({str(one.problem) for one in part})
            detail = f"of {len(part)}; problems {', '.join(problems)}"
            detail += "".join(f"; {1e3 * each:+.1f} ms" for each in named)
            yield Figure(f"global, {kind.what}: named rolling", len(named), "", 0, detail, True)
        ratio = sum(one.seconds for one in seen) / sum(one.seconds_unasked for one in seen)
        yield Figure("align that asks, over align that is told", ratio, "times", 1.15, "", True)
        if REALDATA.exists():
            with tempfile.TemporaryDirectory() as work:
                found = [(n, seen_in(f)) for n, f in real_frames(Path(work))]
            named = [f"{name}: {1e3 * value:+.1f} ms" for name, value in found if value is not None]
            detail = f"of {len(found)}; {', '.join(named)}"
            yield Figure("real recordings: named rolling", len(named), "", 0, detail, True)
        rolled = [
            one for part in pool.map(see_rolling, range(1000, 1000 + rolling)) for one in part
        ]
    for readout in READOUTS:
        part = [one for true, one in rolled if true == readout]
        off = [1e3 * abs(one.readout - readout) for one in part if one.readout is not None]
        rest = sorted(str(one.problem) for one in part if one.readout is None)
        detail = f"of {len(part)}; others: {', '.join(rest) or 'none'}"
        if off:
            detail = f"off by {np.median(off):.2f} ms, at most {max(off):.2f}; {detail}"
        yield Figure(f"readout of {1e3 * readout:g} ms: named", len(off), "", None, detail)


def main() -> int:
    """Print the figures; 1 where one is below its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=12, help="scenes of each kind")
    parser.add_argument("--rolling", type=int, default=20, help="scenes with rolling shutters")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    passed = True
    for figure in figures(arguments.cases, arguments.rolling, arguments.workers):
        print(figure.line(), flush=True)
        passed = passed and figure.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
