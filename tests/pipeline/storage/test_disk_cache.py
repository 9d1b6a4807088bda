"""The disk cache of buckets: its limit, what leaves it first, damage, kills, full disks."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_disks import remount, used_pages

from spikedeblur.pipeline.host.machine import MachineError
from spikedeblur.pipeline.storage import disk_cache as module
from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.storage.disk_cache import FOLDER, LIMIT, DiskCache, disk_cache
from spikedeblur.pipeline.storage.disk_ledger import FOLDERS, PAGE, ledger_head


def made(folder: Path, limit: int = 2**24) -> DiskCache:
    cache = DiskCache(folder, limit)
    cache.prepare()
    return cache


def names_of(count: int) -> list[str]:
    return [DiskCache.name(f"s3://b/{i}", "v", "0+1") for i in range(count)]


def content_of(name: str, size: int = 3 * PAGE) -> bytes:
    return np.random.default_rng(int(name[:8], 16)).bytes(size)


def fill(cache: DiskCache, names: list[str], size: int = 3 * PAGE) -> None:
    for name in names:
        cache.put({name: content_of(name, size)})


def held(cache: DiskCache, names: list[str]) -> list[str]:
    return [name for name in names if cache.get(name) is not None]


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if path.is_file()]


def taken(folder: Path) -> int:
    """Bytes of the files, in whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in entries(folder))


def set_used(cache: DiskCache, name: str, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(cache.folder / name[:3] / name, (then, then))


def test_what_was_put_comes_back_to_any_process_and_nothing_else_does(tmp_path: Path) -> None:
    one, other = names_of(2)
    fill(made(tmp_path / "c"), [one])
    assert made(tmp_path / "c").get(one) == content_of(one)
    assert made(tmp_path / "c").get(one, 3 * PAGE) == content_of(one)
    assert made(tmp_path / "c").get(other) is None


def test_names_tell_objects_versions_and_parts_apart() -> None:
    parts = [("s3://b/1", "v", "0+1"), ("s3://b/1", "w", "0+1"), ("s3://b/1", "v", "0+2")]
    assert len({DiskCache.name(*part) for part in [*parts, ("s3://b/2", "v", "0+1")]}) == 4


@pytest.mark.parametrize("at", [0, 17, 20, -1], ids=["hash", "checksum", "first", "last"])
def test_a_flipped_bit_is_seen_and_the_part_kept_anew(tmp_path: Path, at: int) -> None:
    (name,) = names_of(1)
    cache = made(tmp_path / "c")
    fill(cache, [name])
    (file,) = entries(tmp_path / "c")
    damaged = bytearray(file.read_bytes())
    damaged[at] ^= 4
    file.write_bytes(damaged)
    assert cache.get(name) is None
    fill(cache, [name])
    assert cache.get(name) == content_of(name)


@pytest.mark.parametrize("size", [0, 10, 4000])
def test_an_entry_that_is_cut_is_none(tmp_path: Path, size: int) -> None:
    (name,) = names_of(1)
    cache = made(tmp_path / "c")
    fill(cache, [name])
    os.truncate(entries(tmp_path / "c")[0], size)
    assert cache.get(name) is None
    assert cache.get(name, 3 * PAGE) is None


def test_an_entry_under_another_name_is_none(tmp_path: Path) -> None:
    one, other = names_of(2)
    cache = made(tmp_path / "c")
    fill(cache, [one, other])
    (tmp_path / "c" / one[:3] / one).replace(tmp_path / "c" / other[:3] / other)
    assert held(cache, [one, other]) == []


def test_the_limit_is_never_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADMIT", 1)
    cache = made(tmp_path / "c", 64 * PAGE)
    sizes = np.random.default_rng(0).integers(1, 9 * PAGE, 120).tolist()
    most = 0
    for name, size in zip(names_of(120), sizes, strict=True):
        fill(cache, [name], size)
        assert cache.get(name) == content_of(name, size)
        most = max(most, taken(tmp_path / "c"))
    assert 50 * PAGE < most <= 64 * PAGE


def test_the_least_recently_used_leave_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ADMIT", 1)
    cache = made(tmp_path / "c", 40 * 4 * PAGE)
    names = names_of(50)
    fill(cache, names[:40])
    for place, name in enumerate(names[:40]):
        set_used(cache, name, 10_000 - place)
    assert cache.get(names[0]) is not None, "which notes the use"
    fill(cache, names[40:])
    assert held(cache, names) == [names[0], *names[11:]]


def test_a_full_cache_takes_some_of_what_comes_and_all_for_what_nobody_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_chance", random.Random(0))
    cache = made(tmp_path / "c", 40 * 4 * PAGE)
    names = names_of(700)
    fill(cache, names[:40])
    fill(cache, names[40:360])
    kept = len(held(cache, names[40:360]))
    assert 1 <= kept <= 28, "a thirty-second of 320"
    for file in entries(tmp_path / "c"):
        os.utime(file, (1e9, 1e9))
    fill(cache, names[360:])
    assert len(held(cache, names[:360])) == 0
    assert len(held(cache, names[360:])) == 40


def test_a_lower_limit_holds_from_the_start(tmp_path: Path) -> None:
    fill(made(tmp_path / "c"), names_of(40))
    made(tmp_path / "c", 20 * 4 * PAGE)
    assert 0 < taken(tmp_path / "c") <= 20 * 4 * PAGE


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    one, other = names_of(2)
    cache = made(tmp_path / "c", 5 * PAGE)
    fill(cache, [one])
    fill(cache, [other], 5 * PAGE)
    assert held(cache, [one, other]) == [one]


def damage_nothing(ledger: Path) -> None:
    """The half entry alone."""


def tear(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes()[:1000])


def restart_the_machine(ledger: Path) -> None:
    body = bytes(8 * FOLDERS)
    ledger.write_bytes(ledger_head(b"an earlier boot".ljust(36), body) + body)


def lie(ledger: Path) -> None:
    ledger.write_bytes(ledger.read_bytes()[:40] + bytes(8 * FOLDERS))


def remove(ledger: Path) -> None:
    ledger.unlink()


@pytest.mark.parametrize("harm", [damage_nothing, tear, restart_the_machine, lie, remove])
def test_what_a_kill_or_a_power_cut_leaves_is_counted_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm
) -> None:
    monkeypatch.setattr(module, "ADMIT", 1)
    cache = made(tmp_path / "c", 20 * 4 * PAGE)
    names = names_of(60)
    fill(cache, names[:20])
    half = tmp_path / "c" / names[0][:3] / f"{names[0]}.new"
    half.write_bytes(bytes(PAGE))
    harm(tmp_path / "c/ledger")
    if harm is restart_the_machine:
        cache = made(tmp_path / "c", 20 * 4 * PAGE)  # as after every restart
    for name in names[20:]:
        fill(cache, [name])
        assert taken(tmp_path / "c") <= 20 * 4 * PAGE + PAGE
    assert not half.exists()


