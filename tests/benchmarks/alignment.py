"""`python -m tests.benchmarks.alignment`: how far alignment can be trusted, as a table.

Embedded scenes are recorded by the spike camera model (1,025 samples, spikes half as large as the
frames, thresholds 1, 2, 5, and 2 with 5 % noise). Then clocks, geometries and files are made wrong
on purpose, and what `align` finds is compared with what was done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from alignment_cases import (
    furthest,
    make_wrong,
    of_another,
    record_moved,
    record_scene,
    record_still,
    recorded_scene,
    same_view,
    write_other,
)

from spikedeblur.pipeline.align import AlignOptions, align
from spikedeblur.pipeline.align.measure.registration import register
from spikedeblur.pipeline.align.measure.suspects import name_owner, name_suspect
from spikedeblur.pipeline.align.measure.verify import FrameAt, verify_sequence
from spikedeblur.pipeline.spikes import SpikeClock, SpikeFile, parse_geometry

from .figures import Figure

CAMERAS = ((1.0, 0.0), (2.0, 0.0), (5.0, 0.0), (2.0, 0.05))
"""Threshold and noise."""
SIZES = ((64, 96), (96, 128), (128, 128), (96, 96))
_SAME = len(CAMERAS) * len(SIZES)
"""Scenes from one to the next of the same camera and size."""
WRONG = ("rows flipped", "columns flipped", "transposed", "geometry")


@dataclass(frozen=True)
class Measured:
    """One planted lag and what was found."""

    noise: bool
    kind: str
    off: float
    error: float
    confidence: float
    proved: bool
    drift_off_ppm: float | None
    seconds: float


def size_of(i: int) -> tuple[int, int]:
    return SIZES[i // len(CAMERAS) % len(SIZES)]


def measure_lags(folder: Path, i: int) -> list[Measured]:
    threshold, noise = CAMERAS[i % len(CAMERAS)]
    truth = record_scene(folder, i, size_of(i), threshold=threshold, noise=noise, seed=i)
    rng = np.random.default_rng([i, 1])
    lag = float(rng.uniform(-300, 300))
    if i % 2:
        lag = float(round(lag))
    drift = float(rng.choice([0.0, 0.001, -0.001]))
    found = []
    for kind in ("blur", "sharp"):
        frames = truth.frames(lag=lag, drift=drift, blur=kind == "blur", sharp=kind == "sharp")
        began = time.perf_counter()
        one = verify_sequence(frames)
        seconds = time.perf_counter() - began
        assert one is not None
        # At clock sample s the true one is s + lag + drift s.
        off = one.lag_frames - (lag + drift * (one.at_frame or 0.0))
        found.append(
            Measured(
                CAMERAS[i % len(CAMERAS)][1] > 0,
                kind,
                off,
                one.error_frames or np.inf,
                one.confidence,
                one.confident,
                None if one.drift_ppm is None else one.drift_ppm - 1e6 * drift,
                seconds,
            )
        )
    return found


def name_wrongs(folder: Path, i: int) -> list[tuple[str, str | None]]:
    """Return (planted, named) for each way of being wrong, and for the right one."""
    rng = np.random.default_rng([i, 2])
    truth, other, third = (
        recorded_scene(folder, j, size_of(j)) for j in (i, i + _SAME, i + 2 * _SAME)
    )
    named: list[tuple[str, str | None]] = []
    for problem in WRONG:
        frames = make_wrong(truth, problem, rng)
        found = verify_sequence(frames)
        assert found is not None
        named.append((problem, name_suspect(frames, found).problem))
    frames = of_another(truth, other)
    found = verify_sequence(frames)
    assert found is not None
    found = name_suspect(frames, found)
    if found.problem == "unlike" or found.correlation < 0.8:
        others = [("other", third.frames()), ("its own", of_another(other, truth))]
        found = name_owner(frames, found, others)
    swapped = found.problem == "swapped" and "its own" in (found.warning or "")
    named.append(("swapped", "swapped" if swapped else found.problem))
    found = verify_sequence(truth.frames(lag=20.0))
    assert found is not None
    named.append(("nothing", name_suspect(truth.frames(lag=20.0), found).problem or "nothing"))
    return named


def hard_case(folder: Path, i: int) -> list[tuple[float, bool]]:
    """Return (confidence, right) of few exposures beside much noise."""
    truth = recorded_scene(folder, i, size_of(i))
    rng = np.random.default_rng([i, 7])
    spikes = truth.spikes()
    results = []
    for noise in (0.1, 0.3, 0.5):
        lag = float(rng.uniform(-200, 200))
        noisy = spikes | (rng.random(spikes.shape, np.float32) < noise)
        dat, _ = write_other(truth, "noisy", noisy)
        for kind in ("blur", "sharp"):
            frames = truth.frames(lag=lag, dat=dat, blur=kind == "blur", sharp=kind == "sharp")
            first = int(rng.integers(len(frames) - 2))
            found = verify_sequence(frames[first : first + int(rng.integers(1, 4))])
            assert found is not None
            sure = found.confidence if found.problem in (None, "rival", "unsure") else None
            if sure is not None:
                results.append((sure, abs(found.lag_frames - lag) <= 2.57))
    return results


def place_spikes(i: int, side: int = 256) -> tuple[float, float, float]:
    """Return (pixels off at the worst corner, standard error, pixels moved) of a planted place."""
    rng = np.random.default_rng([i, 8])
    shift = rng.uniform(-20, 20, 2)
    recording = record_moved(
        30_000 + i,
        side,
        shift=(float(shift[0]), float(shift[1])),
        turn=float(rng.uniform(-3, 3)),
        scale=float(rng.uniform(0.9, 1.1)),
        threshold=float(rng.choice([1.0, 2.0, 5.0])),
        length=65,
    )
    truth = recording.place
    found = register(recording.pairs(16, 27, 38, 48))
    assert found is not None
    moved = furthest(same_view(truth.spike_shape, truth.frame_shape), truth)
    return furthest(found.registration, truth), found.error, moved


def see_nothing(folder: Path, i: int) -> bool:
    """Whether a scene without texture, or that does not move, is called unprovable."""
    frames = record_still(folder, i, flat=i % 2 == 0)
    found = verify_sequence(frames)
    return found is None or not found.confident


def real_recordings() -> Iterator[tuple[str, float, bool, str | None]]:
    """Yield (name, samples from the true centre, proved, problem read upside down)."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "reds_spike"
    for dat in sorted(folder.glob("*.dat")):

        def frames(geometry: str, dat: Path = dat) -> list[FrameAt]:
            return [
                FrameAt(
                    blur=None,
                    sharp=dat.with_suffix(".png"),
                    spikes=SpikeFile.open(dat, parse_geometry(geometry)),
                    clock=SpikeClock(rate=1000.0),
                    t0=0.095,
                    t1=0.215,
                )
            ]

        found = verify_sequence(frames("250x400,bottom-up"))
        wrong = verify_sequence(frames("250x400,top-down"))
        assert found is not None
        assert wrong is not None
        problem = name_suspect(frames("250x400,top-down"), wrong).problem
        yield dat.stem, found.lag_frames + 5, found.confident, problem


