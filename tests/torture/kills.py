"""SIGKILL at random moments, and rivals: every stage must end in what an undisturbed run gives.

After each kill, whatever has its final name must be whole: equal to the undisturbed run's file, or
a record that says it isn't finished, or a checkpoint that reads. At the end the product is
compared file by file, hidden leftovers included. Rivals are commands that write one product at the
same time: those that are not refused must give it whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikedeblur.pipeline.weights.checkpoint import read_checkpoint

from .hostile import SMALL

RECORDING = "--size 64x96 --length 49 --exposure 9 --stride 4"

CLOCKS = ("data_wait", "samples_per_s", "seconds", "cache_", "peak_memory", "tflops", "peak_share")
"""How fields of metrics.jsonl begin that tell the machine's state, not the run's."""


@dataclass(frozen=True)
class Stage:
    """A command, and which files of its product may be other than at the end."""

    name: str
    arguments: tuple[str, ...]
    """`{out}` is the product, `{f}` the folder with the former stages' products."""
    unfinished: Callable[[Path], bool]
    """Whether a file that is not as in the end says so itself, or is whole in another way."""


@dataclass(frozen=True)
class Outcome:
    """What killing a stage came to."""

    stage: str
    kills: int
    """That hit a running process."""
    seconds: float
    faults: tuple[str, ...]


def _never(path: Path) -> bool:
    return False


def _is_unmarked(path: Path) -> bool:
    """A sequence's record without its completion mark."""
    if path.name not in ("zarr.json", "voxels.json"):
        return False
    content = json.loads(path.read_text())
    attributes = content.get("attributes", content)
    return "seq" in attributes and attributes["complete"] is None


def _is_unfinished_record(path: Path) -> bool:
    return path.name == "restore.json" and not json.loads(path.read_text())["complete"]


def _is_earlier(path: Path) -> bool:
    """A whole file of an earlier step."""
    if path.suffix == ".pt":
        return bool(read_checkpoint(path)["step"] >= 0)
    return path.name == "metrics.jsonl" or path.name.startswith(("events.", "environment"))


def stages() -> tuple[Stage, ...]:
    """Return them in the order in which each needs the one before."""
    blur, spikes = "val_blurry_9/scenes/00000", "val_spike_2xds/scenes/00000/spike.dat"
    restore = f"restore --blur {{f}}/data/{blur} --spikes {{f}}/data/{spikes} --out {{out}} "
    times = "--exposure 9 --fps 1000"
    voxelize = "voxelize {f}/align/a.json {out} --bins 8 "

    def stage(name: str, text: str, unfinished: Callable[[Path], bool] = _never) -> Stage:
        return Stage(name, tuple(text.split()), unfinished)

    return (
        stage("simulate", f"simulate {{out}} --scenes 6 --split train {RECORDING} --workers 2"),
        stage(
            "align",
            "align {f}/data --layout x4k1000fps --exposure 9 --log {out}/a.txt "
            "--manifest {out}/a.json",
        ),
        stage("voxelize", voxelize + "--workers 2", _is_unmarked),
        stage("voxelize here", voxelize + "--workers 1 --kind counts", _is_unmarked),
        stage("voxelize npy", voxelize + "--workers 1 --format npy", _is_unmarked),
        stage("restore", restore + "--model small --tile 64 " + times, _is_unfinished_record),
        stage("train", "train --config {f}/train.yaml --run {out} --resume", _is_earlier),
    )


def run_all(
    folder: Path, kills: dict[str, int], seed: int = 0, rivals: int = 3
) -> Iterator[Outcome]:
    """Make each stage's product undisturbed, then by rivals, then under `kills` kills."""
    for split, scenes in (("train", 3), ("val", 1)):
        text = f"simulate {folder}/data --scenes {scenes} --split {split} {RECORDING} --workers 1"
        _finish([sys.executable, "-m", "spikedeblur", *text.split()])
    for stage in stages():
        if stage.name == "train":
            write_config(folder)
        whole = folder / stage.name.replace(" ", "_")
        begun = time.monotonic()
        _finish(_command(stage, whole, folder))
        seconds = time.monotonic() - begun
        if kills.get(stage.name):
            yield _compete(stage, whole, folder, rivals)
            rng = random.Random(f"{seed} {stage.name}")
            yield _torture(stage, whole, folder, kills[stage.name], seconds, rng)


def write_config(folder: Path) -> None:
    """Write `train.yaml`: a small network on the folder's store."""
    from spikedeblur.configs import dump_config, load_config

    sets = [
        *SMALL,
        "DATA.K=8",
        "DATA.NUM_VOXEL_BINS=8",
        f"DATA.ROOT={folder / 'voxelize'}",
        "DATA.CACHE_SIZE_GB=0",
        "TRAIN.MAX_STEPS=12",
        "TRAIN.SAVE_INTERVAL=1",
        "TRAIN.VAL_INTERVAL=5",
        "TRAIN.GRADIENT_ACCUMULATION_STEPS=2",
        "TRAIN.NUM_WORKERS=1",
        "TRAIN.THREADS=1",
        "TRAIN.EMA_DECAY=0.9",
    ]
    config = load_config("configs/deblur/quickstart.yaml", sets)
    (folder / "train.yaml").write_text(dump_config(config))


