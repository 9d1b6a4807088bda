"""Damaged and hostile files through the command line: 2,000 of them, each kind by every way in.

A case passes if the command comes back within `SECONDS`, takes at most `MEMORY` more than an idle
one, writes no traceback, and exits with 0, or with 1 or 2 and a message on stderr that names the
file. Nothing that a file says may run (`owned` is never there) or be written outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from . import mutate

SECONDS = 10.0
MEMORY = 500 * 10**6


@dataclass(frozen=True)
class Kind:
    """One kind of file, where it is in a prepared folder, and the commands that read it."""

    name: str
    file: str
    mutate: mutate.Mutate
    commands: tuple[tuple[str, ...], ...]
    """`{f}` is the folder, `{out}` a place for what is written."""
    count: int = 250
    """Cases."""
    named_by: str | None = None
    """What else a message may name in the file's stead: the sequence, say."""


@dataclass(frozen=True)
class Case:
    """What one damaged file did."""

    kind: str
    number: int
    arguments: tuple[str, ...]
    code: int
    seconds: float
    extra_memory: int
    stderr: str
    fault: str | None
    """What was not as promised."""


_RESTORE = (
    "restore --method sdm --blur {f}/data/val_blurry_5/scenes/00000 "
    "--spikes {f}/data/val_spike_2xds/scenes/00000/spike.dat --out {out} "
)
_TIMES = "--exposure 5 --fps 1000"

KINDS: tuple[Kind, ...] = (
    Kind(
        "spikes",
        "data/val_spike_2xds/scenes/00000/spike.dat",
        mutate.spikes,
        (
            "inspect {file}",
            "convert {file} {out}.dat --geometry 16x24,bottom-up",
            _RESTORE + _TIMES,
            "align {f}/data --layout x4k1000fps --exposure 5 --log {out}.txt",
            "voxelize {f}/align.json {out} --bins 4 --workers 1",
        ),
    ),
    Kind(
        "image",
        "data/val_blurry_5/scenes/00000/0002.png",
        mutate.png,
        (
            _RESTORE + _TIMES,
            "voxelize {f}/align.json {out} --bins 4 --workers 1",
            "align {f}/data --layout x4k1000fps --exposure 5 --log {out}.txt",
        ),
        named_by="val/scenes/00000",
    ),
    Kind(
        "frame",
        "frames/val/a/b/0003.png",
        mutate.png,
        ("simulate {out} --frames {f}/frames --exposure 5 --stride 2 --workers 1",),
        count=100,
    ),
    Kind(
        "log",
        "align.txt",
        mutate.log_text,
        ("inspect {file}", _RESTORE + "--log {file}"),
        named_by="spike.dat",  # which hasn't the exposure that a row claims
    ),
    Kind(
        "manifest",
        "align.json",
        mutate.json_text,
        (
            "inspect {file}",
            "voxelize {file} {out} --bins 4 --workers 1",
            "check {f}/store --manifest {file}",
            "check {file}",
            "align {f}/data --layout x4k1000fps --exposure 5 --log {f}/align.txt --manifest {file}",
        ),
        named_by="/scenes/00000",  # the sequence that contradicts its files
    ),
    Kind(
        "side file",
        "data/val_spike_2xds/scenes/00000/spike.dat.json",
        mutate.json_text,
        (
            "inspect {f}/data/val_spike_2xds/scenes/00000/spike.dat",
            _RESTORE + _TIMES,
            "align {f}/data --layout x4k1000fps --exposure 5 --log {out}.txt",
            "simulate {f}/data --scenes 1 --size 32x48 --length 9 --split val --exposure 5 "
            "--stride 2 --workers 1",
        ),
        named_by="spike.dat",
    ),
    Kind(
        "configuration",
        "config.yaml",
        mutate.yaml_text,
        ("inspect {file}", "train --config {file} --run {out}"),
        named_by="--set ",  # or the key, as where only its default can't be had
    ),
    Kind(
        "checkpoint",
        "run/checkpoints/best.pt",
        mutate.checkpoint,
        (
            "inspect {file}",
            "inspect {f}/run",
            "export {f}/run {out}.safetensors",
            "evaluate {f}/store --run {f}/run --split val",
        ),
        count=300,
    ),
    Kind(
        "model",
        "model.safetensors",
        mutate.safetensors,
        ("inspect {file}", _RESTORE.replace("--method sdm", "--model {file}") + _TIMES),
        count=250,
    ),
    Kind(
        "sequence metadata",
        "store/val/scenes/00000/zarr.json",
        mutate.json_text,
        (
            "inspect {f}/store",
            "check {f}/store",
            "evaluate {f}/store --split val --methods blur,tfp",
            "voxelize {f}/align.json {f}/store --bins 4 --workers 1",
        ),
        named_by="val/scenes/00000",
    ),
    Kind(
        "array metadata",
        "store/val/scenes/00000/blur/zarr.json",
        mutate.json_text,
        ("check {f}/store", "evaluate {f}/store --split val --methods blur"),
        count=200,
        named_by="val/scenes/00000",
    ),
    Kind(
        "evaluation",
        "run/evaluation.json",
        mutate.json_text,
        ("report {f}/run --no-restore --out {out}.html",),
        count=100,
    ),
    Kind(
        "environment",
        "run/environment.json",
        mutate.json_text,
        ("inspect {f}/run", "report {f}/run --no-restore --out {out}.html"),
        count=60,
        named_by="best.pt",  # whose data are not those that the file names
    ),
    Kind(
        "metrics",
        "run/metrics.jsonl",
        mutate.json_lines,
        ("runs {f}", "report {f}/run --no-restore --out {out}.html"),
        count=60,
    ),
)


