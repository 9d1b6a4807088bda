"""A real disk of a few pages, for what happens when it is full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = 4096
"""Bytes by which files take space on the disk."""


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Mount a disk of one megabyte at a folder; skip the test where that isn't allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount file systems here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    """Change a mounted disk, such as `size=8192` or `ro`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def used_pages(disk: Path) -> int:
    """Return how many pages of the disk are taken."""
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // PAGE