def test_a_stopped_process_that_holds_the_ledger_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    monkeypatch.setattr(module, "_PAUSE", 1.0)
    one, other, third = names_of(3)
    cache = made(tmp_path / "c")
    fill(cache, [one])
    with (tmp_path / "c/ledger").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        began = time.monotonic()
        fill(cache, [other, *names_of(50)[3:]])
        assert 0.2 <= time.monotonic() - began < 1, "it waited once"
        assert held(cache, [one, other]) == [one]
    fill(cache, [other])
    assert held(cache, [one, other]) == [one], "it waits no more for a while"
    time.sleep(max(0, began + 1.3 - time.monotonic()))
    fill(cache, [third])
    assert held(cache, [one, other, third]) == [one, third]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_no_entry(tmp_path: Path, kind: str) -> None:
    one, other = names_of(2)
    cache = made(tmp_path / "c")
    fill(cache, [one, other])
    place = tmp_path / "c" / one[:3] / one
    kept = place.rename(tmp_path / "kept")
    if kind == "link":
        place.symlink_to(kept)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    before = kept.read_bytes()
    assert cache.get(one) is None
    fill(cache, [one])
    assert held(cache, [one]) == ([] if kind == "folder" else [one])
    assert kept.read_bytes() == before


def test_nothing_is_written_or_removed_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ADMIT", 1)
    cache = made(tmp_path / "c", 20 * 4 * PAGE)
    names = names_of(60)
    fill(cache, names[:20])
    outside = (tmp_path / "c" / names[0][:3]).rename(tmp_path / "outside")
    (tmp_path / "c" / names[0][:3]).symlink_to(outside)
    others = [name for name in names[20:] if name[:3] != names[0][:3]]
    beside = names[0][:3] + "0" * 29
    fill(cache, [beside, *others])
    assert [path.name for path in outside.iterdir()] == [names[0]]
    assert others[-1] in held(cache, others)


