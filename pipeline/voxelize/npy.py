"""Kind npy: a sequence as files of the unified layout, for tools that know no Zarr.

    <seq>/spike_vox/000016.npy   counts (K, h, w)
    <seq>/spike/000016.dat       the exposure's spikes; spikes.json beside it has their geometry
    <seq>/{blur,sharp}/000016.*  frames, copied

Where the store is the data set itself, only `spike_vox` is written.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..align.manifest import Manifest
from ..spikes.dat import pack_spikes
from ..spikes.geometry import SpikeGeometry
from ..spikes.sidefile import SideFile, write_folder_side_file
from ..storage.base import Storage, StoreError
from ..storage.checksum import SummedFiles
from ..store.records import NPY_VOXELS
from .plan import SequencePlan, ShardTask
from .sources import TaskSources


def require_folder_splits(manifest: Manifest) -> None:
    """Refuse splits that the unified layout, where the folder is the split, can't express."""
    moved = [s for s in manifest.sequences if s.split != s.folder_split]
    if moved:
        raise StoreError(
            f"{moved[0].seq} and {len(moved) - 1} more are in another split than their folders "
            "say, which the unified layout can't express; take --format zarr, or undo it with "
            "`spikedeblur split --by folders`"
        )


def write_side_file(store: Storage, plan: SequencePlan) -> None:
    """Write a sequence's spikes.json, which readers of its `.dat` files need."""
    record = plan.record
    folder = Path(store.location, record.seq, "spike")
    folder.mkdir(parents=True, exist_ok=True)
    geometry = _cut(plan.tasks[0].geometry).describe()
    write_folder_side_file(folder, SideFile(geometry=geometry, rate=record.rate, gain=record.gain))


def write_windows(task: ShardTask, sources: TaskSources, files: SummedFiles) -> None:
    """Write the files of a task's windows."""
    record, beside = task.record, task.target.only_voxels
    for window in task.windows:
        # Elsewhere the frame's number: source names such as 0007_002 mean another number there.
        stem = PurePosixPath(window.blur).stem if beside else f"{window.frame_index:06d}"
        spikes = sources.spikes(window.spikes, window.start, window.stop)
        counts = spikes.counts(record.bins, window.start, window.stop)
        array = io.BytesIO()
        np.save(array, counts.astype(record.voxel_dtype, copy=False))
        files.write(f"{NPY_VOXELS}/{stem}.npy", [array.getbuffer()])
        if beside:
            continue
        packed = pack_spikes(spikes.read(window.start, window.stop), _cut(task.geometry))
        files.write(f"spike/{stem}.dat", [packed.data])
        for kind, source in (("blur", window.blur), ("sharp", window.sharp)):
            if source is not None:
                sources.image(source)  # a frame that can't be read is not copied
                content = sources.path(source).read_bytes()
                files.write(f"{kind}/{stem}{PurePosixPath(source).suffix}", [content])


def _cut(geometry: SpikeGeometry) -> SpikeGeometry:
    """Return the geometry of the spikes written: only pixels, and of one rate under all filters."""
    return replace(geometry, width=geometry.shape[1], drop_columns=(), bayer=None)
