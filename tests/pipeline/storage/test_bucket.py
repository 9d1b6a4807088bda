"""What only a bucket does: parts, requests, removals in order, processes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from spikedeblur.pipeline.storage.base import merge_spans


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