def prepare(folder: Path) -> None:
    """Make one product of every kind, small, by the commands."""
    prepare_data(folder, _run)
    from spikedeblur.configs import dump_config, load_config

    sets = [*SMALL, f"DATA.ROOT={folder / 'store'}"]
    config = load_config("configs/deblur/quickstart.yaml", sets)
    (folder / "config.yaml").write_text(dump_config(config))
    _run("train", "--config", folder / "config.yaml", "--run", folder / "run")
    _run("export", folder / "run", folder / "model.safetensors")
    scores = ("--split", "val", "--json", folder / "run/evaluation.json")
    _run("evaluate", folder / "store", "--run", folder / "run", *scores)


def prepare_data(folder: Path, run: Callable[..., object]) -> None:
    """Make those products that need no training."""
    recording = ("--exposure", 5, "--stride", 2, "--workers", 1)
    scene = ("--scenes", 1, "--size", "32x48", "--length", 9)
    for split in ("val", "train"):
        run("simulate", folder / "data", *scene, "--split", split, *recording)
    frames = folder / "frames/val/a/b"
    frames.mkdir(parents=True)
    whole = sorted((folder / "data/val_fullRGB/scenes/00000").iterdir())
    for i in range(7):
        shutil.copy(whole[i % len(whole)], frames / f"{i:04d}.png")
    log = folder / "align.txt"
    run("align", folder / "data", "--layout", "x4k1000fps", "--exposure", 5, "--log", log)
    run("voxelize", folder / "align.json", folder / "store", "--bins", 4, "--workers", 1)


SMALL = (
    "DATA.K=4",
    "DATA.NUM_VOXEL_BINS=4",
    "DATA.CLIP_LEN=2",
    "DATA.CROP_SIZE=16",
    "MODEL.VRT.embed_dims=[8, 8, 8, 8, 8, 8, 8, 8]",
    "MODEL.VRT.num_heads=[2, 2, 2, 2, 2, 2, 2, 2]",
    "MODEL.CHANNELS_PER_SCALE=[8, 8, 8, 8]",
    "TRAIN.LOG_INTERVAL=1",
    "TRAIN.AMP='off'",
    "TRAIN.MAX_STEPS=1",
    "TRAIN.BATCH_SIZE=1",
    "TRAIN.GRADIENT_ACCUMULATION_STEPS=1",
    "TRAIN.NUM_WORKERS=0",
)


def cases(
    kind: Kind,
    prepared: Path,
    scratch: Path,
    count: int,
    *,
    as_process: bool = False,
    first: int = 0,
) -> Iterator[Case]:
    """Damage the kind's file in `count` ways, each time with the next of its commands.

    Case -1 and those below are the commands with the file as it is, which must succeed; they also
    import what the others would.
    """
    out = scratch / "out"
    folder = scratch / "work"
    for number in (*range(-len(kind.commands), 0), *range(first, first + count)):
        for stale in (folder, out, *scratch.glob("out.*")):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
        shutil.copytree(prepared, folder)
        file = folder / kind.file
        if number >= 0:
            rng = random.Random(f"{kind.name} {number}")
            file.write_bytes(kind.mutate(file.read_bytes(), rng))
        words = kind.commands[number % len(kind.commands)].split()
        arguments = tuple(w.format(f=folder, file=file, out=out) for w in words)
        run = _as_process if as_process else _in_process
        # The first ones import, on a busy machine; and a network may be a thousand times as wide.
        limit = 2 * SECONDS if number >= 0 and words[0] != "train" else 20 * SECONDS
        code, seconds, extra, stderr = run(arguments, scratch, limit)
        case = Case(kind.name, number, arguments, code, seconds, extra, stderr, None)
        fault = _fault(case, kind, file, scratch)
        yield Case(kind.name, number, arguments, code, seconds, extra, stderr, fault)


