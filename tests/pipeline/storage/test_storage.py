"""One contract for every storage a store can lie in, and what only one kind can do wrong."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from s3_server import environment, make_bucket, s3_server

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.storage import folder as place_module
from spikedeblur.pipeline.storage.base import Storage, StoreError, merge_spans
from spikedeblur.pipeline.storage.folder import Folder
from spikedeblur.pipeline.storage.locate import open_storage

CONTENT = np.random.default_rng(0).bytes(300_000)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("obstore")
    pytest.importorskip("moto.server")
    with s3_server() as address:
        make_bucket(address, "films")
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    return open_storage(f"s3://films/{uuid4().hex}/s.zarr")


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(tmp_path / "s.zarr")
    return request.getfixturevalue("bucket")


def test_what_is_written_is_read(storage):
    assert storage.write("train/a/c/0", [b"12", memoryview(b"345")]) == 5
    assert storage.read("train/a/c/0") == b"12345"
    assert storage.size("train/a/c/0") == 5


def test_parts_may_be_of_any_type_and_empty(storage):
    numbers = np.arange(6, dtype="<u4").reshape(2, 3)
    assert storage.write("c", [memoryview(numbers), b"", memoryview(numbers[:0]), b"x"]) == 25
    assert storage.read("c") == numbers.tobytes() + b"x"
    assert storage.write("none", []) == 0
    assert storage.read("none") == b""
    assert storage.size("none") == 0


def test_names_with_spaces_and_signs_come_back_as_they_were(storage):
    name = "scène 1/100%25 #2.bin"
    storage.write(name, [b"1"])
    assert storage.read(name) == b"1"
    assert storage.sizes() == {name: 1}
    assert storage.folders() == ["scène 1"]


def test_a_write_replaces_the_whole_file(storage):
    storage.write("c", [b"a longer content"])
    storage.write("c", [b"new"], durable=False)
    assert storage.read("c") == b"new"
    assert bytes(storage.read_ranges("c", [(0, 3)])[0]) == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(storage):
    storage.write("d/c", [b"old"])
    with pytest.raises(TypeError):
        storage.write("d/c", [b"new", "text"])
    assert storage.read("d/c") == b"old"
    assert storage.sizes() == {"d/c": 3}
    if storage.is_local:
        assert _names(Path(storage.location) / "d") == ["c"]


def test_what_is_missing_is_none_or_empty(storage):
    assert storage.read("zarr.json") is None
    assert storage.size("zarr.json") is None
    assert storage.sizes() == {}
    assert storage.folders("train") == []
    storage.write("a/b", [b"1"])
    # A folder isn't a file, and a file isn't a folder.
    assert storage.read("a") is None
    assert storage.size("a") is None
    assert storage.read("a/b/c") is None
    assert storage.size("a/b/c") is None
    assert storage.sizes("a/b") == {}
    assert storage.folders("a/b") == []


def test_sizes_of_some_files_are_those_of_the_files_that_are_there(storage):
    storage.write("a/b", [b"12"])
    storage.write("a/c", [b"1"])
    assert storage.sizes_of(["a/b", "a", "a/x", "a/b/c"]) == {"a/b": 2}
    assert storage.child("a").sizes_of(["b"]) == {"b": 2}


def test_a_file_larger_than_the_limit_is_refused(storage):
    storage.write("zarr.json", [bytes(100)])
    assert storage.read("zarr.json", limit=100) == bytes(100)
    with pytest.raises(StoreError, match=r"zarr\.json: expected at most 99 bytes, found 100"):
        storage.read("zarr.json", limit=99)


def test_sizes_and_folders_leave_out_what_is_hidden_or_half_written(storage):
    kept = {"zarr.json": 1, "train/a/zarr.json": 2, "train/a/voxels/c/0/0": 3, "val/b/x": 4}
    hidden = ("train/.a.removed/x", "train/a/.c.partial", "train/b.partial", ".lock", ".x/y/z")
    for key, size in kept.items():
        storage.write(key, [bytes(size)])
    for key in hidden:
        storage.write(key, [b"1"])
    assert storage.sizes() == kept
    below = {"train/a/zarr.json": 2, "train/a/voxels/c/0/0": 3}
    assert storage.sizes("train/a") == below
    assert storage.child("train").sizes("a") == {key[6:]: n for key, n in below.items()}
    assert storage.sizes("trai") == {}
    assert storage.folders() == ["train", "val"]
    assert storage.folders("train") == ["a"]
    assert storage.folders("train/a/voxels/c/0") == []


def test_a_child_is_the_storage_below(storage):
    child = storage.child("train/a")
    child.write("x", [b"1"])
    assert storage.read("train/a/x") == b"1"
    assert child.location == f"{storage.location}/train/a" == str(child)
    assert child.is_local is storage.is_local
    assert open_storage(child.location).location == child.location
    assert storage.child("").location == storage.location


def test_remove_takes_all_below_and_nothing_beside(storage):
    for key in ("train/a/zarr.json", "train/a/.hidden", "train/a/c/0", "train/ab/c", "one"):
        storage.write(key, [b"1"])
    storage.remove("train/a")
    storage.remove("train/a")
    storage.remove("one")
    assert storage.sizes() == {"train/ab/c": 1}
    storage.remove("")
    assert storage.sizes() == {}
    if storage.is_local:
        assert _names(Path(storage.location).parent) == []


def test_ranges_are_the_bytes_at_each_span_in_the_order_asked_for(storage):
    storage.write("c", [CONTENT])
    rng = np.random.default_rng(1)
    starts = rng.integers(0, len(CONTENT), 300)
    spans = [(int(a), int(rng.integers(0, min(900, len(CONTENT) - a) + 1))) for a in starts]
    spans += [(0, len(CONTENT)), (len(CONTENT) - 1, 1), (0, 0), (7, 1)]
    got = storage.read_ranges("c", spans)
    assert [bytes(part) for part in got] == [CONTENT[a : a + n] for a, n in spans]
    assert storage.read_ranges("c", []) == []


def test_ranges_of_a_replaced_file_are_the_new_ones(storage):
    for content in (b"first", b"secnd", b"a longer one"):
        storage.write("c", [content])
        assert bytes(storage.read_ranges("c", [(0, len(content))])[0]) == content


@pytest.mark.parametrize(
    "spans",
    [[(0, 11)], [(2, 3), (10, 1)], [(0, 1), (200_000, 5)], [(-1, 2)], [(0, -1)], [(1, 2**64)]],
)
def test_a_span_outside_the_file_is_refused(storage, spans):
    storage.write("d/c", [b"0123456789"])
    with pytest.raises(StoreError, match=r"d/c: .*cut short"):
        storage.read_ranges("d/c", spans)


def test_ranges_of_a_missing_file_name_it(storage):
    with pytest.raises(StoreError, match="train/a/c/0: expected a file, found none"):
        storage.read_ranges("train/a/c/0", [(0, 1)])


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/", "./a", "a\x00"])
def test_a_key_that_could_leave_the_storage_is_refused(storage, key):
    for call in (
        storage.read,
        storage.size,
        storage.sizes,
        storage.folders,
        storage.remove,
        storage.child,
        lambda key: storage.write(key, [b""]),
        lambda key: storage.read_ranges(key, [(0, 1)]),
    ):
        with pytest.raises(SpikeDeblurError, match="expected a relative path inside"):
            call(key)


def test_the_top_is_no_file(storage):
    for call in (storage.read, storage.size, lambda key: storage.write(key, [b""])):
        with pytest.raises(StoreError, match="name a file inside"):
            call("")


def test_a_pickled_storage_is_the_same_storage(storage):
    storage.write("c", [b"1"])
    storage.read_ranges("c", [(0, 1)])
    assert len(pickle.dumps(storage)) < 500
    other = pickle.loads(pickle.dumps(storage))
    assert other.location == storage.location
    assert other.read("c") == b"1"


def test_a_spawned_process_reads_the_storage(storage):
    storage.write("c", [CONTENT])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(storage.read, ("c",)).get(timeout=30) == CONTENT


def test_threads_share_a_storage(storage):
    storage.write("c", [CONTENT])
    got: dict[int, bytes] = {}

    def read(start: int) -> None:
        for offset in range(start, start + 20):
            got[offset] = bytes(storage.read_ranges("c", [(offset, 9)])[0])

    threads = [threading.Thread(target=read, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 80
    assert all(part == CONTENT[offset : offset + 9] for offset, part in got.items())


# What a folder alone does.


def test_locations_of_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_storage("s.zarr").location == str(tmp_path / "s.zarr")
    assert open_storage(Path("a/../s.zarr")).location == str(tmp_path / "s.zarr")
    assert open_storage((tmp_path / "a b").as_uri()).location == str(tmp_path / "a b")
    with pytest.raises(StoreError, match="file:///"):
        open_storage("file://host/s.zarr")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    storage = Folder(str(tmp_path))
    storage.write("c", [b"old"])
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="c: cannot write it: no space left on device; make room"):
        storage.write("c", [b"new"])
    assert _names(tmp_path) == ["c"]
    assert storage.read("c") == b"old"
    storage.write("c", [b"new"], durable=False)


def test_a_removal_that_is_cut_short_leaves_nothing_to_be_found(tmp_path, monkeypatch):
    def stop(path: object) -> None:
        raise KeyboardInterrupt

    storage = Folder(str(tmp_path))
    storage.write("train/a/zarr.json", [b"{}"])
    monkeypatch.setattr(place_module.shutil, "rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        storage.remove("train/a")
    assert storage.sizes() == {}
    assert storage.folders("train") == []


def test_a_link_to_a_folder_is_removed_and_not_what_it_points_to(tmp_path):
    Folder(str(tmp_path)).write("elsewhere/c", [b"1"])
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "link").symlink_to(tmp_path / "elsewhere")
    storage = open_storage(tmp_path / "s")
    assert storage.sizes() == {"link/c": 1}
    storage.remove("link")
    assert storage.sizes() == {}
    assert (tmp_path / "elsewhere" / "c").exists()


# What a bucket alone does.


def test_a_file_of_many_parts_goes_up_whole(bucket, monkeypatch):
    from spikedeblur.pipeline.storage import bucket as bucket_module

    monkeypatch.setattr(bucket_module, "ONE_PUT", 10 * 2**20)
    large = np.random.default_rng(2).bytes(11 * 2**20)
    parts = [memoryview(large)[i : i + 2**20 + 7] for i in range(0, len(large), 2**20 + 7)]
    assert bucket.write("c", parts) == len(large)
    assert bucket.read("c") == large


def test_near_spans_are_one_request_and_far_ones_are_not():
    assert merge_spans([(100, 150), (0, 10), (120, 125)], 90) == [(0, 150)]
    assert merge_spans([(100, 150), (0, 10), (120, 125)], 89) == [(0, 10), (100, 150)]
    assert merge_spans([(5, 8), (0, 5)]) == [(0, 8)]


def test_requests_and_bytes_are_counted(bucket):
    from spikedeblur.pipeline.storage.bucket import COALESCE
    from spikedeblur.pipeline.storage.traffic import TRAFFIC, Traffic

    bucket.write("c", [bytes(3 * COALESCE)])
    TRAFFIC.since_last()
    bucket.read_ranges("c", [(0, 10), (20, 10), (2 * COALESCE, 5)])
    assert TRAFFIC.since_last() == Traffic(requests=2, fetched=35, used=25)
    bucket.read("c")
    assert TRAFFIC.since_last() == Traffic(1, 3 * COALESCE, 3 * COALESCE)
    assert TRAFFIC.since_last() == Traffic()


def test_metadata_is_removed_before_the_data(bucket, monkeypatch):
    import obstore

    for key in ("a/c/0", "a/zarr.json", "b/zarr.json", "b/c/0"):
        bucket.write(key, [b"1"])

    deleted = []
    monkeypatch.setattr(obstore, "delete", lambda _, names: deleted.append(sorted(names)))
    bucket.remove("")
    assert [[name.partition("s.zarr/")[2] for name in batch] for batch in deleted] == [
        ["a/zarr.json", "b/zarr.json"],
        ["a/c/0", "b/c/0"],
    ]


@pytest.mark.parametrize(
    "name", ["read", "size", "sizes", "folders", "write", "read_ranges", "remove"]
)
def test_a_missing_bucket_is_named(bucket, name):
    storage = open_storage("s3://nosuchbucket/s.zarr")
    more = {"write": ([b"1"],), "read_ranges": ([(0, 1)],)}.get(name, ())
    with pytest.raises(StoreError, match=r"^s3://nosuchbucket/s.zarr/c: expected a bucket 'nosuch"):
        getattr(storage, name)("c", *more)


def test_an_address_where_nothing_answers_is_named_soon(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"no answer from http://127\.0\.0\.1:9; check") as caught:
        open_storage("s3://films/s.zarr").sizes()
    assert time.monotonic() - began < 30
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, r"refused \(403 SomeReason\); check AWS_ACCESS"), (400, "the object store failed")],
)
def test_a_refusal_is_one_sentence_and_shows_no_secret(bucket, monkeypatch, status, said):
    with answering((status, error_body("SomeReason"))) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
        with pytest.raises(StoreError, match=said) as caught:
            open_storage("s3://films/s.zarr").read("c")
    assert "\n" not in str(caught.value)
    assert "verysecret" not in str(caught.value)


def error_body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>No</Message></Error>".encode()


@contextmanager
def answering(*answers: tuple[int, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server that gives these answers, the last one for ever, and a list
    of what it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_is_busy_for_a_moment_is_asked_again(bucket, monkeypatch):
    busy = (503, error_body("SlowDown"))
    with answering(busy, busy, (200, b"content")) as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert open_storage("s3://films/s.zarr").read("c") == b"content"
    assert len(asked) == 3


def test_a_server_that_stays_busy_is_said_after_six_tries(bucket, monkeypatch):
    with answering((503, error_body("SlowDown"))) as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StoreError, match="the object store failed") as caught:
            open_storage("s3://films/s.zarr").read("c")
    assert len(asked) == 6
    assert "\n" not in str(caught.value)


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_azure_is_asked_for_a_blob_by_its_container(azure, monkeypatch):
    with answering((200, b"content")) as (endpoint, asked):
        monkeypatch.setenv("AZURE_ENDPOINT", endpoint)
        assert open_storage("az://films/s.zarr").read("c") == b"content"
    assert [path.partition("?")[0] for path in asked] == ["/films/s.zarr/c"]


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "ContainerNotFound", "expected a bucket 'films' at http"),
        (403, "AuthenticationFailed", "check AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_what_azure_refuses_is_one_sentence(azure, monkeypatch, status, code, said):
    with answering((status, error_body(code))) as (endpoint, _):
        monkeypatch.setenv("AZURE_ENDPOINT", endpoint)
        with pytest.raises(StoreError, match=said) as caught:
            open_storage("az://films/s.zarr").read("c")
    assert "\n" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///a", "s3://key:secret@films/a", "s3://films/../a"])
def test_a_url_that_names_no_bucket_is_refused(url):
    pytest.importorskip("obstore")
    with pytest.raises(SpikeDeblurError, match="correct"):
        open_storage(url)


def test_another_kind_of_url_is_refused_with_those_there_are():
    with pytest.raises(StoreError, match="file://, s3://, gs://, az://"):
        open_storage("ftp://host/s.zarr")


def test_without_obstore_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "spikedeblur.pipeline.storage.bucket", raising=False)
    with pytest.raises(StoreError, match=r"pip install .spikedeblur\[cloud\]"):
        open_storage("s3://films/s.zarr")
    open_storage("s.zarr")


def test_a_child_forked_after_use_is_told_to_be_spawned(bucket):
    bucket.write("c", [b"1"])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            bucket.read("c")
        except BaseException as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        assert b"start processes by spawn" in said.read()
    os.waitpid(pid, 0)


def test_a_child_forked_before_use_reads_the_bucket(bucket):
    bucket.write("c", [b"content"])
    code = (
        "import os, sys\n"
        "from spikedeblur.pipeline.storage.locate import open_storage\n"
        "storage = open_storage(sys.argv[1])\n"
        "if os.fork() == 0:\n"
        "    print(storage.read('c'), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, bucket.location], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "b'content'\n", done.stderr
