"""A bucket of a server that runs here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest
from s3_server import environment, make_bucket, s3_server

from spikedeblur.pipeline.storage.base import Storage
from spikedeblur.pipeline.storage.locate import open_storage


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
