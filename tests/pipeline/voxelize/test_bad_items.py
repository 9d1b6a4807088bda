"""One bad item costs itself only: it is named, the rest is made, and a second run makes the gap."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from data_sets import DataSet, make_data_set, record
from files_of import files_of

from spikedeblur.cli import main
from spikedeblur.pipeline.align.manifest import Manifest, read_manifest, write_manifest
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.storage.base import StoreError, StoreWriteError
from spikedeblur.pipeline.storage.folder import Folder
from spikedeblur.pipeline.store.records import NPY_MARK
from spikedeblur.pipeline.voxelize import sources as sources_module
from spikedeblur.pipeline.voxelize.check import check_store
from spikedeblur.pipeline.voxelize.workers import Workers, run_tasks

SEQS = ("train/a/one", "train/a/two", "val/b/three")
BAD = "train/a/two"


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return make_data_set(tmp_path, centres=(2, 4), seqs=SEQS)


def accept_as_aligned(data: DataSet, path: Path) -> None:
    """Have the manifest say that the file was like this when it was aligned."""
    manifest = read_manifest(data.manifest)
    relative = path.relative_to(data.root).as_posix()
    sequences = tuple(
        s.model_copy(update={"files": {**s.files, relative: record(path)}})
        if relative in s.files
        else s
        for s in manifest.sequences
    )
    write_manifest(data.manifest, Manifest(**{**dict(manifest), "sequences": sequences}))


def cut_dat(data: DataSet) -> Path:
    path = data.root / f"raw/{BAD}/spike.dat"
    path.write_bytes(path.read_bytes()[:-90])  # one frame
    accept_as_aligned(data, path)
    return path


def odd_dat(data: DataSet) -> Path:
    path = data.root / f"raw/{BAD}/spike.dat"
    path.write_bytes(path.read_bytes()[:-7])
    accept_as_aligned(data, path)
    return path


def cut_png(data: DataSet) -> Path:
    path = data.root / f"raw/{BAD}/sharp/0004.png"
    path.write_bytes(path.read_bytes()[:200])
    accept_as_aligned(data, path)
    return path


def first_png_is_no_image(data: DataSet) -> Path:
    path = data.root / f"raw/{BAD}/blur/0002.png"
    path.write_bytes(b"GIF89a not really")
    accept_as_aligned(data, path)
    return path


def lost_png(data: DataSet) -> Path:
    path = data.root / f"raw/{BAD}/blur/0004.png"
    path.unlink()
    return path


def changed_dat(data: DataSet) -> Path:
    path = data.root / f"raw/{BAD}/spike.dat"
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(1, 1))
    return path


HARM = (cut_dat, odd_dat, cut_png, first_png_is_no_image, lost_png, changed_dat)


@pytest.mark.parametrize("format", ["zarr", "npy"])
@pytest.mark.parametrize("harm", HARM)
def test_the_bad_one_is_named_the_rest_is_made_and_the_gap_is_made_later(
    data: DataSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[DataSet], Path],
    format: str,
) -> None:
    whole = tmp_path / "whole"
    data.voxelize(whole, format=format)
    raw = files_of(data.root)
    manifest = data.manifest.read_bytes()
    times = {p: p.stat().st_mtime_ns for p in data.root.rglob("*") if p.is_file()}
    path = harm(data)

    store = tmp_path / "store"
    arguments = ["voxelize", str(data.manifest), str(store), "--bins", "8", "--workers", "1"]
    assert main([*arguments, "--format", format, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [failure["seq"] for failure in told["failed"]] == [BAD]
    assert path.name in told["failed"][0]["error"]
    assert (told["sequences_written"], told["windows"]) == (2, 4)
    if format == "zarr":
        assert [s.seq for s in open_store(store)] == [s for s in SEQS if s != BAD]
    assert check_store(store).whole
    assert not (store / BAD).exists()

    for relative, content in raw.items():
        here = data.root / relative
        if not here.exists() or here.read_bytes() != content:
            here.write_bytes(content)
        os.utime(here, ns=(times[here], times[here]))
    data.manifest.write_bytes(manifest)
    assert main([*arguments, "--format", format, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sequences_kept"], told["sequences_written"]) == (2, 1)
    found, expected = files_of(store), files_of(whole)
    assert found.keys() == expected.keys()
    differ = {name for name in found if found[name] != expected[name]}
    marks = {f"{seq}/{'zarr.json' if format == 'zarr' else NPY_MARK}" for seq in SEQS}
    assert differ <= marks - {f"{BAD}/zarr.json", f"{BAD}/{NPY_MARK}"}  # made by another manifest


def test_stopping_at_the_bad_one_is_there_for_who_wants_it(
    data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_png(data)
    arguments = ["voxelize", str(data.manifest), str(tmp_path / "s"), "--workers", "1"]
    assert main([*arguments, "--bins", "8", "--on-error", "stop"]) == 1
    assert "0004.png" in capsys.readouterr().err
    with pytest.raises(StoreError, match=f"{BAD} not complete"):
        open_store(tmp_path / "s")


def test_a_whole_sequence_stays_when_its_source_is_lost_later(
    data: DataSet, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    data.voxelize(store)
    before = files_of(store)
    changed_dat(data)
    lost_png(data)
    summary = data.voxelize(store, on_error="skip")
    assert [failure.seq for failure in summary.failed] == [BAD]
    assert files_of(store) == before


def test_what_a_killed_run_left_of_a_bad_one_is_taken_away(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s"
    data.voxelize(store)
    path = store / BAD / "zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["complete"] = None
    path.write_text(json.dumps(content))
    lost_png(data)
    assert len(data.voxelize(store, on_error="skip").failed) == 1
    assert [s.seq for s in open_store(store)] == [s for s in SEQS if s != BAD]


def test_an_unforeseen_error_costs_its_sequence_only(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
        if BAD in str(path):
            raise ZeroDivisionError("a library's fault")
        return read_frame(path, shape)

    read_frame = sources_module.read_frame
    monkeypatch.setattr(sources_module, "read_frame", read)
    failed = data.voxelize(tmp_path / "s", on_error="skip").failed
    assert [f.seq for f in failed] == [BAD]
    assert "ZeroDivisionError: a library's fault" in failed[0].error


def test_a_store_that_can_not_be_written_stops_everything(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(self: Folder, key: str, parts: object, **options: object) -> int:
        written.append(key)
        if key.startswith("blur/c"):
            raise StoreWriteError(f"{self}/{key}: cannot write it: no space left; make room")
        return real(self, key, parts, **options)  # type: ignore[arg-type]

    real = Folder.write
    monkeypatch.setattr(Folder, "write", write)
    with pytest.raises(StoreWriteError, match="make room"):
        data.voxelize(tmp_path / "s", on_error="skip")
    assert sum(key.startswith("blur/c") for key in written) == 1


@pytest.fixture
def _send_functions_of_this_file() -> Iterator[None]:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def die_on_seven(task: int) -> int:
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.slow
@pytest.mark.usefixtures("_send_functions_of_this_file")
def test_a_task_that_kills_its_workers_is_told_from_those_beside_it() -> None:
    """Tasks travel in groups, and two workers take several groups at a time."""
    results = run_tasks(
        die_on_seven,
        range(40),
        Workers(count=2),
        size=lambda _: 4 * 2**20,
        on_lost=lambda task, _: -task,
    )
    assert sorted(results) == sorted([-7, *(i for i in range(40) if i != 7)])
