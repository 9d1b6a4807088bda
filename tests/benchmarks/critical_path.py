"""`python -m tests.benchmarks.critical_path`: what `restore` by `path` would take on free cores.

Wall time says nothing about a machine that other work shares, CPU time does. So the whole command
runs on one core, and each part that one thread does is timed: what is before, between and after
frames, which the main thread does alone; of each frame, what its thread does alone, and strips of
rows, with which threads without a frame help. Free cores take as long as the longest chain of
these, and longer where they slow each other down by the memory that they share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .evaluating import CHECKOUT
from .figures import Figure


class Piece(NamedTuple):
    """A piece of a frame's work."""

    seconds: float
    shared: bool
    """Whether it is of strips, which several threads do."""


Step = list[list[Piece]]
"""Tasks that are done side by side, each of pieces one after another."""


def wall_time(steps: Sequence[Step], cores: int) -> float:
    """Return how long steps take, one after another, in seconds."""
    return sum(_step_time(step, cores) for step in steps)


def _step_time(step: Step, cores: int) -> float:
    waiting = [list(reversed(task)) for task in reversed(step) if task]
    working: list[list[Piece]] = []
    taken = 0.0
    while waiting or working:
        while waiting and len(working) < cores:
            working.append(waiting.pop())
        helped = sum(task[-1].shared for task in working)
        speeds = [
            1 + (cores - len(working)) / helped if task[-1].shared else 1.0 for task in working
        ]
        passes = min(task[-1].seconds / speed for task, speed in zip(working, speeds, strict=True))
        taken += passes
        for task, speed in zip(working, speeds, strict=True):
            piece = task.pop()
            if (left := piece.seconds - passes * speed) > 1e-9:
                task.append(Piece(left, piece.shared))
        working = [task for task in working if task]
    return taken


def timed(command: Sequence[str], cores: int) -> list[Step]:
    """Run a command line of the package here, and return its steps as on so many cores."""
    from spikedeblur.cli import main
    from spikedeblur.pipeline.methods import exposures
    from spikedeblur.pipeline.methods import side_by_side as module

    steps: list[Step] = []
    pieces: list[Piece] = []
    mark = 0.0  # of this process

    def end_piece(shared: bool) -> None:
        nonlocal mark
        now = time.process_time()
        pieces.append(Piece(now - mark, shared))
        mark = now

    def without_help(stopped: Any, task: Callable[[slice], Any], parts: Sequence[slice]) -> Any:
        end_piece(shared=False)
        found = [task(part) for part in parts]
        end_piece(shared=True)
        return found

    original = module.side_by_side

    def side_by_side(
        task: Callable[[Any], Any], values: Iterable[Any], device: str
    ) -> Generator[Any, None, None]:
        end_piece(shared=False)
        steps.append([pieces.copy()])
        pieces.clear()
        step: Step = []

        def done(value: Any) -> Any:
            found = task(value)
            end_piece(shared=False)
            step.append(pieces.copy())
            pieces.clear()
            return found

        yield from list(original(done, values, device))
        steps.append(step)

    module._with_help = without_help  # type: ignore[assignment]
    exposures.side_by_side = side_by_side  # type: ignore[assignment]
    exposures.threads_that_fit = lambda shape: cores  # type: ignore[assignment]
    if code := main(list(command)):
        raise SystemExit(code)
    end_piece(shared=False)
    steps.append([pieces.copy()])
    return steps


def measured(manifest: Path, method: str = "path", cores: int = 2) -> list[Step]:
    """Return the steps of `restore` of a manifest, run by a process of its own on one core."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "steps.json"
        allowed = {min(os.sched_getaffinity(0))}
        command = [sys.executable, "-m", "tests.benchmarks.critical_path", "--steps", result]
        subprocess.run(
            [*command, "--cores", str(cores), "--manifest", manifest, "--method", method],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=CHECKOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )
        steps = json.loads(result.read_text())
    return [[[Piece(*piece) for piece in task] for task in step] for step in steps]


def figures(manifest: Path, method: str = "path", cores: int = 2) -> list[Figure]:
    """Return what the longest chain of parts tells."""
    steps = measured(manifest, method, cores)
    whole, wall = wall_time(steps, 1), wall_time(steps, cores)
    pieces = [piece for step in steps for task in step for piece in task]
    shared = sum(piece.seconds for piece in pieces if piece.shared)
    before = sum(piece.seconds for step in steps[::2] for task in step for piece in task)
    detail = (
        f"{wall:.1f} of {whole:.1f} s; {before:.1f} beside frames, "
        f"{whole - before - shared:.1f} a thread alone, {shared:.1f} in strips"
    )
    name = f"restore, {cores} cores, by its longest chain"
    return [Figure(name, whole / wall, "of one core's speed", None, detail)]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.critical_path")
    parser.add_argument("--manifest", type=Path, help="of frames that are there already")
    parser.add_argument("--method", default="path")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--steps", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.steps is None:
            from .restoring import record

            manifest = options.manifest or record(Path(folder))
            found = figures(manifest.resolve(), options.method, options.cores)
            print("\n".join(figure.line() for figure in found), flush=True)
            return 0
        command = ["restore", "--method", options.method, "--manifest", str(options.manifest)]
        steps = timed([*command, "--out", str(Path(folder) / "out")], options.cores)
    options.steps.write_text(json.dumps(steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
