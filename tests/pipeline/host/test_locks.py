"""One writer a folder or file, and none of the dead."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spikedeblur.pipeline.host import locks
from spikedeblur.pipeline.host.files import atomic_write, sweep
from spikedeblur.pipeline.host.locks import HeldError, only_writer, only_writer_of

HOLD = """
import sys, time
from pathlib import Path
from spikedeblur.pipeline.host.locks import only_writer
with only_writer(Path(sys.argv[1]), "held"):
    print("held", flush=True)
    time.sleep(60)
"""

POOL = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from spikedeblur.pipeline.host.locks import end_with_parent
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=end_with_parent) as pool:
        import os
        print(*{pool.submit(os.getpid).result() for _ in range(8)}, flush=True)
        pool.submit(time.sleep, 60).result()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_held_folder_is_refused_under_every_name_and_free_when_its_holder_was_killed(tmp_path):
    folder = tmp_path / "real"
    (tmp_path / "link").symlink_to(folder)
    with holder(folder) as process:
        for name in ("real", "link", "real/../real"):
            with pytest.raises(HeldError, match="wait"), only_writer(tmp_path / name, "wait"):
                pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (folder / ".lock").exists()  # what it left means nothing
    with only_writer(folder, "wait"):
        pass


def test_nothing_is_left_of_a_lock_nor_of_a_folder_that_stayed_empty(tmp_path):
    with only_writer(tmp_path / "a/b", "held"):
        assert (tmp_path / "a/b").is_dir()
    assert not (tmp_path / "a/b").exists()
    with only_writer(tmp_path / "a/b", "held"):
        (tmp_path / "a/b/x").touch()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["x"]


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with only_writer(tmp_path, "held"):
        pass
    assert "knows no locks" in caplog.text


def test_a_pools_processes_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as pool:
        assert pool.stdout is not None
        children = [int(pid) for pid in pool.stdout.readline().split()]
        assert children
        pool.kill()
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)):
        assert time.monotonic() < deadline, "orphans live on"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_sweeping_takes_leftovers_and_nothing_of_the_users(tmp_path):
    ours = [".0016.0123456789ab.partial.png", ".zarr.json.0123456789ab.partial"]
    theirs = [".partial.png", ".notes.partial", "x.0123456789ab.partial", ".lock", "0016.png"]
    for name in ours + theirs:
        (tmp_path / name).touch()
    (tmp_path / ".clip.0123456789ab.removed").mkdir()
    (tmp_path / ".clip.0123456789ab.removed/x").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    sweep(tmp_path, "zarr.json")
    assert (tmp_path / ours[0]).exists()
    assert not (tmp_path / ours[1]).exists()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)


def test_sweeping_leaves_what_may_be_in_writing(tmp_path):
    left = tmp_path / ".a.txt.0123456789ab.partial"
    left.touch()
    sweep(tmp_path)
    assert left.exists()
    sweep(tmp_path, own=True)
    assert not left.exists()


def test_a_held_file_is_refused_and_others_beside_it_are_not(tmp_path):
    with only_writer_of(tmp_path / "a.txt"):
        with pytest.raises(HeldError, match=r"a\.txt: another"), only_writer_of(tmp_path / "a.txt"):
            pass
        with only_writer_of(tmp_path / "b.txt"):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_lock_that_is_no_file_is_named_at_once(make, tmp_path):
    make(tmp_path / ".lock")
    named = pytest.raises(HeldError, match=r"\.lock: expected a regular file.*remove it")
    with named, only_writer(tmp_path, "wait"):
        pass


def as_another_user(work) -> int:
    """Run a function as a user without rights; returns its exit code."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("sticky", [0o777, 0o1777])
def test_a_lock_that_another_users_killed_process_left_is_no_lock(sticky, tmp_path):
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(0o755 if above != tmp_path else sticky)
    (tmp_path / ".lock").touch(0o644)

    def write() -> None:
        with only_writer(tmp_path, "wait"):
            (tmp_path / "product").write_text("x")

    assert as_another_user(write) == 0
    assert (tmp_path / "product").read_text() == "x"


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_lock_that_nobody_else_may_read_is_named_with_what_to_do(tmp_path, capfd):
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(0o755 if above != tmp_path else 0o777)
    (tmp_path / ".lock").touch(0o600)

    def write() -> None:
        named = pytest.raises(HeldError, match=r"belongs to another user.*remove it")
        with named, only_writer(tmp_path, "wait"):
            pass

    assert as_another_user(write) == 0, capfd.readouterr().err


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_folder_that_may_not_be_written_is_told_by_its_own_name(tmp_path, capfd):
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(0o755)

    def write() -> None:
        for what in (only_writer(tmp_path, "wait"), only_writer_of(tmp_path / "x.json")):
            with pytest.raises(PermissionError) as caught, what:
                pass
            assert caught.value.filename == str(tmp_path)
        with pytest.raises(PermissionError) as caught, atomic_write(tmp_path / "x.json"):
            pass
        assert caught.value.filename == str(tmp_path / "x.json")

    assert as_another_user(write) == 0, capfd.readouterr().err
