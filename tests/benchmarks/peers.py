"""What else reads samples, beside ours: random crops by one process, and batches by one worker.

    python -m tests.benchmarks.peers [--repeats N]

Every peer reads the same content, and is checked to. h5py, mosaicml-streaming and litdata are not
among the project's dependencies: what isn't installed is named, and left out. Peers of the stream
hold windows whole, as their formats do, and cut crops from them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from spikedeblur.pipeline.align.manifest import read_manifest, write_manifest
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.sequences.contract import Span
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.workers import start_fork_server
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest

from .figures import Figure, fastest

OPTIONAL = {"h5py": "h5py", "streaming": "mosaicml-streaming", "litdata": "litdata"}
"""Packages by the name that they are imported by."""

ARRAYS = ("voxels", "blur", "sharp")
FORMS = {
    "crops 7x128x128": (7, 128, False),
    "crops 3x256x256 and frames": (3, 256, True),
}
"""Windows, side of the crop, and whether blurred and sharp frames are read, too."""

SEQUENCES, BATCH, CROP, CONSUMER_SECONDS, TAKEN = 4, 8, 128, 0.05, 4


def missing() -> str:
    """Return one line that names the peers that aren't installed, or an empty one."""
    names = [name for module, name in OPTIONAL.items() if not _is_installed(module)]
    return f"not installed, so not measured: {', '.join(names)}" if names else ""


Cut = Callable[[Span, Span, Span, bool], tuple[np.ndarray, ...]]
"""Reads (voxels,) or (voxels, blur, sharp) of windows, rows and columns."""


def crops(folder: Path, repeats: int = 10) -> list[Figure]:
    """Measure with `packed.zarr` and `none.zarr` of `store.record` in `folder`; half a minute."""
    peers = _peers_of_crops(folder)
    found = []
    for form, (length, side, frames) in FORMS.items():
        (sequence,) = open_store(folder / "packed.zarr")
        limits = (sequence.length - length, *(s - side for s in sequence.frame_shape))
        sides = (length, side, side)

        actions = {
            name: partial(_cut_anywhere, cut, np.random.default_rng(1), limits, sides, frames)
            for name, cut in peers.items()
        }

        spans = _place(np.random.default_rng(0), limits, sides)
        expected = peers["packed"](*spans, frames)
        for name, cut in peers.items():
            for read, wanted in zip(cut(*spans, frames), expected, strict=True):
                np.testing.assert_array_equal(read, wanted, err_msg=name)
        times = fastest(actions, repeats, in_a_row=5)
        best = min(times["uint8 .npy, mapped"], times["float32 .npy, whole"])
        bars = {"packed": 0.1, "counts, not compressed": 0.2}
        found += [
            Figure(
                f"{form}: {name}",
                best / times[name],
                "of the rate of the best .npy",
                bar,
                f"{1e3 * times[name]:.2f} ms of CPU",
            )
            for name, bar in bars.items()
        ]
        found += [
            Figure(
                f"  {name}",
                taken / times["packed"],
                "of the time of packed",
                detail=f"{taken / times['counts, not compressed']:.2f} of that of counts",
            )
            for name, taken in times.items()
            if name not in bars
        ]
    return found


def _cut_anywhere(
    cut: Cut, rng: np.random.Generator, limits: Sequence[int], sides: Sequence[int], frames: bool
) -> None:
    cut(*_place(rng, limits, sides), frames)


def _place(rng: np.random.Generator, limits: Sequence[int], sides: Sequence[int]) -> list[Span]:
    starts = (int(rng.integers(limit + 1)) for limit in limits)
    return [(start, start + side) for start, side in zip(starts, sides, strict=True)]