def _torture(
    stage: Stage, whole: Path, folder: Path, kills: int, seconds: float, rng: random.Random
) -> Outcome:
    expected = fingerprints(whole)
    out = folder / f"killed {stage.name}".replace(" ", "_")
    command = _command(stage, out, folder)
    faults: list[str] = []
    hit = 0
    begun = time.monotonic()
    for _ in range(kills * 3):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        # More often early than late, so that work remains for the next.
        time.sleep(seconds * rng.random() ** 1.3)
        if process.poll() is None:
            kill(process, rng)
            hit += 1
            faults += half(stage, out, whole, expected)
        elif process.wait() != 0:
            assert process.stderr is not None
            faults.append(f"exit code {process.returncode}: {process.stderr.read()[-500:]!r}")
        else:  # done before it could be killed: begin anew, or there is nothing left to kill
            shutil.rmtree(out)
        if hit == kills:
            break
    _finish(command)
    found = fingerprints(out)
    faults += [
        f"differs: {name}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    faults += [f"lacks {name}" for name in sorted(expected.keys() - found.keys())]
    faults += [f"left {name}" for name in sorted(found.keys() - expected.keys())]
    return Outcome(stage.name, hit, time.monotonic() - begun, tuple(faults))


def _compete(stage: Stage, whole: Path, folder: Path, rivals: int) -> Outcome:
    """Start the same command several times at once; the refused say why, and one gets through."""
    out = folder / f"rivals {stage.name}".replace(" ", "_")
    begun = time.monotonic()
    started = [
        subprocess.Popen(
            _command(stage, out, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(rivals)
    ]
    ended = [(process, process.communicate()[1]) for process in started]
    faults = [
        f"exit code {process.returncode}: {said[-500:]!r}"
        for process, said in ended
        if process.returncode and b"is writing" not in said
    ]
    if all(process.returncode for process, _ in ended):
        faults.append("all were refused")
    expected, found = fingerprints(whole), fingerprints(out)
    faults += [
        f"differs, lacks or left: {name}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    return Outcome(f"{stage.name}, {rivals} rivals", 0, time.monotonic() - begun, tuple(faults))


def kill(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Kill the command alone, as the system does for lack of memory, or with all it started."""
    if rng.random() < 0.5:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # what it started sees that it is gone
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("processes outlived the command that started them by 10 s")


def half(stage: Stage, out: Path, whole: Path, expected: dict[str, str]) -> Iterator[str]:
    """Yield the files under their final names that are neither whole nor say what they are."""
    for name, fingerprint in fingerprints(out, hidden=False).items():
        if expected.get(name) == fingerprint:
            continue
        try:
            if stage.unfinished(out / name):
                continue
            yield f"half a product: {name}"
        except Exception as error:
            yield f"half a product: {name} ({type(error).__name__}: {error})"


def fingerprints(folder: Path, *, hidden: bool = True) -> dict[str, str]:
    """Return a hash of each file's content, by name; of what tells the time, the rest's."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or (not hidden and "/." in f"/{name}"):
            continue
        if path.name == ".lock":
            continue
        if path.name.startswith("events.out"):
            name, content = "events.out", b""
        elif path.name == "environment.json":
            content = json.dumps(json.loads(path.read_text())["data"]).encode()
        elif path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            kept = [{k: v for k, v in line.items() if not k.startswith(CLOCKS)} for line in lines]
            content = json.dumps(kept).encode()
        elif path.suffix == ".pt":
            content = repr(_plain(read_checkpoint(path))).encode()
        else:
            content = path.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _plain(value: Any) -> Any:
    """Return a checkpoint's content with bytes in place of tensors."""
    import torch

    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.cpu().numpy().tobytes())
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _command(stage: Stage, out: Path, folder: Path) -> list[str]:
    words = [word.format(out=out, f=folder) for word in stage.arguments]
    return [sys.executable, "-m", "spikedeblur", *words]


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr[-2000:])


def main() -> None:
    """Kill stages as often as the arguments say, `train=10 simulate=5`; prints what was found."""
    import tempfile

    wanted = dict(word.split("=") for word in sys.argv[1:])
    kills = {name: int(count) for name, count in wanted.items()} or FULL
    with tempfile.TemporaryDirectory() as name:
        for outcome in run_all(Path(name), kills):
            print(
                f"{outcome.stage}: {outcome.kills} kills, {outcome.seconds:.0f} s, "
                f"{len(outcome.faults)} faults",
                flush=True,
            )
            for fault in outcome.faults:
                print(f"  {fault}", flush=True)


FULL = {
    "simulate": 5,
    "align": 2,
    "voxelize": 4,
    "voxelize here": 4,
    "voxelize npy": 2,
    "restore": 4,
    "train": 9,
}
"""30 in all."""


if __name__ == "__main__":
    main()
