"""CPU seconds that importing each package of ours takes, and what heavy it brings along.

    python -m tests.benchmarks.imports

Each is imported in interpreters of its own; the least of five counts, less that of one that imports
nothing, so that a busy machine and cold caches weigh little.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "pydantic", "PIL", "torch", "torchvision", "zarr", "dask", "distributed")
RUNS = 5


def packages() -> list[str]:
    """Return the packages that the wheel holds, and the modules in which work begins."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[str] = settings["tool"]["setuptools"]["packages"]
    work = ("sequences.stored", "train.job", "weights.checkpoint")
    return [*found, *(f"spikedeblur.pipeline.{name}" for name in work)]


def seconds(code: str) -> float:
    """Return the least CPU time of an interpreter that runs `code`."""
    best = float("inf")
    for _ in range(RUNS):
        began = _spent()
        subprocess.run([sys.executable, "-c", code], check=True)
        best = min(best, _spent() - began)
    return best


def _spent() -> float:
    """CPU seconds of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def brings(package: str) -> list[str]:
    """Return which heavy packages are there after the import."""
    code = f"import sys, {package}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split()


def main() -> None:
    """Print a table in Markdown."""
    bare = seconds("pass")
    print("| import | CPU seconds | brings |\n|---|---|---|")
    for package in packages():
        taken = max(0.0, seconds(f"import {package}") - bare)
        print(f"| `{package}` | {taken:.2f} | {', '.join(brings(package))} |", flush=True)


if __name__ == "__main__":
    main()
