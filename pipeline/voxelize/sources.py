"""A manifest and the files that it names, in a folder or in a bucket.

A manifest at a URL has its data set in the same bucket, where its `root` leads from there. What a
task reads of it is fetched whole into a temporary folder, and kept until the thread comes to
another sequence. A bucket keeps no times of change: a file of the recorded size is taken for the
recorded one, until its content is hashed.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..align.check.job import ManifestCheck, check_manifest
from ..align.manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    ManifestError,
    parse_manifest,
    read_manifest,
)
from ..frames.images import image_shape
from ..host.files import all_inside, inside, sha256_file
from ..host.reporter import SILENT, Reporter
from ..storage.base import Storage, StoreError, check_key
from ..storage.fetch import fetch
from ..storage.locate import open_storage
from .plan import ShardTask


class ManifestSources:
    """A manifest's files.

    Args:
        root: the data set's folder.
        named_in: the manifest, for messages.
    """

    def __init__(self, root: Storage, named_in: str) -> None:
        self.root = root
        self._named_in = named_in
        self._sizes: dict[str, int] | None = None

    def look(self, sequence: AlignedSequence) -> dict[str, FileRecord]:
        """Return what each file of a sequence is now, by path relative to the root.

        Raises:
            StoreError: one is missing, or can't be looked at.
            UnsafePathError: one is outside of the root.
        """
        if not self.root.is_local:
            return self._look_in_bucket(sequence)
        seen: dict[str, FileRecord] = {}
        paths = all_inside(Path(self.root.location), sequence.files, self._named_in)
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

    def sha256(self, relative: str) -> str:
        """Return the hex SHA-256 of a file's content.

        Raises:
            FileNotFoundError: it isn't there.
            StoreError: it can't be read.
        """
        if self.root.is_local:
            return sha256_file(inside(Path(self.root.location), relative, self._named_in))
        if self.root.size(relative) is None:
            raise FileNotFoundError(relative)
        digest = hashlib.sha256()
        for piece in self.root.stream(relative):
            digest.update(piece)
        return digest.hexdigest()

    def size(self, relative: str) -> int:
        """Return a file's size in bytes; raises as `sha256` does."""
        size = self.root.size(relative)
        if size is None:
            raise FileNotFoundError(relative)
        return size

    def frame_shape(self, relative: str) -> tuple[int, int]:
        """Return (H, W) of an image, in pixels."""
        if self.root.is_local:
            return image_shape(inside(Path(self.root.location), relative, self._named_in))
        with tempfile.TemporaryDirectory() as folder:
            fetch(self.root, [relative], Path(folder))
            return image_shape(Path(folder, relative))

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


def open_manifest(location: str | os.PathLike[str]) -> tuple[Manifest, ManifestSources, str]:
    """Read a manifest in a folder or at a URL.

    Returns:
        the manifest, its files, and the SHA-256 of its content.

    Raises:
        ManifestError: not there, no manifest, or its root leaves the bucket.
        StoreError: the URL or the bucket can't be used.
    """
    text = os.fspath(location)
    if "://" not in text or open_storage(text).is_local:
        path = Path(open_storage(text).location if "://" in text else text)
        manifest = read_manifest(path)
        root = open_storage(manifest.root_folder(path))
        return manifest, ManifestSources(root, str(path)), sha256_file(path)
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
    location: str | os.PathLike[str],
    *,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> ManifestCheck:
    """Check a manifest in a folder or at a URL, from where its files are fetched.

    See `check_manifest`.
    """
    manifest, sources, _ = open_manifest(location)
    if sources.root.is_local:
        text = os.fspath(location)
        path = open_storage(text).location if "://" in text else text
        return check_manifest(path, workers=workers, reporter=reporter)

    @contextmanager
    def fetched(sequence: AlignedSequence) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as name:
            there = sources.root.sizes_of(sequence.files)
            fetch(sources.root, there, Path(name))
            for relative in there:
                _date(Path(name, relative), sequence.files[relative].mtime_ns)
            yield Path(name)

    return check_manifest(
        location,
        workers=workers,
        reporter=reporter,
        remote=(manifest, sources.root.location, fetched),
    )


_held = threading.local()


@contextmanager
def at_hand(task: ShardTask) -> Iterator[ShardTask]:
    """Yield the task with its sources in a folder, to where they are fetched if need be.

    Raises:
        StoreError: one can't be fetched.
    """
    root = open_storage(task.root)
    if root.is_local:
        yield task
        return
    name = f"{task.root}/{task.record.seq}"
    if getattr(_held, "name", None) != name:
        if hasattr(_held, "folder"):
            _held.folder.cleanup()
        _held.folder, _held.name = tempfile.TemporaryDirectory(), name
    folder = Path(_held.folder.name)
    wanted = [source for source in task.sources if not (folder / source.path).exists()]
    fetch(root, [source.path for source in wanted], folder)
    for source in wanted:
        _date(folder / source.path, source.mtime_ns)
    yield replace(task, root=str(folder))


def _date(path: Path, mtime_ns: int) -> None:
    """Give a fetched file the time that the manifest has of it."""
    os.utime(path, ns=(mtime_ns, mtime_ns))
