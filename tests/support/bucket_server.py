"""An S3 server for reading a folder, with a delay before each answer, that counts what it serves.

It runs in a process of its own, as moto's would take the reader's time. `/-/counters` gives the
counters as JSON and sets them back; `/-/delay/MS` changes the delay. Buckets are the folders in
the folder. It knows HEAD, GET with a range, and listing, which is what reading a store takes.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Counters:
    """Of GETs of objects, since they were last asked for."""

    requests: int = 0
    bytes: int = 0
    """Of bodies."""
    most_at_once: int = 0
    lists: int = 0
    """Listings, and HEADs."""


class _Server:
    def __init__(self, folder: Path, delay: float) -> None:
        self.folder, self.delay = folder, delay
        self.counters, self.at_once = Counters(), 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                fields = (line.split(": ", 1) for line in lines[1:] if ": " in line)
                headers = {name.lower(): value for name, value in fields}
                await self.answer(writer, method, target, headers)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(
        self, writer: asyncio.StreamWriter, method: str, target: str, headers: dict[str, str]
    ) -> None:
        url = urlsplit(target)
        path, query = unquote(url.path).lstrip("/"), parse_qs(url.query)
        if path.startswith("-/"):
            if path == "-/counters":
                body = json.dumps(asdict(self.counters)).encode()
                self.counters = Counters()
            else:
                self.delay, body = float(path.rpartition("/")[2]) / 1000, b""
            _send(writer, 200, body)
            return
        listing = "list-type" in query
        counted = method == "GET" and not listing
        self.counters.lists += not counted
        self.counters.requests += counted
        self.at_once += 1
        self.counters.most_at_once = max(self.counters.most_at_once, self.at_once)
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        if listing:
            _send(writer, 200, self.list(path, query))
            return
        file = self.folder / path
        if not file.is_file():
            _send(writer, 404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        size, tag = file.stat().st_size, _tag(file)
        start, stop, status, more = 0, size, 200, ""
        if "range" in headers:
            first, _, last = headers["range"].removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(int(last or size - 1) + 1, size), 206
            more = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n"
        with file.open("rb") as opened:
            opened.seek(start)
            body = b"" if method == "HEAD" else opened.read(stop - start)
        self.counters.bytes += len(body) * counted
        _send(writer, status, body, f"{more}ETag: {tag}\r\n", stop - start)

    def list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        top = self.folder / bucket.strip("/")
        prefix = query.get("prefix", [""])[0]
        below = top / prefix
        content, folders = [], []
        if "delimiter" in query:
            entries = sorted(below.iterdir()) if below.is_dir() else []
            folders = [f"{prefix}{entry.name}/" for entry in entries if entry.is_dir()]
            files = [entry for entry in entries if entry.is_file()]
        else:
            files = sorted(path for path in below.rglob("*") if path.is_file())
        for path in files:
            key = path.relative_to(top).as_posix()
            content.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{_tag(path)}</ETag></Contents>"
            )
        common = (
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders
        )
        return (
            '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'
            f"{''.join(content)}{''.join(common)}</ListBucketResult>"
        ).encode()


def _tag(file: Path) -> str:
    status = file.stat()
    return f'"{status.st_mtime_ns:x}-{status.st_ino:x}"'


def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes, more: str = "", length: int = -1
) -> None:
    length = len(body) if length < 0 else length
    writer.write(
        f"HTTP/1.1 {status} OK\r\nContent-Length: {length}\r\n{more}"
        "Content-Type: application/xml\r\n"
        "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n".encode()
        + body
    )


def _run(folder: Path, delay: float, link: Connection) -> None:
    async def serve() -> None:
        own = _Server(folder, delay)
        server = await asyncio.start_server(own.serve, "127.0.0.1", 0, backlog=512)
        link.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


class BucketServer:
    """A server that runs; see `bucket_server`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def counters(self) -> Counters:
        """Return the counters since the last call."""
        return Counters(**json.loads(self._get("counters")))

    def set_delay(self, milliseconds: float) -> None:
        """Wait so long before each answer."""
        self._get(f"delay/{milliseconds}")

    def _get(self, path: str) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.endpoint}/-/{path}", timeout=10) as answer:
            found: bytes = answer.read()
            return found


@contextmanager
def bucket_server(folder: Path, delay: float = 0.0) -> Iterator[BucketServer]:
    """Serve the folders in `folder` as buckets, each answer after `delay` seconds."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(folder, delay, theirs), daemon=True)
    process.start()
    try:
        yield BucketServer(f"http://127.0.0.1:{ours.recv()}")
    finally:
        process.kill()
        process.join()
