"""Files of an array, made by zarr-python in memory: who calls this writes them to the store.

So a file is there whole or not at all, on disk before its sequence is marked, and its checksum is
that of the bytes that were handed over.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..storage.base import Buffer
from .arrays import LEVEL, METADATA, ArraySpec

_AT_ONCE = {"codec_pipeline.batch_size": 2**16}
"""Chunks that one task of zarr's event loop encodes: one, its default, takes twice the time."""


def array_files(spec: ArraySpec, start: int, data: np.ndarray) -> dict[str, Buffer]:
    """Return the files of a part of an array, by path relative to the sequence.

    Args:
        spec: the array.
        start: place of `data` along the first axis; a file begins there.
        data: (n, ...) of the array's dtype, up to the end of a file or of the array.

    Returns:
        the metadata, if the part is the first, and files with data.
    """
    import numcodecs.blosc as blosc
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec
    from zarr.core.buffer import Buffer as ZarrBuffer

    # Several threads finish Blosc's blocks in any order, but equal input must give equal files.
    blosc.use_threads = False
    held: dict[str, ZarrBuffer] = {}
    compressor = BloscCodec(
        cname=spec.codec if spec.codec != "none" else "lz4",
        clevel=LEVEL.get(spec.codec, 0),
        shuffle="bitshuffle",
        typesize=spec.itemsize,
    )
    with zarr.config.set(_AT_ONCE):
        array: Any = zarr.create_array(
            zarr.storage.MemoryStore(held),
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            shards=spec.shards,
            serializer=BytesCodec() if spec.shards is None else "auto",
            compressors=None if spec.codec == "none" else [compressor],
            dimension_names=spec.dimensions,
            fill_value=0,
            # A chunk that is missing is damage, even where all of it is zeros.
            config={"write_empty_chunks": True},
        )
        array[start : start + len(data)] = data
    if start:
        del held[METADATA]
    return {f"{spec.name}/{key}": held[key].as_numpy_array().data for key in sorted(held)}


_local = threading.local()


def scratch(name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Return an array to fill, the same memory whenever this thread asks for `name`.

    Fresh pages cost more than the work done in them: the system clears them one fault at a time.
    """
    held: np.ndarray | None = getattr(_local, name, None)
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if held is None or held.nbytes < nbytes:
        held = np.empty(nbytes, np.uint8)
        setattr(_local, name, held)
    return held[:nbytes].view(dtype).reshape(shape)
