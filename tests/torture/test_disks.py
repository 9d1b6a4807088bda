"""Disks that fill up, fail or can't be written: a clear error, nothing torn, and it goes on later.

Faults are put into every write in turn, and into the rename by which each file takes its name: the
n-th fails and those after it, for n = 1, 2, 4, 7, ... until the command comes through. Beside that,
real small disks (tmpfs), where the tests may mount them.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from small_disks import PAGE, remount

from spikedeblur.cli import main
from spikedeblur.pipeline.host.files import AsideFile

from . import kills
from .kills import Stage, fingerprints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = {stage.name: stage for stage in kills.stages()}


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the stages read, small."""
    folder = tmp_path_factory.mktemp("products")
    for split in ("train", "val"):
        words = f"simulate {folder}/data --scenes 1 --split {split} {_SMALL_RECORDING} --workers 1"
        assert main(words.split()) == 0
    for stage in ("align", "voxelize"):
        assert main(_words(kills_stage(stage), folder / stage, folder)) == 0
    kills.write_config(folder)
    return folder


_SMALL_RECORDING = "--size 32x48 --length 13 --exposure 9 --stride 4"


def kills_stage(name: str) -> Stage:
    return next(stage for stage in kills.stages() if stage.name == name)


def _words(stage: Stage, out: Path, products: Path) -> list[str]:
    """Return the stage's command, in this process and smaller."""
    text = " ".join(stage.arguments).replace("--workers 2", "--workers 1")
    text = text.replace("--scenes 6", "--scenes 1").replace(kills.RECORDING, _SMALL_RECORDING)
    text = text.replace("--model small --tile 64", "--method sdm")  # which writes the same way
    return [word.format(out=out, f=products) for word in text.split()]


def run(stage: Stage, out: Path, products: Path, capsys: pytest.CaptureFixture[str]) -> int:
    capsys.readouterr()
    return main(_words(stage, out, products))


def reference(
    stage: Stage, products: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> Path:
    """The undisturbed product, by the same command as `run`."""
    out = folder / "whole"
    assert run(stage, out, products, capsys) == 0
    return out


class Failing:
    """Renames, or writes, that fail from the n-th on, or only at the n-th."""

    def __init__(self, at: int, number: int, *, once: bool, write: bool) -> None:
        self.at, self.number, self.once = at, number, once
        self.count = 0
        self._of, self._name = (AsideFile, "write") if write else (Path, "replace")

    def __enter__(self) -> Failing:
        failing, real = self, getattr(self._of, self._name)
        self._real = real

        def fail(one: Path | AsideFile, argument: object) -> object:
            failing.count += 1
            if failing.count == failing.at or (failing.count > failing.at and not failing.once):
                path = str(one) if isinstance(one, Path) else None
                raise OSError(failing.number, os.strerror(failing.number), path)
            return real(one, argument)

        setattr(self._of, self._name, fail)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._of, self._name, self._real)


FAULTS = [
    pytest.param(errno.ENOSPC, False, False, id="full"),
    pytest.param(errno.ENOSPC, False, True, id="full at a write"),
    pytest.param(errno.EDQUOT, False, False, id="quota"),
    pytest.param(errno.EROFS, False, False, id="read-only"),
    pytest.param(errno.EIO, True, False, id="flaky"),
]


@pytest.mark.parametrize(("number", "once", "write"), FAULTS)
@pytest.mark.parametrize("name", list(STAGES))
def test_a_fault_at_any_write_tears_nothing_and_the_next_start_finishes(
    products: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    number: int,
    once: bool,
    write: bool,
) -> None:
    stage = STAGES[name]
    if name == "train" and (write or number in (errno.EDQUOT, errno.EROFS)):
        pytest.skip("takes long, and differs from a full disk in the message only")
    whole = reference(stage, products, tmp_path, capsys)
    expected = fingerprints(whole)
    survived = failed = 0
    at = 1
    while True:
        out = tmp_path / f"out{at}"
        with Failing(at, number, once=once, write=write) as failing:
            code = run(stage, out, products, capsys)
        said = capsys.readouterr().err
        if failing.count < at:
            assert code == 0
            break
        if code == 0:
            assert once, said  # tried again
            survived += 1
        else:
            failed += 1
            assert code == 1
            assert "Traceback" not in said
            assert os.strerror(number).lower() in said.lower()
            assert str(out) in said
            if out.exists():
                assert list(kills.half(stage, out, whole, expected)) == []
                assert not list(out.rglob(".*partial*")), "half-written files stay"
            assert run(stage, out, products, capsys) == 0, capsys.readouterr().err
        assert fingerprints(out) == expected
        shutil.rmtree(out)
        at += 1 + at // 2
    assert failed or once
    assert failed + survived > 1


@pytest.mark.parametrize("name", list(STAGES))
def test_a_disk_that_is_full_is_named_and_once_there_is_space_it_goes_on(
    products: Path,
    tmp_path: Path,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    stage = STAGES[name]
    whole = reference(stage, products, tmp_path / "beside", capsys)  # as deep as the disk
    expected = fingerprints(whole)
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    pages = sum(-(-path.stat().st_size // PAGE) for path in whole.rglob("*") if path.is_file())
    for fitting in (int(0.1 * size) // PAGE, int(0.5 * size) // PAGE, pages - 1):
        remount(small_disk, f"size={max(fitting, 1) * PAGE}")
        out = small_disk / "out"
        code = run(stage, out, products, capsys)
        said = capsys.readouterr().err
        assert code == 1
        assert "Traceback" not in said
        assert str(out) in said
        assert list(kills.half(stage, out, whole, expected)) == []
        remount(small_disk, "size=500m")
        assert run(stage, out, products, capsys) == 0, capsys.readouterr().err
        assert fingerprints(out) == expected
        shutil.rmtree(out)


@pytest.mark.parametrize("name", list(STAGES))
def test_a_read_only_disk_is_named_and_what_is_on_it_stays(
    products: Path,
    tmp_path: Path,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    stage = STAGES[name]
    remount(small_disk, "size=500m")
    out = small_disk / "out"
    assert run(stage, out, products, capsys) == 0
    before = fingerprints(out)
    remount(small_disk, "ro")
    assert run(stage, out, products, capsys) == 1
    said = capsys.readouterr().err
    assert "read-only" in said.lower()
    assert str(out) in said
    remount(small_disk, "rw")
    assert fingerprints(out) == before
