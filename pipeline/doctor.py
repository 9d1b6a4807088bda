"""What this machine offers, and what to do where something is missing."""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..version import __version__
from .host.machine import available_cores, cgroup_value
from .host.reporter import counted
from .spikes.intervals import compiled

_CORE = (
    "torch",
    "torchvision",
    "numpy",
    "zarr",
    "tensorstore",
    "numcodecs",
    "dask",
    "distributed",
    "pillow",
    "altair",
)

_EXTRAS = {
    "h5py": ("hdf5", "HDF5 input of `convert`"),
    "obstore": ("cloud", "stores in buckets"),
    "cv2": ("motion", "figures by motion in `evaluate`"),
    "av": ("video", "video files"),
    "onnxruntime": ("onnx", "`export` to ONNX"),
}
"""The extra that brings a module, and what the module is for, by the module's name."""

PROBE_BYTES = 64 * 2**20
"""Bytes that are written to measure the disk."""

_SLOW_DISK = 100e6
_FILES = 1024
_SMALL_MEMORY = 8 * 2**30
_TOO_LITTLE_MEMORY = 2 * 2**30
_SMALL_SHM = 2**30
_LITTLE_SPACE = 2**30


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line of the report."""

    what: str
    found: str
    ok: bool = True
    """False where something must be mended before work can begin."""
    advice: str = ""
    """What to do; beside a finding that is ok, what would be better."""


Findings = Iterator[Diagnosis]


def _bad(what: str, found: str, advice: str) -> Diagnosis:
    """Return a line about something that must be mended."""
    return Diagnosis(what, found, ok=False, advice=advice)


def examine() -> list[Diagnosis]:
    """Look at Python, libraries, processor, memory, disk, GPU and codecs.

    A file of `PROBE_BYTES` is written in the current folder and removed; nothing else changes.
    """
    checks = (
        _software,
        _clashes,
        _extras,
        _light,
        _cores,
        _memory,
        _limits,
        _disk,
        _torch,
        _codecs,
    )
    return [finding for check in checks for finding in check()]


def _software() -> Findings:
    yield Diagnosis("spikedeblur", __version__)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    advice = "tested on Linux only; elsewhere some limits differ"
    yield Diagnosis("Python", found, advice="" if sys.platform == "linux" else advice)
    for name in _CORE:
        version = _version(name)
        if version is None:
            yield _bad(name, "missing", "install spikedeblur again: make install")
        else:
            yield Diagnosis(name, version)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _clashes() -> Findings:
    """Yield versions that are known not to work, together or at all."""
    dask, distributed = _version("dask"), _version("distributed")
    if dask != distributed:
        found = f"dask {dask} beside distributed {distributed}"
        advice = f"one release of both: pip install distributed=={dask}"
        yield _bad("Dask", found, advice)
    try:
        import torchvision  # noqa: F401  # loads its operators, which fail if torch is another
    except (ImportError, RuntimeError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "torch and torchvision of one release: pip install -c constraints.txt -e ."
        yield _bad("torchvision", f"does not load: {first}", advice)
    numpy = _version("numpy") or "0"
    if int(numpy.split(".")[0]) < 2:
        yield _bad("numpy", numpy, "pip install 'numpy>=2'")


def _extras() -> Findings:
    for module, (extra, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            advice = f"for {purpose}: pip install 'spikedeblur[{extra}]'"
            yield Diagnosis(module, "not installed (optional)", advice=advice)
        else:
            yield Diagnosis(module, f"there, for {purpose}")


def _light() -> Findings:
    """Yield which way light of spikes is made, of two that give the same numbers."""
    version = _version("numba")
    if compiled() is not None:
        yield Diagnosis("light of spikes", f"compiled by numba {version}")
    elif version is None:
        advice = "in half of the time or less with numba: pip install 'spikedeblur[numba]'"
        yield Diagnosis("light of spikes", "by NumPy", advice=advice)
    else:
        advice = f"numba {version} does not load; one that fits: pip install -U numba"
        yield Diagnosis("light of spikes", "by NumPy", advice=advice)


def _cores() -> Findings:
    found, advice = str(available_cores()), ""
    quota = cgroup_value("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        share = int(quota[0]) / int(quota[1])
        if share < available_cores():
            found += f", of which the container may use {share:g}"
            whole = max(int(share), 1)
            advice = (
                f"give --workers {whole} and TRAIN.THREADS={whole}: more would wait for each other"
            )
    yield Diagnosis("cores", found, advice=advice)


def _memory() -> Findings:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_value("memory.max") or cgroup_value("memory/memory.limit_in_bytes")
    usable = min(total, int(limit)) if limit.isdigit() else total
    found = f"{usable / 2**30:.1f} GiB"
    if usable < total:
        found += f" (limit of the container; the machine has {total / 2**30:.1f})"
    advice = "train with a smaller DATA.CROP_SIZE or TRAIN.MEMORY_BUDGET, restore --tile 128"
    small = usable < _SMALL_MEMORY
    ok = usable >= _TOO_LITTLE_MEMORY
    yield Diagnosis("memory", found, ok=ok, advice=advice if small else "")


def _limits() -> Findings:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _FILES
    advice = f"ulimit -n {hard if hard > 0 else _FILES} before you start"
    yield Diagnosis("open files", str(soft), ok=enough, advice="" if enough else advice)
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        advice = "in Docker: --shm-size=2g, for training on several GPUs"
        found = f"{size / 2**30:.1f} GiB"
        yield Diagnosis("shared memory", found, advice="" if size >= _SMALL_SHM else advice)


def _disk() -> Findings:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    found = f"{free / 2**30:.1f} GiB free in {here}"
    if free < _LITTLE_SPACE:
        yield _bad("disk", found, "make space, or work on another disk")
        return
    try:
        rate = _writing_rate(here)
    except OSError as error:
        advice = "work in a folder that you may write to"
        yield _bad("disk", f"{found}, {error.strerror}", advice)
        return
    advice = "" if rate >= _SLOW_DISK else "stores and runs on a local disk are faster"
    yield Diagnosis("disk", f"{found}, writes {rate / 1e6:.0f} MB/s", advice=advice)
    with tempfile.TemporaryFile(dir=here) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Diagnosis("file locks", "work here")
        except OSError as error:
            advice = "this file system can't keep two jobs apart; work on another one"
            yield _bad("file locks", f"refused here: {error.strerror}", advice)


def _writing_rate(folder: Path) -> float:
    """Return how many bytes a second reach the disk of a folder."""
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        for _ in range(PROBE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return PROBE_BYTES / (time.perf_counter() - began)


def _torch() -> Findings:
    try:
        import torch

        from .train.precision import cpu_computes_bf16
    except ImportError as error:
        yield _bad("torch", f"does not load: {error}", "make install")
        return
    cpu = "bf16" if cpu_computes_bf16() else "no bf16 instructions: trains in float32"
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    yield Diagnosis("CPU", f"{capability}, {counted(threads, 'thread')}, {cpu}")
    build = torch.version.cuda
    if not torch.cuda.is_available():
        if Path("/proc/driver/nvidia/version").is_file() or Path("/dev/nvidia0").exists():
            advice = (
                f"torch is built for CUDA {build}: update the driver, or install a torch for an "
                "older CUDA"
                if build
                else "torch is built without CUDA: install one with it"
            )
            yield _bad("GPU", "one is there, and torch can't use it", advice)
        else:
            advice = "quickstart.yaml and small.yaml train on the CPU; the baseline needs a GPU"
            yield Diagnosis("GPU", f"none (torch for CUDA {build or 'none'})", advice=advice)
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(i)
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        bf16 = "bf16" if native else "no bf16: TRAIN.AMP auto takes fp16"
        memory = properties.total_memory / 2**30
        found = f"{properties.name}, {memory:.0f} GiB, {bf16}, CUDA {build}"
        advice = "" if memory >= 16 else "for the baseline, TRAIN.MEMORY_BUDGET=auto"
        yield Diagnosis(f"GPU {i}", found, advice=advice)


def _codecs() -> Findings:
    """Yield for each codec of a store whether it gives back what was written."""
    import numpy as np
    import zarr
    from numcodecs import Blosc

    sample = np.arange(4096, dtype=np.uint8)

    def verdict(what: str, back: bytes, package: str) -> Diagnosis:
        if back == sample.tobytes():
            return Diagnosis(what, "works")
        return _bad(what, "wrong bytes", f"reinstall {package}")

    for name, codec in (("lz4", Blosc("lz4", shuffle=Blosc.BITSHUFFLE)), ("zstd", Blosc("zstd"))):
        yield verdict(f"Blosc {name}", codec.decode(codec.encode(sample)), "numcodecs")
    store = zarr.create_array({}, shape=(4096,), chunks=(512,), shards=(2048,), dtype="uint8")
    store[:] = sample
    yield verdict("Zarr v3 shards", np.asarray(store[:]).tobytes(), "zarr")
