"""CPU seconds of the command line: each command's help, and each of the mistakes in tests/cli.

    python -m tests.benchmarks.command_line [FOLDER]

FOLDER holds another checkout as `spikedeblur`, whose help is measured in turns with this one. Each
line is typed to processes of its own; of help the least of three counts. The first lines are an
interpreter that does nothing, typer, and typer with pydantic.
"""

from __future__ import annotations

import os
import resource
import shlex
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

        def row(name: str, code: list[str], where: list[str | None], turns: int) -> float:
            runs = [[seconds(code, folder, source) for source in where] for _ in range(turns)]
            least = [min(each) for each in zip(*runs, strict=True)]
            print(f"| `{name}`" + "".join(f" | {each:.2f}" for each in least) + " |", flush=True)
            return least[0]

        print(f"| help{heads} |\n|---{'|---' * len(sources)}|")
        for name in ("pass", "import typer", "import pydantic.type_adapter, typer"):
            row(name, ["-c", name], sources, TURNS)
        for command in typer.main.get_command(app).commands:
            row(command, [*module, command, "--help"], sources, TURNS)
        print("\n| mistake | here |\n|---|---|")
        taken = [row(typed, [*module, *shlex.split(typed)], [None], 1) for typed, *_ in MISTAKES]
    mean = sum(taken) / len(taken)
    print(f"\n{len(taken)} mistakes, {mean:.2f} s in the mean, {max(taken):.2f} s at most")


if __name__ == "__main__":
    main()
