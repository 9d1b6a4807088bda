"""What loading processes are to a program: they start early, see what it sees, and leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS = """
import os, signal, sys, threading, time
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.train.data.order import ClipIndex, StepPlan
from spikedeblur.pipeline.train.data.samples import ClipSamples
from spikedeblur.pipeline.train.data.workers import open_workers, start_fork_server

def batches(sequences, workers=1):
    index = ClipIndex.every_start([s.length for s in sequences], 2)
    samples = ClipSamples(sequences, index, crop_size=8)
    plan = StepPlan(index, 1)
    planned = plan.batches(0, 1000)
    return open_workers(samples, plan, planned, workers=workers, prefetch_bytes=10**6)
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
    """Run a script that has no `if __name__` guard, in a process group of its own."""
    script = folder / "script.py"
    script.write_text(IMPORTS + text)
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_script_without_a_guard_is_run_once(tmp_path, small_store):
    text = """
print("here")
with batches(open_store(sys.argv[1], "train"), workers=2) as steps:
    print([next(steps)["voxels"].shape[:2] for _ in range(3)])
print(__file__, __spec__)
"""
    done = run_script(tmp_path, text, small_store)
    assert not done.stderr
    here, shapes, names = done.stdout.splitlines()
    assert here == "here"
    assert shapes.count("(1, 2)") == 3
    assert names == f"{tmp_path / 'script.py'} None"


@pytest.mark.slow
def test_a_script_that_defines_what_is_read_needs_a_guard_and_is_told_so(tmp_path, small_store):
    work = """
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
os.environ["GONE"] = "x"
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
def test_signals_to_the_whole_group_end_no_worker_and_print_nothing(tmp_path, small_store):
    text = """
import psutil
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
for delay in (0.0, 0.02, 0.1, 0.3):
    threading.Timer(delay, os.killpg, (0, signal.SIGINT)).start()
start_fork_server()
with batches(open_store(sys.argv[1], "train")) as steps:
    next(steps)
    os.killpg(0, signal.SIGINT)
    os.killpg(0, signal.SIGTERM)
    print(len([next(steps) for _ in range(50)]))
deadline = time.monotonic() + 30
group = os.getpgid(0)
def members():
    tracker = "resource_tracker"
    others = [p for p in psutil.process_iter() if p.pid != os.getpid()]
    found = [p for p in others if os.getpgid(p.pid) == group]
    return [p for p in found if p.status() != "zombie" and tracker not in " ".join(p.cmdline())]
while members() and time.monotonic() < deadline:
    time.sleep(0.05)
print(members())
"""
    done = run_script(tmp_path, text, small_store)
    assert not done.stderr
    assert done.stdout == "50\n[]\n"


@pytest.mark.slow
def test_workers_and_their_server_end_with_a_program_that_is_killed(tmp_path, small_store):
    text = """
with batches(open_store(sys.argv[1], "train"), workers=2) as steps:
    next(steps)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_script(tmp_path, text, small_store)  # it waits for all that hold the pipes
    assert done.returncode == -9
    assert not done.stderr