def _fault(case: Case, kind: Kind, file: Path, scratch: Path) -> str | None:
    if case.number < 0:
        return None if case.code == 0 else "the file as it was is refused"
    if "Traceback (most recent" in case.stderr:
        return "a traceback"
    # A wide network is valid, and may take what it needs.
    trained = case.code == 0 and case.arguments[0] == "train"
    if case.seconds > SECONDS and not trained:
        return f"{case.seconds:.1f} s"
    if case.extra_memory > MEMORY and not trained:
        return f"{case.extra_memory / 1e6:.0f} MB more than idle"
    if case.code not in (0, 1, 2):
        return f"exit code {case.code}"
    if case.code and not case.stderr.strip():
        return "no message"
    names = (file.name, kind.named_by or file.name)
    if case.code and not any(name in case.stderr for name in names):
        return "the message does not name the file"
    if len(case.stderr) > 20_000:
        return f"a message of {len(case.stderr)} characters"
    for place in (scratch, Path.cwd()):
        if (place / "owned").exists():
            return "code of a file was run"
    return None


class _TooLongError(BaseException):
    """A command did not come back."""


def _in_process(
    arguments: tuple[str, ...], scratch: Path, limit: float
) -> tuple[int, float, int, str]:
    from spikedeblur.cli import main

    def give_up(number: int, frame: FrameType | None) -> None:
        raise _TooLongError

    error, out = io.StringIO(), io.StringIO()
    former = signal.signal(signal.SIGALRM, give_up)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed must not hide what is taken
    before = _resident()
    _reset_peak()
    begun = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
            code = main(list(arguments))
    except _TooLongError:
        code = 124
    except BaseException:
        traceback.print_exc(file=error)
        code = 70
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    seconds = time.perf_counter() - begun
    # With --json, and from `check`, what is wrong is the answer and so on stdout.
    said = error.getvalue() + (out.getvalue() if code == 1 else "")
    return code, seconds, _peak() - before, said


def _as_process(
    arguments: tuple[str, ...], scratch: Path, limit: float
) -> tuple[int, float, int, str]:
    command = [sys.executable, "-m", "spikedeblur", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=scratch
    )
    try:
        out, error = process.communicate(timeout=limit + 4 * SECONDS)  # its imports take some
    except subprocess.TimeoutExpired:
        process.kill()
        out, error = process.communicate()
        return 124, limit, 0, error
    # A busy machine's imports are no matter of the file's: time and memory are not compared.
    return process.returncode, 0.0, 0, error + (out if process.returncode == 1 else "")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _resident() -> int:
    return _status("VmRSS:")


def _peak() -> int:
    return _status("VmHWM:")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _run(*arguments: object) -> None:
    # A process of its own: what training keeps of memory would hide what a case takes.
    command = [sys.executable, "-m", "spikedeblur", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr)


def run_all(
    folder: Path, *, share: float, processes: int, only: tuple[str, ...] | None = None
) -> int:
    """Damage files of every kind; prints counts and faults, returns how many faults.

    Args:
        folder: empty.
        share: of each kind's cases, in this process.
        processes: cases of each kind as a process of their own.
        only: names of kinds; None: all.
    """
    prepared, scratch = folder / "prepared", folder / "scratch"
    prepared.mkdir()
    scratch.mkdir()
    prepare(prepared)
    total = 0
    for kind in KINDS:
        if only is not None and kind.name not in only:
            continue
        codes: dict[int, int] = {}
        begun, faults, slowest, largest = time.perf_counter(), 0, 0.0, 0
        count = max(1, int(kind.count * share))
        for case in (
            *cases(kind, prepared, scratch, count),
            *cases(kind, prepared, scratch, processes, as_process=True, first=kind.count),
        ):
            if case.fault:
                faults += 1
                print(f"  {kind.name} {case.number}: {case.fault}: {' '.join(case.arguments)}")
                print("    " + case.stderr[-600:].replace("\n", "\n    "))
            if case.number >= 0:
                codes[case.code] = codes.get(case.code, 0) + 1
                slowest, largest = max(slowest, case.seconds), max(largest, case.extra_memory)
        total += faults
        print(
            f"damaged {kind.name}: {sum(codes.values())} cases, exit codes "
            f"{dict(sorted(codes.items()))}, slowest {slowest:.1f} s, most memory "
            f"{largest / 1e6:.0f} MB, {faults} faults, {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
    return total


def main() -> None:
    """Run a share of the cases (first argument), of some kinds (second, with commas)."""
    import tempfile

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    only = tuple(sys.argv[2].split(",")) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as name:
        sys.exit(min(run_all(Path(name), share=share, processes=0, only=only), 1))


if __name__ == "__main__":
    main()
