"""A manifest and the files that it names, in a folder or in a bucket.

A manifest at a URL has its data set in the same bucket, at the path `root` relative to it. The
files that a task reads are fetched whole into a temporary folder, and kept until the thread comes
to another sequence. A bucket keeps no times of change: a file of the recorded size counts as
unchanged until its content is hashed.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ..align.check.job import ManifestCheck, check_manifest
from ..align.manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    ManifestError,
    parse_manifest,
    read_manifest,
)
from ..calibrate.belongs import require_fit, require_same_way_up
from ..calibrate.sensor_file import read_sensor
from ..frames.images import as_type, frame_type, image_shape, read_frame
from ..host.files import StrPath, all_inside, inside, sha256_file
from ..host.pieces import HashForm, PieceHasher, hash_bytes, hash_file
from ..host.reading import open_file
from ..host.reporter import SILENT, Reporter
from ..spikes.clock import SpikeWindowError
from ..spikes.named_sensor import require_sensor
from ..spikes.rolling import open_spikes, row_delays
from ..spikes.sensor import Sensor, SensorError
from ..spikes.sidefile import beside, read_side_file
from ..spikes.stream import SpikeStream
from ..storage.base import Storage, StoreError, check_key
from ..storage.fetch import fetch
from ..storage.locate import local_path, open_storage
from .plan import FrameForm, ShardTask


class ManifestSources:
    """Files of a manifest's data set.

    Args:
        root: folder of the data set.
        named_in: path of the manifest, for messages.
        links: links of a local data set that lead out of its folder, as `align` recorded them.
    """

    def __init__(
        self, root: Storage, named_in: str, links: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        self._links = links
        self._named_in = named_in
        self._sizes: dict[str, int] | None = None

    def look(self, sequence: AlignedSequence) -> dict[str, FileRecord]:
        """Return the present state of each file of a sequence, by path relative to the root.

        Raises:
            StoreError: one is missing, or can't be looked at.
            UnsafePathError: one is outside of the root.
        """
        if not self.root.is_local:
            return self._look_in_bucket(sequence)
        seen: dict[str, FileRecord] = {}
        paths = all_inside(Path(self.root.location), sequence.files, self._named_in, self._links)
        for relative, recorded in sequence.files.items():
            path = paths[relative]
            try:
                stat = os.stat(path)  # noqa: PTH116  # a Path costs more than looking
            except OSError as error:
                raise StoreError(
                    f"{sequence.seq}: {path} is in the manifest but can't be read "
                    f"({error.strerror}); restore it, or run `spikedeblur align` again"
                ) from error
            now = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            seen[relative] = recorded.model_copy(update=now)
        return seen

    def sha256(self, relative: str, form: HashForm) -> str:
        """Return the hash of a file in a form.

        Raises:
            FileNotFoundError: the file isn't there.
            StoreError: the file can't be read.
        """
        if self.root.is_local:
            path = inside(Path(self.root.location), relative, self._named_in, self._links)
            return hash_file(path, path.stat().st_size, form)
        self.size(relative)  # refuses what isn't there
        digest = PieceHasher(form)
        for piece in self.root.stream(relative):
            digest.update(piece)
        return digest.hexdigest()

    def size(self, relative: str) -> int:
        """Return a file's size in bytes; raises as `sha256` does."""
        size = self.root.size(relative)
        if size is None:
            raise FileNotFoundError(relative)
        return size

    def frame_form(self, sequence: AlignedSequence) -> FrameForm:
        """Return size and type of a sequence's frames, from its first window's headers.

        Raises:
            StoreError: the sequence has no window.
        """
        if not sequence.windows:
            raise StoreError(f"{sequence.seq}: the manifest has no window of it; run `align` again")
        first = sequence.windows[0]
        names = [first.blur, *([first.sharp] if first.sharp else [])]
        if self.root.is_local:
            root = Path(self.root.location)
            return _form([inside(root, name, self._named_in, self._links) for name in names])
        with tempfile.TemporaryDirectory() as folder:
            fetch(self.root, names, Path(folder))
            return _form([Path(folder, name) for name in names])

    def sensor(self, sequence: AlignedSequence) -> Sensor | None:
        """Return the sensor of a sequence's spikes; None: neither manifest nor side file names one.

        Raises:
            SensorError: it can't be read, changed since it was aligned, or is another camera's.
        """
        if not self.root.is_local:
            return self._sensor_in_bucket(sequence)
        root = Path(self.root.location)
        dat = root / sequence.windows[0].spikes if sequence.windows else root
        if sequence.sensor is not None:
            path, named_in = sequence.sensor.at(root, self._named_in), "the manifest"
        else:
            side = read_side_file(dat) if dat.is_file() else None
            if side is None or side.sensor is None:
                return None
            path, named_in = beside(dat, side.sensor), "its side file"
        geometry = sequence.spike_geometry()
        try:
            file = read_sensor(path)
            require_fit(file, sequence.seq, geometry)
            if sequence.windows:
                cut = sequence.cut(sequence.windows[0])
                require_same_way_up(file, dat, geometry, cut)
        except SensorError as error:
            raise SensorError(
                f"{dat}: the sensor that {named_in} names can't be used: {error}"
            ) from error
        return file.sensor

    def _sensor_in_bucket(self, sequence: AlignedSequence) -> Sensor | None:
        """Return the sensor that the manifest names; side files are not looked for there."""
        if sequence.sensor is None:
            return None
        scheme, _, rest = self.root.location.partition("://")
        bucket, _, prefix = rest.partition("/")
        key = posixpath.normpath(posixpath.join(prefix, sequence.sensor.file))
        if key.startswith(".."):
            raise SensorError(
                f"{self._named_in}: the sensor of {sequence.seq}, {sequence.sensor.file!r}, lies "
                "outside of the bucket; copy it beside the data set, and align again"
            )
        place = open_storage(f"{scheme}://{bucket}/{key}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "sensor")
            fetch(place, place.sizes(), path)
            require_sensor(path, sequence.sensor.sha256, self._named_in)
            file = read_sensor(path)
        require_fit(file, sequence.seq, sequence.spike_geometry())
        return file.sensor

    def _look_in_bucket(self, sequence: AlignedSequence) -> dict[str, FileRecord]:
        if self._sizes is None:
            self._sizes = self.root.sizes()
        seen: dict[str, FileRecord] = {}
        for relative, recorded in sequence.files.items():
            size = self._sizes.get(check_key(self._named_in, relative))
            if size is None:
                raise StoreError(
                    f"{sequence.seq}: {self.root}/{relative} is in the manifest but not in the "
                    "bucket; copy it there, or run `spikedeblur align` again"
                )
            seen[relative] = recorded.model_copy(update={"size": size})
        return seen


def open_manifest(location: StrPath) -> tuple[Manifest, ManifestSources, str]:
    """Read a manifest in a folder or at a URL.

    Returns:
        the manifest, its files, and the SHA-256 of its content.

    Raises:
        ManifestError: no manifest is there, or its root leaves the bucket.
        StoreError: the URL or the bucket can't be used.
    """
    path = local_path(location)
    if path is not None:
        manifest = read_manifest(path)
        root = open_storage(manifest.root_folder(path))
        return manifest, ManifestSources(root, str(path), manifest.links), sha256_file(path)
    text = os.fspath(location)
    above, _, name = text.rpartition("/")
    content = open_storage(above).read(name)
    if content is None:
        raise ManifestError(f"{text}: no manifest there; copy it, or correct the URL")
    manifest = parse_manifest(content, text)
    scheme, _, rest = above.partition("://")
    bucket, _, prefix = rest.partition("/")
    folder = posixpath.normpath(posixpath.join(prefix, manifest.root)).removeprefix("./")
    if folder.startswith(".."):
        raise ManifestError(
            f"{text}: its data set's folder {manifest.root!r} lies outside of the bucket; copy "
            "manifest and data set so that they lie to each other as they did"
        )
    below = "" if folder == "." else f"/{folder}"
    root = open_storage(f"{scheme}://{bucket}{below}")
    return manifest, ManifestSources(root, text), hashlib.sha256(content).hexdigest()


def check_manifest_at(
    location: StrPath, *, workers: int | None = None, reporter: Reporter = SILENT
) -> ManifestCheck:
    """Check a manifest in a folder or at a URL, as `check_manifest` does.

    Files in a bucket are fetched into a temporary folder, a sequence at a time.
    """
    path = local_path(location)
    if path is not None:
        return check_manifest(path, workers=workers, reporter=reporter)
    manifest, sources, _ = open_manifest(location)

    @contextmanager
    def fetched(sequence: AlignedSequence) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as name:
            keys = sources.root.sizes_of(sequence.files)
            fetch(sources.root, keys, Path(name))
            for key in keys:
                changed = sequence.files[key].mtime_ns
                os.utime(Path(name, key), ns=(changed, changed))
            yield Path(name)

    return check_manifest(
        location,
        workers=workers,
        reporter=reporter,
        remote=(manifest, sources.root.location, fetched),
    )


class TaskSources:
    """Source files of a task, in a folder. Each is checked against the plan when first read."""

    def __init__(self, task: ShardTask, root: Path) -> None:
        self._task = task
        self._root = root
        self._links = dict(task.links)
        self._expected = {source.path: source for source in task.sources}
        self._open: tuple[str, SpikeStream] | None = None
        self.hashes: dict[str, dict[int, str]] = {}
        """Hash of each piece that is the task's to hash, by path and number."""
        for source in task.sources:
            for start, stop in source.reads:
                _read_ahead(root / source.path, start, stop)

    def path(self, relative: str) -> Path:
        """Return where a file is; raises `UnsafePathError` if that is outside of the folder."""
        return inside(self._root, relative, self._task.record.seq, self._links)

    def image(self, relative: str) -> np.ndarray:
        """Return a frame (H, W, 3) RGB, of the record's type.

        Raises:
            StoreError: it is not the file that was aligned and planned.
            SpikeDeblurError: it can't be read, or has another size than the first frame.
        """
        self._check(relative)
        path, record = self.path(relative), self._task.record
        frame = read_frame(path, record.frame_shape)
        return frame if record.kind == "npy" else as_type(frame, record.frame_dtype, path)

    def spikes(self, relative: str, start: int, stop: int) -> SpikeStream:
        """Open a recording, registered to the frames; refuse one without samples [start, stop)."""
        if self._open is None or self._open[0] != relative:
            self._check(relative)
            task, record = self._task, self._task.record
            rows, frame_rows = record.voxel_shape[0], record.frame_shape[0]
            delays = row_delays(record.readout, record.rate, rows, frame_rows)
            cut = self._expected[relative].cut
            file = open_spikes(self.path(relative), task.geometry, task.registration, delays, cut)
            self._open = relative, file
        file = self._open[1]
        first, end = file.whole
        if not first <= start < stop <= end:
            raise SpikeWindowError(
                f"{file.path}: a window needs spike samples {start} to {stop - 1}, but the file "
                f"has {first} to {end - 1}; run `align` again"
            )
        return file

    def hash_rest(self) -> None:
        """Hash the pieces that are the task's to hash, of files that it did not read otherwise."""
        for relative, expected in self._expected.items():
            if expected.pieces and relative not in self.hashes:
                self._check(relative)

    def _check(self, relative: str) -> None:
        path, expected = self.path(relative), self._expected[relative]
        hashes = self.hashes.get(relative)
        if hashes is None:
            spans = expected.form.spans(expected.size)
            hashes = {i: hash_bytes(path, *spans[i]) for i in expected.pieces}
        stat = path.stat()
        plain = hashes.get(0) if expected.form.piece is None else None
        differs = None not in (plain, expected.sha256) and plain != expected.sha256
        if differs or (stat.st_size, stat.st_mtime_ns) != (expected.size, expected.mtime_ns):
            raise changed_since_aligned(self._task.record.seq, relative)
        self.hashes[relative] = hashes


def changed_since_aligned(seq: str, relative: str) -> StoreError:
    """Return the error for a source that is not what `align` saw."""
    return StoreError(
        f"{seq}: {relative} changed since it was aligned; run `spikedeblur align` again"
    )


def _form(frames: list[Path]) -> FrameForm:
    return FrameForm(image_shape(frames[0]), max(map(frame_type, frames), key=len))


def _read_ahead(path: Path, start: int, stop: int) -> None:
    """Let the system read bytes [start, stop) of a file while the one before is worked on."""
    # Reading a file that can't be opened fails with a message later.
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError), open_file(path, buffered=False) as file:
            os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_WILLNEED)


_held = threading.local()


def open_sources(task: ShardTask) -> TaskSources:
    """Return the task's sources, fetched into a folder if they are in a bucket.

    Raises:
        StoreError: one can't be fetched.
    """
    root = open_storage(task.target.root)
    if root.is_local:
        return TaskSources(task, Path(root.location))
    name = f"{root}/{task.record.seq}"
    if getattr(_held, "name", None) != name:
        if hasattr(_held, "folder"):
            _held.folder.cleanup()
        _held.folder, _held.name = tempfile.TemporaryDirectory(), name
    folder = Path(_held.folder.name)
    wanted = [source for source in task.sources if not (folder / source.path).exists()]
    fetch(root, [source.path for source in wanted], folder)
    for source in wanted:
        os.utime(folder / source.path, ns=(source.mtime_ns, source.mtime_ns))
    return TaskSources(task, folder)
