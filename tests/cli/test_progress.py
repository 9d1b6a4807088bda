"""What people see of a job that runs, and of one that ended."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from spikedeblur.cli import main, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def lines(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_pipe_gets_plain_lines_at_most_four_a_minute_and_the_last(clock, capsys):
    with progress.progress_bar("Voxelizing", "windows") as on_progress:
        for done in range(41):
            on_progress(done, 40, f"{done} MB")
            clock.now += 1
    said = lines(capsys)
    assert said == [
        "Voxelizing: 15/40 windows, 1.0/s, 25.0 s left, 15 MB",
        "Voxelizing: 30/40 windows, 1.0/s, 10.0 s left, 30 MB",
        "Voxelizing: 40/40 windows, 1.0/s, in 40.0 s, 40 MB",
    ]


def test_what_a_former_run_did_is_not_taken_for_speed(clock, capsys):
    with progress.progress_bar("Training", "steps") as on_progress:
        clock.now += 20
        for done in range(501, 504):
            on_progress(done, 1000, "")
            clock.now += 20
    assert lines(capsys)[-1] == "Training: 503/1000 steps, 20.0 s each, 2:45 h left"


def test_a_second_phase_begins_its_own_count(clock, capsys):
    with progress.progress_bar("Training") as on_progress:
        on_progress(72, 72, "reading")
        clock.now += 5
        on_progress(1, 10, "")
        clock.now += 20
        on_progress(2, 10, "")
    assert lines(capsys)[-1] == "Training: 2/10 20.0 s each, 2:40 min left"


def test_the_end_says_what_was_made_how_long_it_took_and_what_comes_next(capsys, tmp_path):
    arguments = ["simulate", str(tmp_path / "out"), "--scenes", "1", "--size", "16x16"]
    assert main([*arguments, "--workers", "1"]) == 0
    made, took, following = capsys.readouterr().out.splitlines()
    assert made.startswith("1 clips")
    assert re.fullmatch(r"Took \d+\.\d s", took)
    assert following.startswith("Next: spikedeblur align")


@pytest.mark.parametrize("place", [0, 1, 99])
def test_quiet_leaves_the_result_and_nothing_else(capsys, tmp_path, place):
    np.save(tmp_path / "in.npy", np.ones((8, 4, 4), np.uint8))
    arguments = ["convert", str(tmp_path / "in.npy"), str(tmp_path / "out.dat")]
    arguments.insert(place, "--quiet")
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert len(said.out.splitlines()) == 1
    assert main(["inspect", str(tmp_path / "missing"), "-q"]) == 1
    assert "expected a file" in capsys.readouterr().err


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_gets_a_bar_and_no_colours_where_they_are_unwanted(colours):
    code = (
        "from spikedeblur.cli.progress import progress_bar\n"
        "with progress_bar('Restoring', 'frames') as on_progress:\n"
        "    for done in (1, 2, 3):\n"
        "        on_progress(done, 3, 'note')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120"} | (
        {} if colours else {"NO_COLOR": "1"}
    )
    terminal, end = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=end, env=environment, check=True)
    os.close(end)
    said = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert "3/3" in said
    assert "frames" in said
    assert ("\x1b[38;5" in said or "\x1b[3" in said.replace("\x1b[?", "")) == colours
