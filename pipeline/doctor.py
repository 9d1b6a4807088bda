"""What this machine offers, and what to do where something is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from .. import __version__

_CORE = ("torch", "torchvision", "numpy", "zarr", "numcodecs", "dask", "distributed", "pillow")
_EXTRAS = {
    "zarrs": "faster Zarr codecs: pip install zarrs",
    "h5py": "HDF5 input of `convert`: pip install 'spikedeblur[hdf5]'",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    found: str
    ok: bool = True
    advice: str = ""


def examine() -> list[Finding]:
    """Look at Python, libraries, processor, memory, disk, GPU and codecs; changes nothing."""
    return [
        Finding("spikedeblur", __version__),
        Finding("Python", f"{platform.python_version()} on {platform.machine()}"),
        *(_library(name) for name in _CORE),
        *(_extra(name, advice) for name, advice in _EXTRAS.items()),
        Finding("cores", str(len(os.sched_getaffinity(0)))),
        _memory(),
        _disk(),
        *_torch(),
        _codec(),
    ]


def _library(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", ok=False, advice="install spikedeblur again: make install")


def _extra(name: str, advice: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(name, "not installed (optional)", advice=advice)
    return Finding(name, importlib.metadata.version(name))


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit_file = Path("/sys/fs/cgroup/memory.max")
    limit = limit_file.read_text().strip() if limit_file.is_file() else "max"
    usable = min(total, int(limit)) if limit.isdigit() else total
    found = f"{usable / 2**30:.1f} GiB"
    if usable < total:
        found += f" (cgroup limit; the machine has {total / 2**30:.1f})"
    if usable < 8 * 2**30:
        return Finding(
            "memory",
            found,
            ok=False,
            advice="train with a smaller CROP_SIZE, restore with --tile 128",
        )
    return Finding("memory", found)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 2**30:.1f} GiB free here"
    if free < 2**30:
        return Finding("disk", found, ok=False, advice="make space, or work on another disk")
    return Finding("disk", found)


def _torch() -> list[Finding]:
    import torch

    findings = [Finding("torch threads", str(torch.get_num_threads()))]
    if not torch.cuda.is_available():
        build = torch.version.cuda or "none"
        return [
            *findings,
            Finding(
                "GPU",
                f"none (torch built for CUDA {build})",
                advice="quickstart.yaml trains on the CPU; the baseline needs a GPU",
            ),
        ]
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: TRAIN.AMP fp16"
        memory = properties.total_memory / 2**30
        findings.append(Finding(f"GPU {i}", f"{properties.name}, {memory:.0f} GiB, {bf16}"))
    return findings


def _codec() -> Finding:
    import numpy as np
    from numcodecs import Blosc

    codec = Blosc("lz4", shuffle=Blosc.BITSHUFFLE)
    sample = np.arange(4096, dtype=np.uint8)
    if codec.decode(codec.encode(sample)) != sample.tobytes():
        return Finding("Blosc lz4", "wrong bytes", ok=False, advice="reinstall numcodecs")
    return Finding("Blosc lz4", "works")
