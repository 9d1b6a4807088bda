"""CPU seconds of the command line: each command's help, and each of the mistakes in tests/cli.

    python -m tests.benchmarks.command_line [FOLDER]

FOLDER is one that holds another checkout as `spikedeblur`; it is measured in turns with this one.
Each line is typed to processes of its own; the least of three counts. Of an interpreter that does
nothing, typer alone and pydantic alone, the first lines say what they take.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import typer.main

from spikedeblur.cli import app
from tests.cli.test_wrong_use import MISTAKES, fill

TURNS = 3


def seconds(code: list[str], folder: Path, source: str | None) -> float:
    """Return the CPU seconds of an interpreter; `source`: another checkout's place."""
    paths = [path for path in (source, os.environ.get("PYTHONPATH")) if path]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print two tables in Markdown."""
    others = sys.argv[1:2]
    sources = [None, *(str(Path(other).resolve()) for other in others)]
    heads = "".join(f" | {name}" for name in ("here", *others))
    module = ["-m", "spikedeblur"]
    with tempfile.TemporaryDirectory() as place:
        folder = fill(Path(place))

        def row(name: str, code: list[str]) -> list[float]:
            taken = [
                min(turn)
                for turn in zip(
                    *([seconds(code, folder, source) for source in sources] for _ in range(TURNS)),
                    strict=True,
                )
            ]
            print(f"| `{name}`" + "".join(f" | {each:.2f}" for each in taken) + " |", flush=True)
            return taken

        print(f"| help{heads} |\n|---{'|---' * len(sources)}|")
        for name in ("pass", "import typer", "import pydantic.type_adapter, typer"):
            row(name, ["-c", name])
        for command in typer.main.get_command(app).commands:
            row(command, [*module, command, "--help"])
        print(f"\n| mistake{heads} |\n|---{'|---' * len(sources)}|")
        mistakes = [row(typed, [*module, *typed.split()]) for typed, *_ in MISTAKES]
    for name, taken in zip(("here", *others), zip(*mistakes, strict=True), strict=True):
        print(
            f"\n{name}: {len(taken)} mistakes, {sum(taken) / len(taken):.2f} s each in the mean, "
            f"{max(taken):.2f} s at most"
        )


if __name__ == "__main__":
    main()
