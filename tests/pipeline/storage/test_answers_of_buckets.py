"""What is said of servers that are missing, busy or refuse."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage


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
