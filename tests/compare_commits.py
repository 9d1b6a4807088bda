"""Run two commits of this project on one machine and compare what they make, row by row.

    python -m tests.compare_commits OLD [NEW]     git revisions; NEW: default the working tree
    python -m tests.compare_commits --record      write tests/frozen/hashes.json

Each row is `same`, `differs` with the first difference, `failed` where a commit could not make it,
or `skipped` where an input is absent. The exit code is 1 if a row differs or failed. Both commits
are run through `python -m spikedeblur` only, so their modules and Python functions may differ; what
they must share is the command line. Both read the same inputs, because manifests and stores record
the inputs' times of change. What a row needs of earlier stages (scenes, manifests, a store) is made
once, by OLD, so a difference shows in the row that makes it, and rows after it show that NEW reads
what OLD wrote.

Not compared: times, memory, TensorBoard events, the compression of PNGs (their pixels are), and
what `MASKS` names. Two runs of one commit differ in times, memory and the hash of a checkpoint
file only; the other masks are for commits of two releases.

The rows of `FROZEN` have recorded hashes, which `tests/test_frozen.py` compares. They hold on every
machine: inputs are SHAKE-256 bits, pictures are BMP, and no floating-point sum has more than one
term that is not zero. `simulate` is fed frames that have one lit channel in one pixel of each
square, because luminance is a matrix product, whose last bit, and so a spike, depends on the
processor; procedural scenes do so for that reason, and are in `FLOATING` with lags and networks.
The packed store is compressed by LZ4, whose output depends on its release and on no processor;
Zstandard's may depend on both, so that codec is in `FLOATING` too.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HASHES = ROOT / "tests" / "frozen" / "hashes.json"
RECORDINGS = ROOT.parent / "shared" / "realdata" / "reds_spike"
CHANGED_NS = 1_700_000_000_000_000_000
"""Time of last change that every input gets, in nanoseconds since 1970."""

MASKS = {
    "a release's number is in all it writes": r'(?<="version": )"[^"]*"|spikedeblur \d[\w.]*',
    "checksums of records that hold the number": (
        r'(?<="crc32": )"\w*"|(?<="record_crc32": )"\w*"|(?<="manifest_sha256": )"\w*"'
    ),
    "torch names a checkpoint's archive after a file with a random name": (
        r'(?<="checkpoint_sha256": )"\w*"'
    ),
    "time and memory": (
        r'"(seconds\w*|data_wait|samples_per_s|peak_memory|tflops|peak_share)": [^,}\n]*'
    ),
}
MASK = re.compile("|".join(f"(?:{pattern})" for pattern in MASKS.values()))

PRESETS = {
    "vidar": 250 * 400,
    "vidar-raw": 250 * 416,
    "reds-spike": 250 * 400,
    "sps100": 1000 * 1000,
    "sps100-raw": 1000 * 1024,
    "spift": 500 * 800,
    "spk-gopro": 360 * 640,
    "spk-x4k-train": 384 * 384,
    "spk-x4k-val": 256 * 256,
    "s-sdm-gopro": 180 * 320,
    "s-sdm-gopro-full": 720 * 1280,
    "9x11,top-down": 9 * 11,
    "9x11,bottom-up,padded": 104,
    "16x24,top-down,drop=3:5": 16 * 24,
}
"""Bits of a frame in the file, by geometry."""


class Size(int):
    """A number of bytes that is compared within a factor of two."""


Content = bytes | str | np.ndarray | Size | dict[str, Any]
"""What a row made: files, texts and arrays by name."""


Row = Callable[["Side"], Content]


class Failed(Exception):
    """A command went wrong, or made nothing to compare."""


class Skipped(Exception):
    """An input of a row is absent."""


@dataclass(frozen=True)
class Side:
    """One commit, with the folder it works in; inputs lie in `../inputs`."""

    path: Path
    """Folder that has the checkout in it under the name `spikedeblur`."""
    work: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the interpreter with this commit's package first, on one thread."""
        environment = os.environ | {"PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command and return what it printed, masked.

        Raises:
            Failed: its exit code is not one of `codes`.
        """
        done = self.python("-m", "spikedeblur", "--quiet", *arguments)
        if done.returncode not in codes:
            last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
            raise Failed(f"{arguments[0]} exits with {done.returncode}: {last[:200]}")
        return self.masked(done.stdout)

    def masked(self, text: str) -> str:
        """Return a text without this commit's folders and what `MASKS` covers."""
        package = self.path / "spikedeblur"
        for folder, name in (
            (self.work, "WORK"),
            (package, "PACKAGE"),
            (package.resolve(), "PACKAGE"),
        ):
            text = text.replace(str(folder), name)
        return MASK.sub("MASKED", text)

    def files(self, name: str) -> dict[str, Content]:
        """Return the files below `work / name`: texts masked, PNGs as pixels, others as bytes."""
        top = self.work / name
        found: dict[str, Content] = {}
        for path in sorted(top.rglob("*") if top.is_dir() else [top]):
            if path.is_file():
                found[str(path.relative_to(self.work))] = self._content(path)
        if not found:
            raise Failed(f"nothing was made in {name}")
        return found

    def _content(self, path: Path) -> Content:
        if path.suffix in (".json", ".jsonl", ".txt", ".yaml"):
            return self.masked(path.read_text())
        if path.suffix == ".png":
            return np.asarray(Image.open(path))
        return path.read_bytes()


def side(checkout: Path, work: Path) -> Side:
    """Return the commit that is checked out in a folder, to work in `work`.

    Raises:
        Failed: another copy of the package is found first.
    """
    path = work.with_name(f"{work.name}-path")
    path.mkdir(parents=True)
    work.mkdir()
    (path / "spikedeblur").symlink_to(checkout)
    made = Side(path, work)
    found = made.python("-c", "import spikedeblur; print(spikedeblur.__file__)")
    if found.stdout.strip() != str(path / "spikedeblur" / "__init__.py"):
        raise Failed(f"expected the package of {checkout}, found {found.stdout or found.stderr}")
    return made


# --- inputs, which hold the same bytes on every machine


def random_bytes(name: str, count: int) -> np.ndarray:
    """Return bytes that depend on the name alone."""
    return np.frombuffer(hashlib.shake_256(name.encode()).digest(count), np.uint8)


def write_inputs(inputs: Path, recordings: Path | None = None) -> None:
    """Write frames, recordings and spike files, and a part of the published `recordings`."""
    for index, split in enumerate(("train", "val", "test")):
        _write_frames(inputs / "frames" / split / "group" / "clip")
        record_scene = partial(_write_recording, inputs / "recordings", split)
        record_scene(f"{split}-even", (16, 20), "bottom-up")
        record_scene(f"{split}-odd", (9 + index, 11), "top-down,padded")
    for geometry, bits in PRESETS.items():
        (inputs / "dat").mkdir(exist_ok=True)
        random_bytes(geometry, (5 * bits + 7) // 8).tofile(inputs / "dat" / f"{geometry}.dat")
    np.save(inputs / "dat" / "array.npy", random_bytes("array", 7 * 18 * 26).reshape(7, 18, 26) & 1)
    if recordings is not None and (published := sorted(recordings.glob("*.dat"))):
        _write_real_recording(published[0], inputs / "real")
    for path in inputs.rglob("*"):
        os.utime(path, ns=(CHANGED_NS, CHANGED_NS))


def _write_frames(folder: Path) -> None:
    """Write 13 frames in which each square of 2x2 pixels has one lit channel of one pixel."""
    folder.mkdir(parents=True)
    for number in range(13):
        place, value = random_bytes(f"{folder.parts[-3:]} {number}", 2 * 16 * 20).reshape(2, 16, 20)
        y, x = np.indices(place.shape)
        frame = np.zeros((32, 40, 3), np.uint8)
        frame[2 * y + (place & 1), 2 * x + (place >> 1 & 1), (place >> 2) % 3] = value
        Image.fromarray(frame).save(folder / f"{number:04d}.bmp")


def _write_recording(root: Path, split: str, group: str, size: tuple[int, int], order: str) -> None:
    """Write a clip of 65 frames as `simulate` would, of random bits and random pictures."""
    height, width = size
    spikes = root / f"{split}_spike_2xds" / group / "clip" / "spike.dat"
    spikes.parent.mkdir(parents=True)
    frame_bits = -(-height * width // 8) * 8 if "padded" in order else height * width
    random_bytes(str(spikes.relative_to(root)), (513 * frame_bits + 7) // 8).tofile(spikes)
    clock = {"rate": 8000.0, "first": 0.0, "gain": 0.5}
    facts = {"format": "spikedeblur.spikes", "geometry": f"{height}x{width},{order}", **clock}
    Path(f"{spikes}.json").write_text(json.dumps(facts))
    for kind in ("blurry_33", "fullRGB"):
        folder = root / f"{split}_{kind}" / group / "clip"
        folder.mkdir(parents=True)
        for number in (16, 31, 46):
            path = folder / f"{number:04d}.bmp"
            pixels = random_bytes(str(path.relative_to(root)), 12 * height * width)
            Image.fromarray(pixels.reshape(2 * height, 2 * width, 3)).save(path)


def _write_real_recording(published: Path, folder: Path) -> None:
    """Write the middle of a recording, 250x400, and blurred frames that its spikes add up to."""
    (folder / "blur").mkdir(parents=True)
    packed = np.fromfile(published, np.uint8).reshape(-1, 250 * 400 // 8)
    whole = np.unpackbits(packed, axis=1, bitorder="little").reshape(-1, 250, 400)  # bottom-up
    spikes = whole[:, 93:157, 116:212]
    np.packbits(spikes, bitorder="little").tofile(folder / "spike.dat")
    for middle in (60, 150, 240):
        seen = spikes[middle - 16 : middle + 17, ::-1].sum(0, dtype=np.int64)
        gray = np.minimum(255, 255 * 10 * seen // (33 * 6)).astype(np.uint8)
        enlarged = gray.repeat(2, 0).repeat(2, 1)
        Image.fromarray(enlarged).save(folder / "blur" / f"{middle:04d}.png")


def align_inputs(by: Side) -> None:
    """Align the recordings into `inputs/recordings.json`."""
    log = ("--log", "../inputs/recordings.txt")
    by.run("align", "../inputs/recordings", "--layout", "x4k1000fps", "--no-verify", *log)


def make_scenes(by: Side) -> None:
    """Make scenes with a manifest and a store in `inputs`, to train, evaluate and look at."""
    scenes, size = "../inputs/scenes", ("--size", "64x64")
    for split, count in (("train", "4"), ("val", "2"), ("test", "2")):
        by.run("simulate", scenes, "--scenes", count, "--split", split, *size)
    by.run("align", scenes, "--layout", "x4k1000fps", "--log", "../inputs/scenes.txt")
    by.run("voxelize", "../inputs/scenes.json", "../inputs/scenes.zarr", "--workers", "1")


# --- rows


def simulate_frames(by: Side) -> Content:
    """Spikes, side files, blurred and sharp pictures of given frames."""
    cameras = ("--exposure", "5", "--stride", "4", "--threshold", "0.25", "--noise", "0.01")
    by.run("simulate", "frames", "--frames", "../inputs/frames", *cameras, "--workers", "1")
    return by.files("frames")


def align_recordings(by: Side) -> Content:
    """Log and manifest, without lags."""
    layout = ("--layout", "x4k1000fps", "--no-verify")
    by.run("align", "../inputs/recordings", *layout, "--log", "aligned/recordings.txt")
    return by.files("aligned/recordings.txt") | by.files("aligned/recordings.json")


def voxelize(*options: str) -> Row:
    """Return a row of all files of a store."""

    def row(by: Side) -> Content:
        store = "".join(("voxels", *options))
        by.run("voxelize", "../inputs/recordings.json", store, "--workers", "1", *options)
        return by.files(store)

    return row


def convert(by: Side) -> Content:
    """Converted spike files with side files, of every geometry and of an array."""
    (by.work / "converted").mkdir()
    for geometry in PRESETS:
        source, out = f"../inputs/dat/{geometry}.dat", f"converted/{geometry}.dat"
        by.run("convert", source, out, "--geometry", geometry)
    numbers = ("--rate", "20000", "--gain", "0.3")
    by.run("convert", "../inputs/dat/array.npy", "converted/array.dat", *numbers)
    return by.files("converted")


def simulate_scenes(by: Side) -> Content:
    """Spikes, side files, blurred and sharp pictures of procedural scenes, by two processes."""
    options = ("--size", "64x96", "--split", "val", "--seed", "3", "--fastest", "2")
    by.run("simulate", "scenes", "--scenes", "3", *options, "--workers", "2", "--linear-light")
    return by.files("scenes")


def align_scenes(by: Side) -> Content:
    """Log, manifest and summary, with lags found and clocks corrected."""
    options = ("--layout", "x4k1000fps", "--estimate", "--log", "aligned/scenes.txt", "--json")
    said = by.run("align", "../inputs/scenes", *options)
    return {"--json": said, **by.files("aligned/scenes.txt"), **by.files("aligned/scenes.json")}


def check(by: Side) -> Content:
    """Findings about two manifests and a store."""
    products = ("scenes.json", "recordings.json", "scenes.zarr")
    return {p: by.run("check", f"../inputs/{p}", "--json", codes=(0, 1)) for p in products}


def split(by: Side) -> Content:
    """Manifests dealt out by scene and by clip."""
    out = ("--json", "--out")
    by.run("split", "../inputs/recordings.json", "--val", "0.5", *out, "split/scene.json")
    by_clip = ("--by", "clip", "--val", "0.3", "--seed", "1")
    by.run("split", "../inputs/scenes.json", *by_clip, *out, "split/clip.json")
    return by.files("split")


def inspect(by: Side) -> Content:
    """Facts about spike files, manifest, log and store."""
    spikes = "recordings/train_spike_2xds/train-odd/clip/spike.dat"
    paths = ("recordings.json", "scenes.txt", "scenes.zarr", spikes)
    found = {path: by.run("inspect", f"../inputs/{path}", "--json") for path in paths}
    for geometry in ("vidar", "spift", "9x11,bottom-up,padded"):
        dat = f"../inputs/dat/{geometry}.dat"
        found[geometry] = by.run("inspect", dat, "--geometry", geometry, "--json")
    return found


def train(workers: int) -> Row:
    """Return a row of checkpoint, resolved configuration, samples and metrics after 20 steps."""
    settings = {
        "DATA.ROOT": "../inputs/scenes.zarr",
        "DATA.ALIGN_LOG_PATHS": "[../inputs/scenes.txt]",
        "DATA.USE_RAM_CACHE": str(not workers).lower(),  # a split in memory needs no workers
        "TRAIN.NUM_WORKERS": str(workers),
        "TRAIN.BATCH_SIZE": "2",
        "TRAIN.MAX_STEPS": "20",
        "TRAIN.SCHEDULER.WARMUP_STEPS": "4",
        "TRAIN.LOG_INTERVAL": "5",
        "TRAIN.VAL_INTERVAL": "10",
        "TRAIN.VAL_MAX_WINDOWS": "2",
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    def row(by: Side) -> Content:
        run = f"run-{workers}"
        by.run("train", "--config", "configs/deblur/quickstart.yaml", *sets, "--run", run)
        weights = torch.load(by.work / run / "checkpoints/last.pt", weights_only=True)
        beside = by.files(f"{run}/config.yaml") | by.files(f"{run}/samples")
        metrics = by.files(f"{run}/metrics.jsonl")
        return {"last.pt": _plain(weights, by), **beside, **metrics}

    return row


def _plain(value: Any, by: Side) -> Content:
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {str(key): _plain(value[key], by) for key in value if key != "version"}
    if isinstance(value, list | tuple):
        return {str(index): _plain(part, by) for index, part in enumerate(value)}
    return by.masked(str(value))


def evaluate(by: Side) -> Content:
    """Figures of the methods, the shipped model and the model of this row's training."""
    methods = ("--methods", "blur,tfp,sdm,path,model", "--overwrite")
    store = ("evaluate", "../inputs/scenes.zarr", "--split", "test")
    by.run(*store, "--model", "small", *methods, "--json", "evaluated-small.json")
    run = ("--run", "run-0", "--methods", "blur,model")
    by.run(*store, *run, "--json", "run-0/evaluation.json")
    return by.files("evaluated-small.json") | by.files("run-0/evaluation.json")


def restore(*how: str) -> Row:
    """Return a row of sharp frames of a published recording, and the record beside them."""

    def row(by: Side) -> Content:
        if not (by.work / "../inputs/real").is_dir():
            raise Skipped("no published recordings; see --recordings")
        inputs = ("--blur", "../inputs/real/blur", "--spikes", "../inputs/real/spike.dat")
        camera = ("--geometry", "64x96,bottom-up", "--rate", "1000", "--gain", "0.6")
        times = ("--fps", "1000", "--exposure", "33")
        out = "".join(("restored", *how))
        by.run("restore", *inputs, *camera, *times, *how, "--out", out)
        return by.files(out)

    return row


def export(by: Side) -> Content:
    """Tensors and their description in the exported file of the trained run."""
    by.run("export", "run-0", "run-0.safetensors")
    content = (by.work / "run-0.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    found: dict[str, Content] = {"description": _plain(header.pop("__metadata__"), by)}
    for name, tensor in header.items():
        first, end = (start + offset for offset in tensor["data_offsets"])
        found[f"{name} {tensor['dtype']} {tensor['shape']}"] = content[first:end]
    return found


def report(by: Side) -> Content:
    """Size of the page about the trained run, within a factor of two: it holds times."""
    by.run("report", "run-0", "--no-restore", "--out", "report.html")
    return {"report.html": Size((by.work / "report.html").stat().st_size)}


FROZEN: dict[str, Row] = {
    "simulate --frames": simulate_frames,
    "align --no-verify": align_recordings,
    "voxelize packed": voxelize("--kind", "packed"),
    "voxelize counts, no codec": voxelize("--kind", "counts", "--codec", "none"),
    "voxelize npy": voxelize("--format", "npy"),
    "convert": convert,
}
"""Rows whose results are the same on every machine."""

FLOATING: dict[str, Row] = {
    "simulate --scenes": simulate_scenes,
    "align --estimate": align_scenes,
    "voxelize counts, lz4": voxelize("--kind", "counts", "--codec", "lz4"),
    "voxelize counts, zstd": voxelize("--kind", "counts", "--codec", "zstd"),
    "check": check,
    "split": split,
    "inspect": inspect,
    "train": train(0),
    "train, 2 workers": train(2),
    "evaluate": evaluate,
    "export": export,
    "report": report,
    "restore by sdm": restore("--method", "sdm"),
    "restore by path": restore("--method", "path"),
    "restore by small": restore("--model", "small", "--tile", "0"),
    "restore by small in tiles": restore("--model", "small", "--tile", "128"),
}
"""Rows that two commits share on one machine only; evaluate, export and report follow train."""


# --- comparison


def differences(old: Content, new: Content, where: str = "") -> Iterator[str]:
    """Yield what is not the same, one part a time."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inside = f"{where}: {name}" if where else name
            if name not in new or name not in old:
                yield f"{inside} only in {'old' if name in old else 'new'}"
            else:
                yield from differences(old[name], new[name], inside)
    elif isinstance(old, Size) and isinstance(new, Size):
        if not 0.5 <= new / old <= 2:
            yield f"{where}: {old} bytes -> {new}"
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            yield f"{where}: {old.dtype} {old.shape} -> {new.dtype} {new.shape}"
        elif old.tobytes() != new.tobytes():
            apart = np.abs(new.astype(float) - old.astype(float))
            yield f"{where}: {np.count_nonzero(apart)} of {old.size} by up to {apart.max():.3g}"
    elif isinstance(old, str) and isinstance(new, str):
        lines = itertools.zip_longest(old.splitlines(), new.splitlines(), fillvalue="(end)")
        for number, (before, after) in enumerate(lines, 1):
            if before != after:
                yield f"{where}, line {number}: {before.strip()[:80]} -> {after.strip()[:80]}"
                return
        if old != new:
            yield f"{where}: ends of lines"
    elif old != new:
        yield f"{where}: {_described(old)} -> {_described(new)}"


def _described(content: Content) -> str:
    if isinstance(content, bytes):
        return f"{len(content)} bytes {digest(content)[:8]}"
    return type(content).__name__


def digest(content: Content) -> str:
    """Return the SHA-256 of what a row made, by names and content."""
    if isinstance(content, dict):
        content = "".join(f"{name} {digest(content[name])}\n" for name in sorted(content))
    elif isinstance(content, np.ndarray):
        content = f"{content.dtype.str} {content.shape}\n".encode() + content.tobytes()
    elif isinstance(content, Size):
        content = str(content)
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def compare(rows: dict[str, Row], old: Side, new: Side) -> bool:
    """Print each row as soon as both commits have made it; return whether all are the same."""
    bad = skipped = 0
    with ThreadPoolExecutor(2) as pool:
        for name, row in rows.items():
            started = time.monotonic()
            made = [pool.submit(_made, row, by) for by in (old, new)]
            state, found = _verdict(*(one.result() for one in made))
            bad += state in ("differs", "failed")
            skipped += state == "skipped"
            print(f"{name:26} {state:8} {time.monotonic() - started:4.0f} s  {found}", flush=True)
    print(f"{bad} of {len(rows)} rows differ or failed, {skipped} skipped")
    return not bad


def _made(row: Row, by: Side) -> Content | Failed | Skipped:
    try:
        return row(by)
    except (Failed, Skipped) as error:
        return error
    except (OSError, subprocess.TimeoutExpired) as error:
        return Failed(str(error))


def _verdict(old: Content | Failed | Skipped, new: Content | Failed | Skipped) -> tuple[str, str]:
    if isinstance(old, Skipped) or isinstance(new, Skipped):
        return "skipped", str(old if isinstance(old, Skipped) else new)
    if isinstance(old, Failed) or isinstance(new, Failed):
        sides = (("old", old), ("new", new))
        return "failed", "; ".join(f"{n}: {made}" for n, made in sides if isinstance(made, Failed))
    found = list(differences(old, new))
    if not found:
        return "same", ""
    return "differs", found[0] + (f"; and {len(found) - 1} more" if len(found) > 1 else "")


def frozen_hashes(work: Path) -> dict[str, str]:
    """Return the digest of each row of `FROZEN` that the working tree makes in a new folder."""
    (work / "inputs").mkdir(parents=True)
    write_inputs(work / "inputs")
    by = side(ROOT, work / "new")
    align_inputs(by)
    return {name: digest(row(by)) for name, row in FROZEN.items()}


@contextmanager
def checked_out(revision: str | None, beside: Path) -> Iterator[Path]:
    """Give a folder with this revision, which is removed at the end; None: the working tree."""
    if revision is None:
        yield ROOT
        return
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(beside), revision], check=True)
    try:
        yield beside
    finally:
        subprocess.run([*git, "remove", "--force", str(beside)], check=True)


def main() -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", nargs="?", metavar="OLD", help="git revision")
    parser.add_argument("new", nargs="?", metavar="NEW", help="default: the working tree")
    parser.add_argument("--record", action="store_true", help=f"write {HASHES.relative_to(ROOT)}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder to leave results in")
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        default=RECORDINGS,
        help="published .dat files of 250x400; default: ../shared/realdata/reds_spike",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with it in their names")
    options = parser.parse_args()
    rows = {name: row for name, row in (FROZEN | FLOATING).items() if options.only in name}
    if not rows:
        parser.error(f"no row has {options.only!r} in its name: {', '.join(FROZEN | FLOATING)}")
    if (options.old is None) != options.record:
        parser.error("give OLD, or --record")
    with tempfile.TemporaryDirectory(prefix="compare-") as temporary:
        work = (options.keep or Path(temporary, "work")).resolve()
        if options.record:
            HASHES.parent.mkdir(exist_ok=True)
            HASHES.write_text(json.dumps(frozen_hashes(work), indent=2) + "\n")
            return 0
        with (
            checked_out(options.old, Path(temporary, "old")) as before,
            checked_out(options.new, Path(temporary, "new")) as after,
        ):
            (work / "inputs").mkdir(parents=True)
            write_inputs(work / "inputs", options.recordings)
            old, new = side(before, work / "old"), side(after, work / "new")
            align_inputs(old)
            if rows.keys() & FLOATING.keys():
                make_scenes(old)
            return 0 if compare(rows, old, new) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"compare_commits: the inputs could not be made: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"compare_commits: {shlex.join(error.cmd)} failed")
