"""What loading processes are to a program: they start early, see what it sees, and leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

IMPORTS = """
import os, signal, sys, threading, time
from multiprocessing import forkserver
import psutil
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.workers import cut_batch, open_workers, start_fork_server

def batches(sequences, workers=1):
    index = ClipIndex.every_start([s.length for s in sequences], 2)
    samples = ClipSamples(sequences, index, crop_size=8)
    plan = StepPlan(index, 1)
    planned = plan.batches(0, 1000)
    return open_workers(samples, plan, planned, workers=workers, prefetch_bytes=10**6)

def server():
    return psutil.Process(forkserver._forkserver._forkserver_pid)

def loading():
    return len([p for p in server().children() if p.status() != "zombie"])
"""

# Everything of a sequence but what a test changes.
WRAPPED = """
import os, sys
from spikedeblur.errors import SpikeDeblurError

class Wrapped:
    def __init__(self, sequence):
        self.sequence = sequence

    def __getattr__(self, name):
        if name == "sequence":
            raise AttributeError(name)
        return getattr(self.sequence, name)
"""

TELLING = """
class Telling(Wrapped):
    def clip(self, *span):
        raise SpikeDeblurError(f"{os.environ.get('TOLD')}, {'torch' in sys.modules}, {os.getcwd()}")
"""


def run_script(folder: Path, text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script that has no `if __name__` guard, in a process group that ends with it."""
    script = folder / "script.py"
    script.write_text(IMPORTS + text)
    process = subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, error = process.communicate(timeout=120)
        deadline = time.monotonic() + 20
        while living_members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not living_members(process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def living_members(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


@pytest.mark.slow
def test_a_script_without_a_guard_is_run_once(tmp_path, small_store):
    text = """
print("here")
start_fork_server()
with batches(open_store(sys.argv[1], "train"), workers=2) as steps:
    print([next(steps)["voxels"].shape[:2] for _ in range(3)], loading())
print(__file__, __spec__)
"""
    done = run_script(tmp_path, text, small_store)
    assert not done.stderr
    here, shapes, names = done.stdout.splitlines()
    assert here == "here"
    assert shapes == "[(1, 2), (1, 2), (1, 2)] 2"
    assert names == f"{tmp_path / 'script.py'} None"


@pytest.mark.slow
def test_a_script_that_defines_what_is_read_needs_a_guard_and_is_told_so(tmp_path, small_store):
    work = """
start_fork_server()
try:
    with batches([Wrapped(s) for s in open_store(sys.argv[1], "train")]) as steps:
        print(next(steps)["voxels"].shape[:2])
except SpikeDeblurError as error:
    print(error)
"""
    bare = run_script(tmp_path, WRAPPED + work, small_store)
    assert 'must stand under `if __name__ == "__main__":`' in bare.stdout
    guarded = "if __name__ == '__main__':" + work.replace("\n", "\n    ")
    done = run_script(tmp_path, WRAPPED + guarded, small_store)
    assert done.stdout == "(1, 2)\n", done.stderr


@pytest.mark.slow
def test_a_worker_has_the_environment_and_folder_of_now_and_no_torch(tmp_path, small_store):
    (tmp_path / "telling.py").write_text(WRAPPED + TELLING)
    (tmp_path / "later").mkdir()
    text = """
os.environ["TOLD"] = "before"
start_fork_server()
import torch
from telling import Telling
os.environ["TOLD"] = "now"
os.chdir("later")
try:
    with batches([Telling(s) for s in open_store(sys.argv[1], "train")]) as steps:
        next(steps)
except SpikeDeblurError as error:
    print(error)
"""
    done = run_script(tmp_path, text, small_store)
    assert done.stdout == f"now, False, {tmp_path / 'later'}\n", done.stderr


@pytest.mark.slow
def test_signals_to_the_whole_group_end_nothing_and_print_nothing(tmp_path, small_store):
    text = """
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
def shout():
    os.killpg(0, signal.SIGINT)
    os.killpg(0, signal.SIGTERM)
for delay in (0.0, 0.02, 0.1, 0.3):
    threading.Timer(delay, shout).start()
start_fork_server()
first = server()
sequences = open_store(sys.argv[1], "train")
with batches(sequences) as steps:
    next(steps)
    shout()
    print(len([next(steps) for _ in range(50)]), loading())
    shout()
with batches(sequences, workers=2) as steps:  # the next epoch, or a validation
    print(len([next(steps) for _ in range(50)]), loading())
print(first == server())
"""
    done = run_script(tmp_path, text, small_store)
    assert not done.stderr
    assert done.stdout == "50 1\n50 2\nTrue\n"


@pytest.mark.slow
def test_a_server_that_is_killed_ends_no_worker_and_is_started_anew(tmp_path, small_store):
    text = """
sequences = open_store(sys.argv[1], "train")
start_fork_server()
with batches(sequences) as steps:
    next(steps)
    (worker,) = server().children()
    server().kill()
    print(len([next(steps) for _ in range(50)]), worker.is_running())
os.waitid(os.P_PID, server().pid, os.WEXITED | os.WNOWAIT)
with batches(sequences, workers=2) as steps:
    print(len([next(steps) for _ in range(50)]), loading())
"""
    done = run_script(tmp_path, text, small_store)
    assert not done.stderr
    assert done.stdout == "50 True\n50 2\n"


@pytest.mark.slow
def test_a_server_that_dies_while_it_starts_is_an_error(tmp_path, small_store):
    text = """
from multiprocessing import resource_tracker, spawn
resource_tracker.ensure_running()
spawn.set_executable("/bin/false")
try:
    with batches(open_store(sys.argv[1], "train")) as steps:
        next(steps)
except SpikeDeblurError as error:
    print(error)
"""
    done = run_script(tmp_path, text, small_store)
    assert "forked from died, most often for lack of memory" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["importing", "starting", "loading"])
def test_workers_and_their_server_end_with_a_program_that_is_killed(tmp_path, small_store, moment):
    text = """
start_fork_server()
if sys.argv[2] == "starting":
    threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGKILL)).start()
with batches(open_store(sys.argv[1], "train"), workers=2) as steps:
    next(steps)
    while sys.argv[2] == "starting":
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_script(tmp_path, text, small_store, moment)
    assert done.returncode == -signal.SIGKILL
    assert moment == "starting" or not done.stderr