def _peers_of_crops(folder: Path) -> dict[str, Cut]:
    """Return ways to read a crop; writes the peers' files."""
    import tensorstore
    import zarr

    here = folder / "peers"
    here.mkdir()
    (packed,), (counted,) = (open_store(folder / f"{kind}.zarr") for kind in ("packed", "none"))
    whole = dict(zip(("blur", "sharp", "voxels"), counted.clip(0, counted.length), strict=True))
    for name, array in whole.items():
        np.save(here / f"{name}.npy", array)
    for number, voxels in enumerate(whole["voxels"]):
        np.save(here / f"{number}.npy", voxels.astype(np.float32))
    mapped = {name: np.load(here / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    stored = folder / "none.zarr" / counted.seq
    by_zarr = {name: zarr.open_array(str(stored / name), mode="r") for name in ARRAYS}
    by_tensorstore = {
        name: tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(stored / name)}},
            context=tensorstore.Context({"file_io_mode": {"mode": "memmap"}}),
        ).result()
        for name in ARRAYS
    }

    def ours(sequence: Any) -> Cut:
        def cut(windows: Span, rows: Span, columns: Span, frames: bool) -> tuple[np.ndarray, ...]:
            if not frames:
                return (sequence.voxels(*windows, rows, columns),)
            blur, sharp, voxels = sequence.clip(*windows, (rows, columns), (rows, columns))
            return voxels, blur, sharp

        return cut

    def sliced(arrays: Any, take: Callable[[Any], np.ndarray]) -> Cut:
        def cut(windows: Span, rows: Span, columns: Span, frames: bool) -> tuple[np.ndarray, ...]:
            t, y, x = (slice(*span) for span in (windows, rows, columns))
            voxels = take(arrays["voxels"][t, :, y, x])
            if not frames:
                return (voxels,)
            return voxels, take(arrays["blur"][t, y, x]), take(arrays["sharp"][t, y, x])

        return cut

    of_mapped = sliced(mapped, np.array)

    def float32(windows: Span, rows: Span, columns: Span, frames: bool) -> tuple[np.ndarray, ...]:
        y, x = slice(*rows), slice(*columns)
        voxels = np.stack([np.load(here / f"{i}.npy")[:, y, x] for i in range(*windows)])
        return voxels, *(of_mapped(windows, rows, columns, True)[1:] if frames else ())

    peers = {
        "packed": ours(packed),
        "counts, not compressed": ours(counted),
        "uint8 .npy, mapped": of_mapped,
        "float32 .npy, whole": float32,
        "counts by zarr-python": sliced(by_zarr, np.asarray),
        "counts by TensorStore": sliced(by_tensorstore, lambda view: view.read().result()),
    }
    if _is_installed("h5py"):
        import h5py

        file = h5py.File(here / "counts.h5", "w")
        for name, array in whole.items():
            file.create_dataset(name, data=array, chunks=by_zarr[name].chunks)
        peers["counts by h5py, the same chunks"] = sliced(file, np.asarray)
    return peers


Stream = tuple[Iterator[list[str]], Callable[[int], Any]]
"""Names of each batch's samples, and what to resume from after so many batches."""


@contextmanager
def ours(store: Path, state: int | None) -> Iterator[Stream]:
    """Our loader."""
    from spikedeblur.pipeline.train.data.loader import open_loader

    samples = _clip_samples(store)
    plan, first = StepPlan(samples.index, BATCH), state or 0
    with open_loader(samples, plan, first, plan.steps_an_epoch, workers=1, pin=False) as steps:
        yield (_named(batch) for step in steps for batch in step), lambda taken: first + taken


def _clip_samples(store: Path) -> ClipSamples:
    sequences = open_store(store)
    index = ClipIndex.every_start([s.length for s in sequences], 1)
    return ClipSamples(sequences, index, crop_size=CROP)


def _named(batch: dict[str, Any]) -> list[str]:
    return [f"{s} {i[0]}" for s, i in zip(batch["seq"], batch["frame_index"], strict=True)]


@contextmanager
def forked(store: Path, state: None) -> Iterator[Stream]:
    """PyTorch's DataLoader over our samples."""
    from torch.utils.data import DataLoader

    from spikedeblur.pipeline.train.data.loader import collate

    samples = _clip_samples(store)
    epoch = _Epoch(len(samples.index), lambda clip: samples.sample(0, clip))
    loader = DataLoader(
        epoch, BATCH, True, num_workers=1, collate_fn=collate, multiprocessing_context="fork"
    )
    yield map(_named, loader), lambda taken: None


@contextmanager
def mapped(folder: Path, state: None) -> Iterator[Stream]:
    """PyTorch's DataLoader over memory-mapped uint8 .npy."""
    from torch.utils.data import DataLoader

    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    epoch = _Epoch(
        len(arrays["voxels"]),
        lambda i: _cropped({"number": i, **{name: a[i] for name, a in arrays.items()}}),
    )
    loader = DataLoader(epoch, BATCH, True, num_workers=1, multiprocessing_context="fork")
    yield map(_numbered, loader), lambda taken: None


class _Epoch:
    """A data set for DataLoader."""

    def __init__(self, length: int, read: Callable[[int], dict[str, Any]]) -> None:
        self.length, self.read = length, read

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index)


def _cropped(sample: dict[str, Any]) -> dict[str, Any]:
    """Cut a crop from a window's whole arrays."""
    height, width = sample["blur"].shape[:2]
    rng = np.random.default_rng()
    top, left = int(rng.integers(height - CROP + 1)), int(rng.integers(width - CROP + 1))
    y, x = slice(top, top + CROP), slice(left, left + CROP)
    return {
        "voxels": sample["voxels"][:, y, x].copy(),
        "blur": sample["blur"][y, x].copy(),
        "sharp": sample["sharp"][y, x].copy(),
        "number": int(sample["number"]),
    }


