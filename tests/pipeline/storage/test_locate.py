"""Addresses that lead nowhere."""

from __future__ import annotations

import sys

import pytest

from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage


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
