"""Commands whose spike files may be read in one part only: a touch of any other page ends them.

`python guarded.py START STOP` reads a list of commands (lists of words) as JSON. Memory that is
mapped to bytes of `.dat` files outside [START, STOP), but the first page, has no rights, and reads
that are no mapping are refused there. It prints [exit code, stdout, stderr] of each command.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PAGE = 4096

Outcome = tuple[int, str, str]


def run_guarded(commands: Sequence[Sequence[object]], start: int, stop: int) -> list[Outcome]:
    """Run commands of `spikedeblur` that may read bytes [start, stop) of `.dat` files."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, __file__, str(start), str(stop)],
        input=words,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"ended by {done.returncode}: {done.stderr[-2000:]}"
    return [(code, out, said) for code, out, said in json.loads(done.stdout)]


def _main() -> None:
    from spikedeblur.cli import main
    from spikedeblur.pipeline.align.check import stream as checked
    from spikedeblur.pipeline.host import pieces
    from spikedeblur.pipeline.spikes import dat, parts

    start, stop = int(sys.argv[1]), int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    mapped, opened = dat._map, dat.open_file

    def map_guarded(path: Path):
        data = mapped(path)
        at = data.ctypes.data
        for first, end in ((PAGE, start // PAGE * PAGE), (-(-stop // PAGE) * PAGE, data.size)):
            if first < end:
                failed = libc.mprotect(ctypes.c_void_p(at + first), ctypes.c_size_t(end - first), 0)
                assert not failed, ctypes.get_errno()
        return data

    class Guarded:
        def __init__(self, file) -> None:
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self._file.close()

        def fileno(self) -> int:
            return self._file.fileno()

        def tell(self) -> int:
            return self._file.tell()

        def seek(self, place: int) -> None:
            self._file.seek(place)

        def read(self, size: int = -1) -> bytes:
            at = self._file.tell()
            assert size >= 0, "reads to the end"
            assert not size or start <= at <= at + size <= stop, f"reads {size} bytes at {at}"
            return self._file.read(size)

    def open_guarded(path, *arguments, **keywords):
        file = opened(path, *arguments, **keywords)
        return Guarded(file) if Path(path).suffix == ".dat" else file

    dat._map = map_guarded
    pieces.open_file = parts.open_file = checked.open_file = open_guarded
    outcomes = []
    for command in json.load(sys.stdin):
        out, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            code = main(command)
        outcomes.append((code, out.getvalue(), said.getvalue()))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    _main()
