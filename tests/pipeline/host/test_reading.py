"""Files that are none: pipes, devices and claims of a size."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from spikedeblur.pipeline.host.files import sha256_file
from spikedeblur.pipeline.host.reading import open_file, read_file, read_start


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [pipe, endless, link_to_a_pipe, listener, Path.mkdir])
@pytest.mark.parametrize(
    "use", [open_file, sha256_file, lambda p: read_file(p, 99), lambda p: read_start(p, 9)]
)
def test_what_is_no_file_is_refused_at_once(make, use, tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError) as caught:
        use(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [pipe, endless, link_to_a_pipe])
def test_nothing_is_appended_to_what_is_no_file(make, tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError):
        open_file(tmp_path / "x", "ab")


def test_a_file_larger_than_its_reader_expects_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(10**13)  # takes no disk
    with pytest.raises(OSError, match="at most 100 bytes, found 10000000000000"):
        read_file(tmp_path / "x", 100)
    assert read_start(tmp_path / "x", 3) == bytes(3)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "y").symlink_to("x")
    assert read_file(tmp_path / "y", 3) == b"abc"


def test_a_new_file_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        open_file(tmp_path / "x", "ab").close()
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