def place_and_lag(i: int) -> tuple[float, float, bool]:
    """Return (place off in frame pixels, lag off in samples, applied) where both are wrong."""
    rng = np.random.default_rng([i, 9])
    shift = rng.uniform(-10, 10, 2)
    recording = record_moved(
        40_000 + i,
        112,
        shift=(float(shift[0]), float(shift[1])),
        turn=float(rng.uniform(-3, 3)),
        scale=float(rng.uniform(0.93, 1.07)),
        length=97,
    )
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        recording.write(root, (20, 34, 48, 62, 76), late=float(round(rng.uniform(-120, 120))))
        log = root / "a.txt"
        (sequence,) = align(
            root,
            "x4k1000fps",
            log=log,
            manifest=log.with_suffix(".json"),
            options=AlignOptions(estimate=True, estimate_space="similarity"),
        ).sequences
    place = sequence.registration()
    off = np.inf if place is None else furthest(place, recording.place)
    applied = sequence.verification is not None and sequence.verification.applied
    return off, sequence.windows[0].first * sequence.rate, applied


Pool = ProcessPoolExecutor


def lag_figures(pool: Pool, folder: Path, cases: int) -> Iterator[Figure]:
    lags = [m for part in pool.map(partial(measure_lags, folder), range(cases)) for m in part]
    for kind in ("blur", "sharp"):
        for noise in (False, True):
            part = [m for m in lags if m.kind == kind and m.noise == noise]
            off = np.abs([m.off for m in part])
            within = 3 if noise else 1
            what = f"{kind} frames{', 5 % noise' if noise else ''}: lag within {within}"
            errors = np.sqrt(np.mean([(m.off / m.error) ** 2 for m in part]))
            detail = (
                f"of {len(part)}; median {np.median(off):.2f}, worst {off.max():.2f} samples, off "
                f"by error {errors:.1f} rms; {100 * np.mean([m.proved for m in part]):.0f} % "
                f"proved; {1000 * np.median([m.seconds for m in part]):.0f} ms"
            )
            yield Figure(what, 100 * np.mean(off <= within), "%", 99, detail)
            drifts = [abs(m.drift_off_ppm) for m in part if m.drift_off_ppm is not None]
            yield Figure("  drift off, median", float(np.median(drifts)), "ppm of the rate")
    nothing = list(pool.map(partial(see_nothing, folder), range(20)))
    yield Figure("flat or still scenes called unprovable", 100 * np.mean(nothing), "%", 100)