def _numbered(batch: dict[str, Any]) -> list[str]:
    return [str(int(number)) for number in batch["number"]]


@contextmanager
def mds(folder: Path, state: dict[str, Any] | None) -> Iterator[Stream]:
    """MosaicML Streaming."""
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Windows(StreamingDataset):
        def __getitem__(self, at: int) -> dict[str, Any]:
            return _cropped(super().__getitem__(at))

    clean_stale_shared_memory()
    windows = Windows(local=str(folder), shuffle=True, batch_size=BATCH, num_canonical_nodes=1)
    loader = StreamingDataLoader(windows, batch_size=BATCH, num_workers=1)
    if state:
        loader.load_state_dict(state)
    yield map(_numbered, loader), lambda taken: loader.state_dict()


@contextmanager
def litdata(folder: Path, state: dict[str, Any] | None) -> Iterator[Stream]:
    """LitData."""
    from litdata import StreamingDataLoader, StreamingDataset

    class Windows(StreamingDataset):
        def __getitem__(self, at: Any) -> dict[str, Any]:
            return _cropped(super().__getitem__(at))

    loader = StreamingDataLoader(
        Windows(str(folder), shuffle=True), batch_size=BATCH, num_workers=1
    )
    if state:
        loader.load_state_dict(state)
    yield map(_numbered, loader), lambda taken: loader.state_dict()


OURS, PLAIN = "ours, packed", "DataLoader by fork, uint8 .npy mapped"
FORKED = "DataLoader by fork, our packed"
STREAMS: dict[str, tuple[Callable[[Path, Any], Any], str, str]] = {
    OURS: (ours, "packed.zarr", "spikedeblur.pipeline.train.data.loader"),
    "ours, counts": (ours, "none.zarr", "spikedeblur.pipeline.train.data.loader"),
    FORKED: (forked, "packed.zarr", "spikedeblur.pipeline.train.data.loader"),
    PLAIN: (mapped, "npy", "torch.utils.data"),
    "MosaicML Streaming": (mds, "mds", "streaming"),
    "LitData": (litdata, "litdata", "litdata"),
}
"""What opens it, its folder, and a module that is imported before the clock starts."""


