"""The one atomic write: a whole file or none, whatever goes wrong and whoever writes."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_disks import PAGE, remount, used_pages

from spikedeblur.pipeline.host.files import (
    AsideFile,
    UnsafePathError,
    all_inside,
    atomic_write,
    links_out,
    require_inside,
    write_text,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def by_numpy(file: AsideFile) -> None:
    np.save(file, PIXELS)


def by_pillow(file: AsideFile) -> None:
    Image.fromarray(PIXELS).save(file, format="PNG")


def by_pillow_as_jpeg(file: AsideFile) -> None:
    Image.fromarray(PIXELS).save(file, format="JPEG")


def by_torch(file: AsideFile) -> None:
    torch.save({"pixels": torch.from_numpy(PIXELS)}, file)


def by_hand(file: AsideFile) -> None:
    file.write(PIXELS)


WRITERS = (by_numpy, by_pillow, by_pillow_as_jpeg, by_torch, by_hand)


def in_memory(write: Callable[[AsideFile], None]) -> bytes:
    content = io.BytesIO()
    write(content)  # type: ignore[arg-type]
    return content.getvalue()


@pytest.mark.parametrize("write", WRITERS)
def test_every_writer_gives_the_bytes_that_it_gives_in_memory(tmp_path: Path, write) -> None:
    with atomic_write(tmp_path / "new/x.bin") as file:
        write(file)
    assert (tmp_path / "new/x.bin").read_bytes() == in_memory(write)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.bin"]


@pytest.mark.parametrize("write", WRITERS)
def test_a_last_part_that_does_not_fit_is_an_error_and_the_old_file_stays(
    small_disk: Path, write
) -> None:
    path = small_disk / "x.bin"
    path.write_bytes(b"good")
    pages = -(-len(in_memory(write)) // PAGE)
    remount(small_disk, f"size={(used_pages(small_disk) + pages - 1) * PAGE}")
    with pytest.raises((OSError, RuntimeError)) as caught, atomic_write(path) as file:
        write(file)
    if isinstance(caught.value, OSError):  # torch tells of it by an error of its own
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert [(p.name, p.read_bytes()) for p in small_disk.iterdir()] == [("x.bin", b"good")]
    remount(small_disk, "size=1m")
    with atomic_write(path) as file:
        write(file)
    assert path.read_bytes() == in_memory(write)


def test_what_is_shorter_on_disk_than_what_was_written_is_an_error(tmp_path: Path) -> None:
    """`ndarray.tofile` leaves such a file: C's stdio loses its last part without a word."""
    path = tmp_path / "x.bin"
    path.write_bytes(b"good")

    def lose_the_last_part() -> None:
        with atomic_write(path) as file:
            file.write(b"1234567")
            file.flush()
            os.truncate(file.path, 4)

    with pytest.raises(OSError, match="expected 7 bytes, found 4") as caught:
        lose_the_last_part()
    assert caught.value.filename == str(path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.bin", b"good")]


def test_no_descriptor_is_given_away(tmp_path: Path) -> None:
    with pytest.raises(io.UnsupportedOperation), atomic_write(tmp_path / "x.bin") as file:
        PIXELS.tofile(file)
    assert not list(tmp_path.iterdir())


def test_going_back_and_writing_again_counts_once(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "x.bin") as file:
        file.write(b"....5678")
        file.seek(0)
        file.write(b"1234")
        assert file.tell() == 4
    assert (tmp_path / "x.bin").read_bytes() == b"12345678"


def test_an_error_of_the_writers_own_is_what_is_raised(small_disk: Path) -> None:
    """Not one of the disk, which can't hold what is still to be written."""
    remount(small_disk, f"size={PAGE}")

    def fail_while_bytes_are_held_back() -> None:
        with atomic_write(small_disk / "x.bin") as file:
            file.write(b"." * (2 * PAGE - 1))
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_bytes_are_held_back()
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize("name", ["plain.txt", "x" * 250, ".hidden", "ünï ✓"])
def test_names_of_any_kind_are_written_and_their_half_written_form_is_no_product(
    tmp_path: Path, name: str
) -> None:
    with atomic_write(tmp_path / name) as file:
        (aside,) = tmp_path.iterdir()
        assert aside == file.path
        assert aside.name.startswith(".")
        assert aside.suffix == ".partial"
    write_text(tmp_path / name, "ü\n")
    assert (tmp_path / name).read_bytes() == "ü\n".encode()


def test_a_folder_that_a_link_puts_elsewhere_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (tmp_path / "elsewhere/c").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "in").symlink_to(root / "a")
    (tmp_path / "alias").symlink_to(root)
    for folder in (root, root / "a/b", root / "in/b", root / "not/there", tmp_path / "alias/a"):
        require_inside(root, folder)
        require_inside(tmp_path / "alias", folder)
    for folder in (root / "out", root / "out/c", root / "in/../../elsewhere", tmp_path):
        with pytest.raises(UnsafePathError, match="leaves"):
            require_inside(root, folder)


def test_only_recorded_links_lead_out(tmp_path):
    root, disk = tmp_path / "root", tmp_path / "disk"
    for folder in (root / "a", disk / "deep", tmp_path / "secret"):
        folder.mkdir(parents=True)
    (disk / "deep/x").touch()
    (tmp_path / "secret/y").touch()
    (root / "a/link").symlink_to(disk)
    (disk / "on").symlink_to(tmp_path / "secret")
    (root / "own").symlink_to(root / "a")
    links = links_out(root, ["a/link/deep/x", "own/z"])
    assert links == {"a/link": str(disk)}
    assert all_inside(root, ["a/link/deep/x"], "m", links) == {
        "a/link/deep/x": f"{root}/a/link/deep/x"
    }
    for path, known in (("a/link/deep/x", {}), ("a/link/on/y", links), ("../disk/deep/x", links)):
        with pytest.raises(UnsafePathError):
            all_inside(root, [path], "m", known)
    assert links_out(root, ["a/link/on/y"]) == links | {"a/link/on": str(tmp_path / "secret")}
