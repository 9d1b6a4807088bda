"""Places where a store may begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikedeblur.pipeline.host.files import path_aside
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.locate import open_storage
from spikedeblur.pipeline.store.records import lacks_root


def test_a_root_that_another_run_is_writing_is_nothing_foreign(tmp_path: Path) -> None:
    path_aside(tmp_path / "zarr.json", "partial").write_bytes(b"{")
    assert lacks_root(open_storage(tmp_path), "packed")
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(StoreError, match="found something else"):
        lacks_root(open_storage(tmp_path), "packed")
