"""`python -m tests.benchmarks.evaluating`: CPU time of `evaluate`, all methods together and alone.

The plain way evaluates each method by itself, and reads and finds all anew for each. Each run is a
process of its own, on one thread, over scenes that `simulate` makes. With `--against FOLDER`, all
methods together are run by this checkout and by another in turns, the product compared too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .figures import Figure

CHECKOUT = Path(__file__).resolve().parents[2]
METHODS = ("blur", "tfp", "tfi", "sdm", "path", "model")
MOST = 0.7
"""Largest share of the plain way's time, loading left out."""


def run(package: Path, *arguments: str | Path) -> str:
    """Return what a process of its own prints that has a package as spikedeblur."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spikedeblur").symlink_to(package)
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, check=True, text=True
        )
    return done.stdout


def make_store(folder: Path, scenes: int, size: str) -> Path:
    """Return a store of a test split of scenes."""
    data, log, store = folder / "data", folder / "log.txt", folder / "test.zarr"
    cli = "spikedeblur"
    options = ("--scenes", str(scenes), "--split", "test", "--size", size)
    run(CHECKOUT, cli, "simulate", data, *options)
    run(CHECKOUT, cli, "align", data, "--layout", "x4k1000fps", "--log", log)
    run(CHECKOUT, cli, "voxelize", log.with_suffix(".json"), store)
    return store


def measured(package: Path, store: Path, methods: str) -> dict[str, Any]:
    """Return CPU seconds of loading and of evaluating, and the product."""
    line = run(package, "tests.benchmarks.evaluating", "--one", methods, "--store", store)
    return dict(json.loads(line))


def one(store: str, methods: str) -> dict[str, Any]:
    """Evaluate in this process; see `measured`."""
    from spikedeblur.cli.options import trained_model
    from spikedeblur.pipeline.evaluate import evaluate
    from spikedeblur.pipeline.host.allocator import keep_freed_memory
    from spikedeblur.pipeline.methods.make_method import ModelOptions

    keep_freed_memory()
    names = methods.split(",")
    model = trained_model(None, "small") if "model" in names else None
    if model is not None:
        ModelOptions().open(model)
    loaded = time.process_time()
    product = evaluate(store, run=model, methods=names).to_json()
    return {
        "loading": loaded,
        "seconds": time.process_time() - loaded,
        "product": json.dumps({key: product[key] for key in ("methods", "frames")}),
    }


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evaluating")
    parser.add_argument("--against", type=Path, help="another checkout, run in turns with this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--size", default="192x192")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.store, options.one)))
        return 0
    every = ",".join(METHODS)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), options.scenes, options.size)
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.repeats):
            for name in (*METHODS, every):
                runs.setdefault(name, []).append(measured(CHECKOUT, store, name))
            if options.against:
                package = options.against.resolve(strict=True)
                runs.setdefault("theirs", []).append(measured(package, store, every))
    seconds = {
        name: statistics.median(each["seconds"] for each in several)
        for name, several in runs.items()
    }
    figures = [Figure(f"evaluate, {name} alone", seconds[name], "CPU s") for name in METHODS]
    alone = sum(seconds[name] for name in METHODS)
    detail = f"{seconds[every]:.2f} of {alone:.2f} CPU s"
    share = seconds[every] / alone
    figures.append(
        Figure("evaluate, all together", share, "of each alone", MOST, detail, at_most=True)
    )
    if options.against:
        detail = f"{seconds[every]:.2f} of {seconds['theirs']:.2f} CPU s"
        same = runs[every][0]["product"] == runs["theirs"][0]["product"]
        detail += f", {'the same' if same else 'other'} scores"
        share = seconds[every] / seconds["theirs"]
        figures.append(Figure("evaluate, against", share, "of the other's", None, detail))
    print("\n".join(figure.line() for figure in figures), flush=True)
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
