"""Ctrl-C and SIGTERM end every command soon, with a line that says how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spikedeblur.cli import main

SECONDS = 10
"""In which a stopped command must be gone."""


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "spikedeblur", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # A job that a shell put in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop(process: subprocess.Popen[str], number: int, ready: Callable[[], bool]) -> str:
    """Send the signal to all its processes, as a terminal does, once it works."""
    deadline = time.monotonic() + 60
    while not ready() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("workers", "number"), [(1, signal.SIGINT), (1, signal.SIGTERM), (2, signal.SIGINT)]
)
def test_simulate_stops_and_goes_on(tmp_path: Path, workers: int, number: int) -> None:
    options = ("--scenes", 200, "--size", "64x64", "--length", 49, "--workers", workers)
    process = start("simulate", tmp_path, *options)
    said = stop(process, number, lambda: any(tmp_path.rglob("spike.dat.json")))
    assert "the same command goes on from here" in said
    assert not list(tmp_path.rglob(".*partial*"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_voxelize_stops_and_goes_on(tmp_path: Path, workers: int) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    scenes = ("--scenes", 24, "--size", "64x64", "--length", 49, "--workers", 2)
    assert main(["simulate", str(data), *map(str, scenes)]) == 0
    assert main(["align", str(data), "--log", str(tmp_path / "a.txt"), "--no-verify"]) == 0
    process = start("voxelize", tmp_path / "a.json", store, "--workers", workers)
    said = stop(process, signal.SIGINT, lambda: any(store.rglob("spikes/c/0/0/0")))
    assert said.strip().endswith("the same command goes on from here")
    assert main(["voxelize", str(tmp_path / "a.json"), str(store), "--workers", "1"]) == 0
    assert main(["check", str(store), "--manifest", str(tmp_path / "a.json")]) == 0


def test_train_is_told_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Before the first step, too: there the loop's own handling has not begun."""
    from spikedeblur.pipeline.train import job as trainer

    def slow(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(trainer, "train", slow)
    for split in ("train", "val"):  # all that is looked at before torch is imported
        (tmp_path / "data" / split).mkdir(parents=True)
    words = ["train", "--config", "configs/deblur/quickstart.yaml"]
    words += ["--run", str(tmp_path / "run"), "--set", f"DATA.ROOT={tmp_path / 'data'}"]
    assert main(words) == 128 + signal.SIGTERM
    assert "the same command with --resume goes on from here" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.setenv("SPIKEDEBLUR_CALLER", "make all")  # as the Makefile does
    assert main(words) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.endswith("stopped; make all goes on from here\n")


_STOPPED_IN_ZARR = """
import asyncio, os, signal, sys
import spikedeblur.pipeline.inspect as module
from spikedeblur.cli import main
from zarr.core.sync import sync

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

async def write():
    await asyncio.sleep(0.5)  # until the main thread waits
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(60)

def stopped_before_zarr_waits():
    writing = write()
    os.kill(os.getpid(), signal.SIGINT)
    sync(writing)

def stopped_while_zarr_waits():
    sync(write())

module.inspect = lambda *_: globals()[sys.argv[1]]()
sys.exit(main(["inspect", "any"]))
"""


@pytest.mark.parametrize("when", ["before_zarr_waits", "while_zarr_waits"])
def test_nothing_is_said_after_the_line_that_says_how_to_go_on(when: str) -> None:
    """Zarr is left with a coroutine or a task, which Python calls never awaited or destroyed."""
    ended = subprocess.run(
        [sys.executable, "-c", _STOPPED_IN_ZARR, f"stopped_{when}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 128 + signal.SIGINT, ended.stderr
    assert ended.stderr == "stopped; the same command goes on from here\n"