def name_figures(pool: Pool, folder: Path, wrongs: int) -> Iterator[Figure]:
    named = [n for part in pool.map(partial(name_wrongs, folder), range(wrongs)) for n in part]
    for problem in (*WRONG, "swapped", "nothing"):
        part = [n for n in named if n[0] == problem]
        right = 100 * np.mean([a == b for a, b in part])
        wrong = sorted({str(b) for a, b in part if a != b})
        detail = f"of {len(part)}" + (f"; else {', '.join(wrong)}" if wrong else "")
        yield Figure(f"{problem} wrong: named so", right, "%", 98, detail)
    hard = [h for part in pool.map(partial(hard_case, folder), range(wrongs)) for h in part]
    for low, high in ((0.0, 0.5), (0.5, 0.9), (0.9, 0.99), (0.99, 1.01)):
        right = [is_right for sure, is_right in hard if low <= sure < high]
        if right:
            what = f"confidence {low:g} to {min(high, 1):g}, few frames, much noise: right"
            yield Figure(what, 100 * np.mean(right), "%", detail=f"of {len(right)}")


def place_figures(pool: Pool, places: int) -> Iterator[Figure]:
    placed = list(pool.map(place_spikes, range(places)))
    off = np.array([p[0] for p in placed])
    detail = (
        f"of {len(off)}; median {np.median(off):.2f}, worst {off.max():.2f} frame pixels, off by "
        f"error {np.sqrt(np.mean([(p[0] / p[1]) ** 2 for p in placed])):.1f} rms; unregistered "
        f"{np.median([p[2] for p in placed]):.0f}"
    )
    what = "place in 256x256 frames: corners within 0.5"
    yield Figure(what, 100 * np.mean(off <= 0.5), "%", 95, detail)
    both = list(pool.map(place_and_lag, range(places // 2)))
    apart, late = (np.abs([one[k] for one in both]) for k in (0, 1))
    detail = (
        f"of {len(both)}; median {np.median(apart):.2f} pixels, {np.median(late):.2f} samples; "
        f"{100 * np.mean([one[2] for one in both]):.0f} % applied"
    )
    right = 100 * np.mean((apart <= 1) & (late <= 2.57))
    yield Figure("place and lag both wrong: both right", right, "%", detail=detail)


def figures(cases: int, wrongs: int, places: int, workers: int) -> list[Figure]:
    lines: list[Figure] = []
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as work,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        folder = Path(work)
        if cases:
            lines += lag_figures(pool, folder, cases)
            lines += name_figures(pool, folder, min(wrongs, cases - 2 * _SAME))
        if places:
            lines += place_figures(pool, places)
    for name, off, proved, problem in real_recordings():
        detail = f"{'proved' if proved else 'not proved'}; upside down: {problem}"
        what = f"{name}: off its centre"
        lines.append(Figure(what, abs(off), "samples", 1, detail, at_most=True))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="planted lags; 0: none")
    parser.add_argument("--wrongs", type=int, default=50, help="of these, made wrong in each way")
    parser.add_argument("--places", type=int, default=40, help="planted places; 0: none")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args()
    if 0 < options.cases < 3 * _SAME:
        parser.error(f"expected no or at least {3 * _SAME} cases")
    lines = figures(options.cases, options.wrongs, options.places, options.workers)
    for line in lines:
        print(line.line())
    return 0 if all(line.passed for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
