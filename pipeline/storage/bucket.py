"""Storage in a bucket of an object store: Amazon S3, what speaks its protocol, Google Cloud, Azure.

Obstore does the transfers, and takes addresses and credentials from the environment:
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION;
AWS_SKIP_SIGNATURE=true for a public bucket; GOOGLE_APPLICATION_CREDENTIALS;
AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN.

Its threads do not survive a fork: a child that was forked after the parent used a bucket would
wait for ever, and gets an error instead. Spawned children and Dask's workers are well.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import AzureStore, GCSStore, S3Store

from .base import (
    PIECE,
    READ_LIMIT,
    Buffer,
    Storage,
    StoreError,
    StoreWriteError,
    check_key,
    check_span,
    is_hidden,
    merge_spans,
    missing,
    too_large,
)
from .disk_cache import DiskCache, disk_cache
from .traffic import TRAFFIC

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

_REFUSED = {
    "s3": "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy "
    "(AWS_SKIP_SIGNATURE=true for a public bucket)",
    "gs": "check GOOGLE_APPLICATION_CREDENTIALS and the bucket's policy "
    "(GOOGLE_SKIP_SIGNATURE=true for a public bucket)",
    "az": "check AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, "
    "and the container's rights (AZURE_SKIP_SIGNATURE=true for a public container)",
}
_ADDRESS = {
    "s3": "AWS_ENDPOINT_URL, AWS_REGION",
    "gs": "proxy settings",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_ENDPOINT",
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
_Bucket = S3Store | GCSStore | AzureStore
_KINDS: dict[str, type[_Bucket]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")

_NOT_FOUND = (FileNotFoundError, NotFoundError)  # which of the two depends on obstore's version

COALESCE = 64 * 2**10
"""Most bytes between spans that are read in one request: they take less than a round trip."""

READS = 16
"""Files that a process reads at a time; obstore reads up to ten spans of each at once."""

ONE_PUT = 16 * 2**20
"""Bytes of the largest file that is sent whole; larger ones go up in parts, several at once."""

# An address where nothing answers fails within 30 s: six tries and the pauses between them.
# `timeout` bounds a whole transfer, and a slow line may need all of it.
_CLIENT: ClientConfig = {"connect_timeout": "4s", "timeout": "120s"}
_RETRY: RetryConfig = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}

_reading = threading.BoundedSemaphore(READS)

_runtime_pid: int | None = None
"""The process that obstore's threads are in; a forked child inherits this number, not them."""