def test_the_folder_is_this_users_alone(tmp_path: Path) -> None:
    fill(made(tmp_path / "above/c"), names_of(1))
    (file,) = entries(tmp_path / "above/c")
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "above/c", file.parent, file)]
    assert modes == [0o700, 0o700, 0o600]


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def a_file(folder: Path) -> None:
    folder.write_bytes(b"")


def a_linked_ledger(folder: Path) -> None:
    folder.mkdir(0o700)
    (folder / "ledger").symlink_to(folder.parent / "precious")


def a_pipe(folder: Path) -> None:
    folder.mkdir(0o700)
    os.mkfifo(folder / "ledger")


@pytest.mark.parametrize("arrange", [open_to_all, a_file, a_linked_ledger, a_pipe])
def test_a_folder_that_cannot_serve_is_an_error_by_name(tmp_path: Path, arrange) -> None:
    arrange(tmp_path / "c")
    with pytest.raises(StoreError, match=rf"{tmp_path}/c: .*{FOLDER}"):
        made(tmp_path / "c")
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("options", ["size=4096", "ro"])
def test_a_disk_that_is_full_or_read_only_is_an_error_at_the_start(
    small_disk: Path, options: str
) -> None:
    small_disk.chmod(0o700)
    (small_disk / "file").write_bytes(b"1")
    remount(small_disk, options)
    reason = "read-only file system" if options == "ro" else "no space left on device"
    with pytest.raises(StoreError, match=f"cache can't be used: {reason}; choose another folder"):
        made(small_disk / "c" if options == "ro" else small_disk)


@pytest.mark.parametrize("options", ["size=163840", "ro"])
def test_a_disk_that_fills_up_or_turns_read_only_turns_it_off_with_a_word(
    small_disk: Path, options: str, caplog: pytest.LogCaptureFixture
) -> None:
    small_disk.chmod(0o700)
    cache = made(small_disk)
    names = names_of(60)
    fill(cache, names[:4])
    for name in names[:4]:
        set_used(cache, name, 100)  # so that the next use is one to note
    remount(small_disk, options)
    fill(cache, names[4:])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "reading goes on from the bucket" in caplog.text
    there = held(cache, names)
    assert there[:4] == names[:4], "what is held still serves"
    assert len(there) < 40
    if options != "ro":
        assert used_pages(small_disk) <= 0.95 * 40, "a twentieth stays free"


@pytest.mark.parametrize(("blocks", "spare"), [(10_000, 500), (10**9, 2**30 // 4096)])
def test_a_gigabyte_or_a_twentieth_of_the_disk_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, spare: int
) -> None:
    """Disks of 41 MB and of 4 TB: what would leave less is not kept."""
    cache, names = made(tmp_path / "c"), names_of(2)
    for name, free in zip(names, (spare + 100, spare), strict=True):
        disk = SimpleNamespace(f_blocks=blocks, f_frsize=4096, f_bavail=free)
        monkeypatch.setattr(os, "statvfs", lambda _, disk=disk: disk)
        fill(cache, [name])
    assert held(cache, names) == names[:1]


def test_a_folder_that_is_removed_turns_it_off_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = made(tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / "elsewhere")
    fill(cache, names_of(3))
    assert caplog.text.count("no such file or directory; the disk cache takes nothing more") == 1


@pytest.mark.parametrize(
    ("size", "said"), [("much", "expected a size such as 100GB"), ("100", "give the unit")]
)
def test_a_size_that_is_none_is_an_error(
    monkeypatch: pytest.MonkeyPatch, size: str, said: str
) -> None:
    monkeypatch.setenv(LIMIT, size)
    with pytest.raises(MachineError, match=f"{LIMIT}: .*{said}"):
        disk_cache()


@pytest.mark.parametrize("size", ["", "0"])
def test_there_is_none_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv(LIMIT, size)
    assert disk_cache() is None


def test_its_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = []
    monkeypatch.setenv(LIMIT, "1GB")
    for name, value in [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), (FOLDER, str(tmp_path))]:
        monkeypatch.setenv(name, value)
        cache = disk_cache()
        assert cache is not None
        places.append(str(cache.folder))
    assert places == ["/h/.cache/spikedeblur/buckets", "/x/spikedeblur/buckets", str(tmp_path)]