def streams(folder: Path, manifest: Path, repeats: int = 3) -> list[Figure]:
    """Measure in `folder`, each in a process of its own; `manifest` is what `store.record` wrote.

    All within one epoch, so that nobody waits for the start of another.
    """
    _write_streams(folder, manifest)
    names = [name for name, (*_, module) in STREAMS.items() if _is_installed(module)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            runs[name].append(_in_a_process("stream", name, folder / STREAMS[name][1]))

    def middle(name: str, what: str) -> float:
        return median(run[what] for run in runs[name])

    def in_turns(name: str, what: str, against: str) -> float:
        pairs = zip(runs[name], runs[against], strict=True)
        return median(run[what] / other[what] for run, other in pairs)

    found = [
        Figure(
            f"stream: {name}",
            in_turns(name, "rate", OURS),
            "of the rate of ours, packed",
            detail=f"{middle(name, 'rate'):.0f} windows/s; waits {middle(name, 'wait'):.0f} % with "
            f"{1e3 * CONSUMER_SECONDS:.0f} ms a batch; {middle(name, 'private'):.0f} MB private; "
            f"first batch {middle(name, 'first'):.2f} s, "
            f"{in_turns(name, 'first', OURS):.2f} of ours; {_resumption(runs[name])}",
        )
        for name in names
    ]
    rate, first = 1 / in_turns(PLAIN, "rate", OURS), in_turns(OURS, "first", FORKED)
    return [
        *found,
        Figure("stream: our rate, packed", rate, f"x {PLAIN}", 0.2),
        Figure("stream: our first batch, packed", first, f"x {FORKED}", 2, at_most=True),
        Figure("stream: our worker", middle(OURS, "private"), "MB private", 250, at_most=True),
    ]


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def _resumption(runs: Iterable[dict[str, Any]]) -> str:
    exact = {run["resumed"] for run in runs}
    if exact == {None}:
        return "has no state to resume from"
    return "resumes exactly" if exact == {True} else "does NOT resume exactly"


def _in_a_process(*words: object) -> dict[str, Any]:
    # By -c, so that spawned workers don't import this module, as they would by -m.
    code = "from tests.benchmarks.peers import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _write_streams(folder: Path, manifest: Path) -> None:
    """Write the same windows as stores, as .npy, and in the formats of what is installed."""
    folder.mkdir()
    content = read_manifest(manifest)
    (recorded,) = content.sequences
    several = tuple(
        recorded.model_copy(update={"seq": f"train/bench/{n}"}) for n in range(SEQUENCES)
    )
    copies = manifest.with_name("copies.json")
    write_manifest(copies, content.model_copy(update={"sequences": several}))
    for name, options in (
        ("packed", VoxelizeOptions(kind="packed")),
        ("none", VoxelizeOptions(kind="counts", codec="none")),
    ):
        voxelize_manifest(copies, folder / f"{name}.zarr", options, Workers(count=1))
    npy = folder / "npy"
    npy.mkdir()
    clips = [s.clip(0, s.length) for s in open_store(folder / "none.zarr")]
    for name, parts in zip(("blur", "sharp", "voxels"), zip(*clips, strict=True), strict=True):
        np.save(npy / f"{name}.npy", np.concatenate(parts))
    if _is_installed("streaming"):
        _in_a_process("write-mds", npy, folder / "mds")
    if _is_installed("litdata"):
        _in_a_process("write-litdata", npy, folder / "litdata")


def _write_mds(npy: Path, out: Path) -> None:
    from streaming import MDSWriter

    arrays = _Window(npy)
    columns = {
        name: f"ndarray:{array.dtype}:{','.join(map(str, array.shape))}"
        for name, array in arrays(0).items()
        if name != "number"
    }
    with MDSWriter(out=str(out), columns={"number": "int", **columns}) as writer:
        for number in range(len(arrays)):
            writer.write(arrays(number))


def _write_litdata(npy: Path, out: Path) -> None:
    from litdata import optimize

    window = _Window(npy)
    optimize(window, list(range(len(window))), str(out), chunk_bytes="64MB", num_workers=1)


class _Window:
    """A window's whole arrays, by number."""

    def __init__(self, npy: Path) -> None:
        self.npy = npy

    def __call__(self, number: int) -> dict[str, Any]:
        arrays = {name: np.load(self.npy / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        return {"number": number, **{name: np.array(a[number]) for name, a in arrays.items()}}

    def __len__(self) -> int:
        return len(np.load(self.npy / "blur.npy", mmap_mode="r"))


def _stream(name: str, folder: Path) -> dict[str, Any]:
    """Measure one of `STREAMS` in this process."""
    open_stream, _, module = STREAMS[name]
    if open_stream is ours:
        start_fork_server()  # as `spikedeblur train` does
    importlib.import_module("torch.utils.data")  # a trainer has it loaded
    importlib.import_module(module)
    began = time.perf_counter()
    with open_stream(folder, None) as (batches, _):
        next(batches)
        first = time.perf_counter() - began
    with open_stream(folder, None) as (batches, _):
        next(batches)
        began = time.perf_counter()
        rate = sum(map(len, batches)) / (time.perf_counter() - began)
    with open_stream(folder, None) as (batches, _):
        next(batches)
        began, consumed = time.perf_counter(), 0.0
        for _ in batches:
            got = time.perf_counter()
            time.sleep(CONSUMER_SECONDS)
            consumed += time.perf_counter() - got
        wait = 1 - consumed / (time.perf_counter() - began)
    with open_stream(folder, None) as (batches, state):
        for _ in range(TAKEN):
            next(batches)
        saved, private = state(TAKEN), _private_bytes()
        expected = list(batches)
    resumed = None
    if saved is not None:
        with open_stream(folder, saved) as (batches, _):
            resumed = list(batches) == expected
    return {
        "first": first,
        "rate": rate,
        "wait": 100 * wait,
        "private": private / 1e6,
        "resumed": resumed,
    }


def _private_bytes() -> int:
    """Return the bytes that the largest process which this one started shares with none."""
    sizes = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            sizes.append(int(process.memory_full_info().uss))
    return max(sizes, default=0)


def main() -> int:
    """Measure alone, print and judge; or do one part, for which a process was started."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers")
    parser.add_argument("part", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.part:
        part, first, second = options.part
        if part == "stream":
            answer = _stream(first, Path(second))
        else:
            write = {"write-mds": _write_mds, "write-litdata": _write_litdata}[part]
            answer = write(Path(first), Path(second))
        print(f"\n{json.dumps(answer)}")
        return 0
    from .store import record

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = record(folder / "recording")
        for kind, how in (
            ("packed", VoxelizeOptions(kind="packed")),
            ("none", VoxelizeOptions(kind="counts", codec="none")),
        ):
            voxelize_manifest(manifest, folder / f"{kind}.zarr", how, Workers(count=1))
        figures = crops(folder, 3 * options.repeats)
        print("\n".join(figure.line() for figure in figures), flush=True)
        figures = [*figures, *streams(folder / "streams", manifest, options.repeats)]
        print("\n".join(figure.line() for figure in figures if "stream" in figure.what))
    print(missing())
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
