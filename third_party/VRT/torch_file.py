"""Torch files from anybody: refused if reading them could run code or take any memory.

`torch.load(weights_only=True)` runs no code, but a file of a kilobyte may still have it make two
gigabytes of zeros, or hold one number that a tensor of any shape repeats.
"""

from __future__ import annotations

import mmap
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...pipeline.host.reading import open_file

MOST_TIMES = 4
"""Largest size of all tensors and texts, over the file's: shared weights have several names."""

_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, names of its storages
_KNOWN = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)


def load_torch_file(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Any:
    """Return what a torch file holds: tensors and plain values.

    Memory is taken in proportion to the file's size, whatever the file says.

    Raises:
        pickle.UnpicklingError: It names anything but tensors and plain values.
        ValueError: It stands for more than it holds, or is nested too deeply.
        OSError, RuntimeError, EOFError, KeyError, AttributeError, TypeError: It can't be read.
    """
    size = Path(path).stat().st_size
    try:
        _require_known_names(Path(path), size)
        content = torch.load(path, map_location=device, weights_only=True)
        bytes_of_all = _expanded(content, {})
    except MemoryError as error:
        raise ValueError("it asks for more memory than there is") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if bytes_of_all > MOST_TIMES * size:
        raise ValueError(f"its {size} bytes stand for more than {MOST_TIMES} times as many")
    return content


def _require_known_names(path: Path, size: int) -> None:
    """Refuse what is neither a tensor nor a container: a name may stand for a large allocation."""
    with open_file(path) as file:
        if file.read(4) == _ZIP:  # torch's own test
            try:
                with zipfile.ZipFile(file) as parts:
                    if sum(part.file_size for part in parts.infolist()) > size:
                        raise ValueError("its parts are larger than the file")
                    for name in parts.namelist():
                        if name.endswith("data.pkl"):
                            with parts.open(name) as pickled:
                                _require_known(pickled)
            except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
                raise ValueError(f"cut or damaged: {error}") from error  # it may point outside
        elif size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pickled:
                for _ in range(_LEGACY_PICKLES):
                    try:
                        _require_known(pickled)
                    except ValueError:
                        return  # torch gets no further either, and says why


def _require_known(pickled: Any) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and not _KNOWN.fullmatch(str(argument)):
            raise pickle.UnpicklingError(f"it names {str(argument)[:80]}")


def _expanded(value: object, known: dict[int, float]) -> float:
    """Return the bytes of all tensors and texts in a value, counted each time they are named.

    Any other value counts as one byte, and so does a container; one that holds itself is infinite.
    """
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # for a container that is met again below itself
        parts: Iterable[object] = value
        if isinstance(value, dict):
            parts = (part for pair in value.items() for part in pair)
        known[id(value)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(value)]
