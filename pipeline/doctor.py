"""What this machine offers, and what to do where something is missing.

Each finding is one line. `ok` is false where something must be mended before work can begin; an
advice beside a finding that is ok says what would be better.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import __version__

_CORE = (
    "torch",
    "torchvision",
    "numpy",
    "zarr",
    "numcodecs",
    "dask",
    "distributed",
    "pillow",
    "altair",
    "vl-convert-python",
)

_EXTRAS = {
    "zarrs": ("fast", "faster Zarr codecs"),
    "h5py": ("hdf5", "HDF5 input of `convert`"),
    "obstore": ("cloud", "stores in buckets"),
    "panel": ("view", "`spikedeblur view`"),
    "cv2": ("motion", "figures by motion in `evaluate`"),
    "av": ("video", "video files"),
    "onnxruntime": ("onnx", "`export` to ONNX"),
}
"""Module, the extra that brings it, and what it is for."""

PROBE_BYTES = 64 * 2**20
"""Written and read where work is done, to measure the disk."""

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
    advice: str = ""


def examine() -> list[Diagnosis]:
    """Look at Python, libraries, processor, memory, disk, GPU and codecs.

    A file of `PROBE_BYTES` is written in the current folder and removed; nothing else changes.
    """
    checks: tuple[Callable[[], list[Diagnosis]], ...] = (
        lambda: [Diagnosis("spikedeblur", __version__)],
        _python,
        lambda: [_library(name) for name in _CORE],
        _clashes,
        lambda: [_extra(module) for module in _EXTRAS],
        _cores,
        _memory,
        _limits,
        _disk,
        _torch,
        _codecs,
    )
    return [finding for check in checks for finding in check()]


def _python() -> list[Diagnosis]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return [
            Diagnosis("Python", found, advice="tested on Linux only; elsewhere some limits differ")
        ]
    return [Diagnosis("Python", found)]


def _library(name: str) -> Diagnosis:
    version = _version(name)
    if version is None:
        return Diagnosis(
            name, "missing", ok=False, advice="install spikedeblur again: make install"
        )
    return Diagnosis(name, version)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _clashes() -> list[Diagnosis]:
    """Return versions that are known not to work, together or at all."""
    found = []
    dask, distributed = _version("dask"), _version("distributed")
    if dask != distributed:
        found.append(
            Diagnosis(
                "Dask",
                f"dask {dask} beside distributed {distributed}",
                ok=False,
                advice=f"one release of both: pip install distributed=={dask}",
            )
        )
    try:
        import torchvision  # noqa: F401  # loads its operators, which fail if torch is another
    except (ImportError, RuntimeError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        found.append(
            Diagnosis(
                "torchvision",
                f"does not load: {first}",
                ok=False,
                advice="torch and torchvision of one release: pip install -c constraints.txt -e .",
            )
        )
    numpy = _version("numpy") or "0"
    if int(numpy.split(".")[0]) < 2:
        found.append(Diagnosis("numpy", numpy, ok=False, advice="pip install 'numpy>=2'"))
    return found


def _extra(module: str) -> Diagnosis:
    extra, purpose = _EXTRAS[module]
    if importlib.util.find_spec(module) is None:
        return Diagnosis(
            module,
            "not installed (optional)",
            advice=f"for {purpose}: pip install 'spikedeblur[{extra}]'",
        )
    return Diagnosis(module, f"there, for {purpose}")


def _cores() -> list[Diagnosis]:
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        share = int(quota[0]) / int(quota[1])
        if share < cores:
            return [
                Diagnosis(
                    "cores",
                    f"{cores}, of which the container may use {share:g}",
                    advice=f"give --workers {max(int(share), 1)} and TRAIN.THREADS="
                    f"{max(int(share), 1)}: more would wait for each other",
                )
            ]
    return [Diagnosis("cores", str(cores))]


def _memory() -> list[Diagnosis]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max") or _cgroup("memory/memory.limit_in_bytes")
    usable = min(total, int(limit)) if limit.isdigit() else total
    found = f"{usable / 2**30:.1f} GiB"
    if usable < total:
        found += f" (limit of the container; the machine has {total / 2**30:.1f})"
    if usable >= _SMALL_MEMORY:
        return [Diagnosis("memory", found)]
    advice = "train with a smaller DATA.CROP_SIZE or TRAIN.MEMORY_BUDGET, restore --tile 128"
    return [Diagnosis("memory", found, ok=usable >= _TOO_LITTLE_MEMORY, advice=advice)]


def _limits() -> list[Diagnosis]:
    found = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _FILES
    advice = "" if enough else f"ulimit -n {hard if hard > 0 else _FILES} before you start"
    found.append(Diagnosis("open files", str(soft), ok=enough, advice=advice))
    shared = Path("/dev/shm")
    if shared.is_dir():
        status = os.statvfs(shared)
        size = status.f_frsize * status.f_blocks
        advice = (
            "" if size >= _SMALL_SHM else "in Docker: --shm-size=2g, for training on several GPUs"
        )
        found.append(Diagnosis("shared memory", f"{size / 2**30:.1f} GiB", advice=advice))
    return found


def _disk() -> list[Diagnosis]:
    here = Path.cwd()
    status = os.statvfs(here)
    free = status.f_frsize * status.f_bavail
    found = f"{free / 2**30:.1f} GiB free in {here}"
    if free < _LITTLE_SPACE:
        return [Diagnosis("disk", found, ok=False, advice="make space, or work on another disk")]
    try:
        rate = _writing_rate(here)
    except OSError as error:
        advice = "work in a folder that you may write to"
        return [Diagnosis("disk", f"{found}, {error.strerror}", ok=False, advice=advice)]
    advice = "" if rate >= _SLOW_DISK else "stores and runs on a local disk are faster"
    return [Diagnosis("disk", f"{found}, writes {rate / 1e6:.0f} MB/s", advice=advice), _lock(here)]


def _writing_rate(folder: Path) -> float:
    """Return bytes a second that reach the disk."""
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        for _ in range(PROBE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return PROBE_BYTES / (time.perf_counter() - began)


def _lock(folder: Path) -> Diagnosis:
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Diagnosis(
                "file locks",
                f"refused here: {error.strerror}",
                ok=False,
                advice="this file system can't keep two jobs apart; work on another one",
            )
    return Diagnosis("file locks", "work here")


def _torch() -> list[Diagnosis]:
    try:
        import torch

        from .train.precision import cpu_computes_bf16
    except ImportError as error:
        return [Diagnosis("torch", f"does not load: {error}", ok=False, advice="make install")]
    threads = torch.get_num_threads()
    cpu = "bf16" if cpu_computes_bf16() else "no bf16 instructions: trains in float32"
    findings = [
        Diagnosis("CPU", f"{torch.backends.cpu.get_cpu_capability()}, {threads} threads, {cpu}")
    ]
    if not torch.cuda.is_available():
        build = torch.version.cuda
        there = Path("/proc/driver/nvidia/version").is_file() or Path("/dev/nvidia0").exists()
        if there:
            why = (
                f"torch is built for CUDA {build}: update the driver, or install a torch for an "
                "older CUDA"
                if build
                else "torch is built without CUDA: install one with it"
            )
            found = "one is there, and torch can't use it"
            return [*findings, Diagnosis("GPU", found, ok=False, advice=why)]
        advice = "quickstart.yaml and small.yaml train on the CPU; the baseline needs a GPU"
        return [
            *findings,
            Diagnosis("GPU", f"none (torch for CUDA {build or 'none'})", advice=advice),
        ]
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        bf16 = "bf16" if native else "no bf16: TRAIN.AMP auto takes fp16"
        memory = properties.total_memory / 2**30
        findings.append(
            Diagnosis(
                f"GPU {i}",
                f"{properties.name}, {memory:.0f} GiB, {bf16}, CUDA {torch.version.cuda}",
                advice="" if memory >= 16 else "for the baseline, TRAIN.MEMORY_BUDGET=auto",
            )
        )
    return findings


def _codecs() -> list[Diagnosis]:
    """Return whether a store's codecs give back what was written."""
    import numpy as np
    import zarr
    from numcodecs import Blosc

    sample = np.arange(4096, dtype=np.uint8)
    found = []
    for name, codec in (
        ("Blosc lz4", Blosc("lz4", shuffle=Blosc.BITSHUFFLE)),
        ("Blosc zstd", Blosc("zstd")),
    ):
        back = codec.decode(codec.encode(sample)) == sample.tobytes()
        found.append(
            Diagnosis(name, "works")
            if back
            else Diagnosis(name, "wrong bytes", ok=False, advice="reinstall numcodecs")
        )
    store = zarr.create_array({}, shape=(4096,), chunks=(512,), shards=(2048,), dtype="uint8")
    store[:] = sample
    back = bool((np.asarray(store[:]) == sample).all())
    found.append(
        Diagnosis("Zarr v3 shards", "work")
        if back
        else Diagnosis("Zarr v3 shards", "wrong bytes", ok=False, advice="reinstall zarr")
    )
    return found


def _cgroup(name: str) -> str:
    """Return what the container's limits say; empty where there are none."""
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""