class Bucket(Storage):
    """A storage in a bucket. See `Storage` for what the methods promise."""

    is_local = False

    def __init__(self, scheme: str, bucket: str, prefix: str) -> None:
        location = f"{scheme}://{bucket}" + (f"/{prefix}" if prefix else "")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}", bucket):
            raise StoreError(
                f"{location}: expected {scheme}://bucket/path, found {bucket!r} for the bucket's "
                "name; correct it (credentials go into environment variables)"
            )
        check_key(location, prefix, may_be_top=True)
        super().__init__(location)
        self._scheme, self._bucket, self._prefix = scheme, bucket, prefix
        self._opened: tuple[int, _Bucket] | None = None
        self._versions: dict[str, str] | None = None
        """Entity tags of the objects that the disk cache may hold, by key; None: no cache."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def child(self, key: str) -> Bucket:
        """Return the storage below."""
        return Bucket(self._scheme, self._bucket, self._object(key, may_be_top=True))

    def cached(self) -> Bucket:
        """Return the same storage with the disk cache, where the user asks for one."""
        cache = disk_cache()
        if cache is None:
            return self
        cache.prepare()
        bucket = self.child("")
        bucket._versions = {}
        return bucket

    def read(self, key: str, limit: int = READ_LIMIT) -> bytes | None:
        """Return a whole object, or None."""
        cache, version = self._cache_of(key)
        if cache is None:
            return self._read(key, limit)
        name = cache.name(self._url(key), version, "whole")
        content = cache.get(name, limit=limit)
        if content is not None:
            TRAFFIC.count(used=len(content))
            return content
        content = self._read(key, limit)
        if content is not None:
            cache.put({name: content})
        return content

    def _read(self, key: str, limit: int) -> bytes | None:
        with _reading, self._explained(key):
            try:
                result = obstore.get(self._client, self._object(key))
            except _NOT_FOUND as error:
                self._require_bucket(error)
                return None
            size = result.meta["size"]
            if size > limit:
                raise too_large(self._url(key), size, limit)
            content = bytes(result.bytes())
        TRAFFIC.count(requests=1, fetched=len(content), used=len(content))
        return content

    def stream(self, key: str) -> Iterator[bytes]:
        """Get an object piece by piece."""
        size = self.size(key)
        if size is None:
            raise missing(self._url(key))
        for start in range(0, size, PIECE):
            (piece,) = self.read_ranges(key, [(start, min(PIECE, size - start))])
            yield bytes(piece)

    def write(self, key: str, parts: Iterable[Buffer], *, durable: bool = True) -> int:
        """Put an object. It is there when all of it is; `durable` changes nothing."""
        views = [_as_bytes(part) for part in parts]
        size = sum(map(len, views))
        name = self._object(key)
        with self._explained(key, StoreWriteError):
            if size <= ONE_PUT:
                obstore.put(self._client, name, b"".join(views), use_multipart=False)
            else:
                # S3 takes 10,000 parts at most.
                chunk = max(ONE_PUT // 2, -(-size // 9_000))
                obstore.put(self._client, name, iter(views), use_multipart=True, chunk_size=chunk)
        return size

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None."""
        with self._explained(key):
            try:
                return obstore.head(self._client, self._object(key))["size"]
            except _NOT_FOUND:
                pass
            # Only the body of an answer tells a missing bucket from a missing object, and HEAD
            # has none.
            try:
                return obstore.get(self._client, self._object(key)).meta["size"]
            except _NOT_FOUND as error:
                self._require_bucket(error)
                return None

    def sizes(self, key: str = "") -> dict[str, int]:
        """Return every object's size below, by one listing."""
        skip = len(self._prefix) + 1 if self._prefix else 0
        below = len(key) + 1 if key else 0
        named = ((meta["path"][skip:], meta["size"]) for meta in self._list(key))
        return {k: size for k, size in named if not any(map(is_hidden, k[below:].split("/")))}

    def sizes_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Return their sizes, by one listing."""
        skip = len(self._prefix) + 1 if self._prefix else 0
        wanted = set(keys)
        listed = {meta["path"][skip:]: meta for meta in self._list("")}
        if self._versions is not None:
            tags = {key: listed[key]["e_tag"] for key in listed.keys() & wanted}
            self._versions |= {key: tag for key, tag in tags.items() if tag}
        return {key: meta["size"] for key, meta in listed.items() if key in wanted}

    def folders(self, key: str = "") -> list[str]:
        """Return the names directly below that have something below them."""
        with self._explained(key):
            prefix = self._object(key, may_be_top=True) or None
            listed = obstore.list_with_delimiter(self._client, prefix)["common_prefixes"]
        names = (path.rstrip("/").rpartition("/")[2] for path in listed)
        return sorted(name for name in names if not is_hidden(name))

    def remove(self, key: str) -> None:
        """Remove all objects below, metadata first: without it nothing is taken for whole."""
        with self._explained(key, StoreWriteError):
            names = [meta["path"] for meta in self._list(key)]
            if key and self.size(key) is not None:
                names.append(self._object(key))
            marks = [name for name in names if name.endswith(".json")]
            for batch in (marks, sorted(set(names) - set(marks))):
                if batch:
                    obstore.delete(self._client, batch)

    def sweep(self, key: str = "", *, own: bool = False) -> None:
        """Do nothing: an object is there whole or not at all."""

    def read_ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Return the bytes of an object at each span, by few requests at once."""
        for span in spans:
            check_span(self._url(key), span)
        cache, version = self._cache_of(key)
        if cache is None:
            contents = self._fetch(key, spans)
        else:
            contents = self._read_through(cache, version, key, spans)
        TRAFFIC.count(used=sum(map(len, contents)))
        return contents

    def _read_through(
        self, cache: DiskCache, version: str, key: str, spans: Sequence[tuple[int, int]]
    ) -> list[Buffer]:
        names = [cache.name(self._url(key), version, f"{at}+{size}") for at, size in spans]
        held: dict[str, Buffer] = {}
        absent: dict[str, tuple[int, int]] = {}
        for name, span in zip(names, spans, strict=True):
            content = cache.get(name, span[1])
            if content is None:
                absent[name] = span
            else:
                held[name] = content
        if absent:
            # What lies between absent spans may be held, and is not to be fetched again.
            contents = self._fetch(key, list(absent.values()), gap=0 if held else COALESCE)
            fetched = dict(zip(absent, contents, strict=True))
            cache.put(fetched)
            held |= fetched
        return [held[name] for name in names]

    def _cache_of(self, key: str) -> tuple[DiskCache | None, str]:
        """Return the disk cache, if it may hold parts of the object, and the object's version."""
        version = self._versions.get(key) if self._versions is not None else None
        return (None, "") if version is None else (disk_cache(), version)

    def _fetch(
        self, key: str, spans: Sequence[tuple[int, int]], gap: int = COALESCE
    ) -> list[Buffer]:
        """Return the bytes at each span; spans at most `gap` apart come by one request."""
        name, url = self._object(key), self._url(key)
        wanted = merge_spans([(at, at + size) for at, size in spans if size], gap)
        with _reading, self._explained(key):
            try:
                # Obstore would merge too, but panics when the object ends between two spans.
                got = obstore.get_ranges(
                    self._client,
                    name,
                    starts=[start for start, _ in wanted],
                    ends=[stop for _, stop in wanted],
                    coalesce=0,
                )
            except _NOT_FOUND as error:
                self._require_bucket(error)
                raise missing(url) from error
        views = [memoryview(content) for content in got]
        TRAFFIC.count(requests=len(wanted), fetched=sum(map(len, views)))
        out: list[Buffer] = []
        for offset, length in spans:
            if not length:
                out.append(b"")
                continue
            at = bisect_right(wanted, offset, key=lambda span: span[0]) - 1
            first = offset - wanted[at][0]
            view = views[at][first : first + length]
            if len(view) != length:
                check_span(url, (offset, length), wanted[at][0] + len(views[at]))
            out.append(view)
        return out

    @property
    def _client(self) -> _Bucket:
        global _runtime_pid
        pid = os.getpid()
        if self._opened is None or self._opened[0] != pid:
            if _runtime_pid not in (None, pid):
                raise StoreError(
                    f"{self.location}: a bucket was in use when this process was forked, and "
                    "can't be used in it; start processes by spawn or forkserver "
                    "(DataLoader: multiprocessing_context='spawn')"
                )
            _runtime_pid = pid
            # Storages of one bucket share connections while the environment stays the same.
            prefixes = ("AWS_", "GOOGLE_", "AZURE_")
            environment = sorted(i for i in os.environ.items() if i[0].startswith(prefixes))
            self._opened = pid, _connect(pid, self._scheme, self._bucket, tuple(environment))
        return self._opened[1]

    def _object(self, key: str, *, may_be_top: bool = False) -> str:
        check_key(self.location, key, may_be_top=may_be_top)
        return "/".join(filter(None, (self._prefix, key)))

    def _url(self, key: str) -> str:
        return f"{self.location}/{key}" if key else self.location

    def _list(self, key: str) -> Iterator[ObjectMeta]:
        prefix = self._object(key, may_be_top=True) or None
        with self._explained(key):
            for batch in obstore.list(self._client, prefix, chunk_size=1000):
                yield from batch

    def _require_bucket(self, error: Exception) -> None:
        """Let an object be missing, but not the bucket."""
        if any(f"<Code>{code}" in str(error) for code in _NO_BUCKET):
            raise error

    @contextmanager
    def _explained(self, key: str, kind: type[StoreError] = StoreError) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if isinstance(error, kind):
                raise
            raise kind(str(error)) from error
        except (OSError, BaseError, ValueError) as error:
            raise kind(f"{self._url(key)}: {self._meaning(str(error))}") from error

    def _meaning(self, text: str) -> str:
        """Return what obstore's error means to the user."""
        status = re.search(r"status code: (\d{3})", text)
        code = re.search(r"<Code>(\w+)</Code>", text)
        said = " ".join(m[1] for m in (status, code) if m)
        endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS[self._scheme])), None)
        if code and code[1] in _NO_BUCKET:
            at = f" at {endpoint}" if endpoint else ""
            return (
                f"expected a bucket {self._bucket!r}{at}, found none; make it or correct the name"
            )
        if "169.254.169.254" in text or "metadata.google" in text:
            return f"expected credentials, found none; {_REFUSED[self._scheme]}"
        if status and status[1] in ("401", "403"):
            return f"refused ({said}); {_REFUSED[self._scheme]}"
        if status and status[1] == "416":
            return (
                "a span begins after its end; the file is cut short or not what its record says; "
                "voxelize again or copy it again"
            )
        if "redirect" in text.lower() or (status and status[1] == "301"):
            return "the bucket is in another region; set AWS_REGION to it"
        if not status and ("HTTP error" in text or "error sending" in text):
            host = endpoint or "the object store"
            return f"no answer from {host}; check the network and {_ADDRESS[self._scheme]}"
        reason = " ".join(text.partition("\n\nDebug source")[0].split())[:400]
        return f"the object store failed ({reason}); try again later"


@functools.lru_cache(16)
def _connect(
    pid: int, scheme: str, bucket: str, environment: tuple[tuple[str, str], ...]
) -> _Bucket:
    settings = dict(environment)
    names = _ENDPOINTS[scheme]
    plain = any(settings.get(name, "").lower().startswith("http://") for name in names)
    options: ClientConfig = {**_CLIENT, "allow_http": True} if plain else _CLIENT
    return _KINDS[scheme](bucket, client_options=options, retry_config=_RETRY)


def _as_bytes(part: Buffer) -> memoryview:
    view = memoryview(part)
    return view.cast("B") if view.nbytes else memoryview(b"")
