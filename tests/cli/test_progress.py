"""What people see of a job that runs, and of one that ended."""

from __future__ import annotations

import importlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from spikedeblur.cli import main, output, progress
from spikedeblur.pipeline.host.reporter import Parts


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture(autouse=True)
def _text_again():
    """Tests of commands in one process must not see each other's --log-format."""
    yield
    output.begin(quiet=False)


def lines(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_pipe_gets_plain_lines_at_most_four_a_minute_and_the_last(clock, capsys):
    with progress.progress_bar("Voxelizing", "windows") as reporter:
        for done in range(41):
            reporter.progress(done, 40, f"{done} MB")
            clock.now += 1
    said = lines(capsys)
    assert said == [
        "Voxelizing: 15/40 windows, 1.0/s, 25.0 s left, 15 MB",
        "Voxelizing: 30/40 windows, 1.0/s, 10.0 s left, 30 MB",
        "Voxelizing: 40/40 windows, 1.0/s, in 40.0 s, 40 MB",
    ]


def test_a_terminal_shows_that_torch_loads_while_one_waits_for_it(monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    (tmp_path / "torch.py").write_text("loaded = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    finders = list(sys.meta_path)
    with progress.progress_bar("Restoring", "frames"):
        assert importlib.import_module("torch").loaded
    assert "loading torch" in sys.stderr.getvalue()
    assert sys.meta_path == finders


def objects(capsys) -> list[dict]:
    return [json.loads(line) for line in lines(capsys)]


def test_json_is_one_object_a_second_and_the_first_and_last(clock, capsys):
    output.chosen_log_format.set("json")
    with progress.progress_bar("Voxelizing", "windows") as reporter:
        for done in range(1, 10):
            clock.now += 0.5
            reporter.progress(done, 9, f'{done} "MB"\n')
    said = objects(capsys)
    assert [line["done"] for line in said] == [1, 3, 5, 7, 9]
    assert list(said[1]) == ["time", "stage", "done", "total", "rate", "eta", "unit", "detail"]
    assert datetime.fromisoformat(said[1].pop("time")).utcoffset() == timedelta(0)
    assert said[1] == {
        "stage": "voxelizing",
        "done": 3,
        "total": 9,
        "rate": 2.0,
        "eta": 3.0,
        "unit": "windows",
        "detail": '3 "MB"\n',
    }
    assert said[-1]["eta"] == 0


def test_each_phase_has_objects_of_its_own_and_what_is_not_known_is_null(clock, capsys):
    output.chosen_log_format.set("json")
    with progress.progress_bar("Training", "steps") as reporter:
        reporter.progress(501, 1000, "")
        reporter.progress(72, 72, "reading")
    resumed, read = objects(capsys)
    assert (resumed["rate"], resumed["eta"]) == (None, None)
    assert (read["done"], read["total"]) == (72, 72)


@pytest.mark.parametrize("place", [0, 1, 99])
@pytest.mark.parametrize("option", [["--log-format", "json"], ["--log-format=json"]])
def test_commands_tell_progress_as_json_and_nothing_else(place, option, capsys, tmp_path):
    arguments = ["simulate", str(tmp_path / "out"), "--scenes", "3", "--size", "16x16"]
    arguments += ["--workers", "1"]
    arguments[place:place] = option
    assert main(arguments) == 0
    captured = capsys.readouterr()
    said = [json.loads(line) for line in captured.err.splitlines()]
    assert (said[-1]["stage"], said[-1]["done"], said[-1]["total"]) == ("simulating", 3, 3)
    assert captured.out.startswith("3 clips")
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_long_commands_end_their_json_with_all_done(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = str(Path(__file__).parents[2] / "configs/deblur/quickstart.yaml")
    recording = ["--blur", "d/val_blurry_33/scenes/00000", "--exposure", "33", "--fps", "1000"]
    recording += ["--spikes", "d/val_spike_2xds/scenes/00000/spike.dat"]
    train = ["--set", "DATA.ROOT=s.zarr", "--set", "TRAIN.MAX_STEPS=2", "--run", "run"]
    train += ["--set", "TRAIN.VAL_MAX_WINDOWS=1"]
    for split in ("train", "val"):
        simulated = ["simulate", "d", "--scenes", "1", "--split", split, "--size", "64x64"]
        assert main([*simulated, "--workers", "1"]) == 0
    commands = {
        "aligning": ["align", "d", "--log", "l.txt"],
        "voxelizing": ["voxelize", "l.json", "s.zarr", "--workers", "1"],
        "training": ["train", "--config", config, *train],
        "evaluating": ["evaluate", "s.zarr", "--split", "val", "--methods", "blur,sdm"],
        "restoring": ["restore", *recording, "--method", "sdm", "--out", "sharp"],
    }
    capsys.readouterr()
    for stage, arguments in commands.items():
        assert main([*arguments, "--log-format", "json"]) == 0, stage
        said = capsys.readouterr().err.splitlines()
        told = [json.loads(line) for line in said if line.startswith("{")]
        assert {line["stage"] for line in told} == {stage}
        assert told[-1]["done"] == told[-1]["total"] > 0


def test_another_log_format_is_wrong_use(capsys):
    assert main(["doctor", "--log-format", "xml"]) == 2
    assert "expected text or json" in capsys.readouterr().err


def test_what_a_former_run_did_is_not_taken_for_speed(clock, capsys):
    with progress.progress_bar("Training", "steps") as reporter:
        clock.now += 20
        for done in range(501, 504):
            reporter.progress(done, 1000, "")
            clock.now += 20
    assert lines(capsys)[-1] == "Training: 503/1000 steps, 20.0 s each, 2:45 h left"


def test_frames_of_a_former_run_are_not_taken_for_speed_where_parts_are_told(clock, capsys):
    with progress.progress_bar("Restoring", "frames") as reporter:
        parts = Parts(reporter, 10, {"frames": 1.0, "checks": 0.0})
        parts.expect({"frames": 2}, done=8)
        parts.did("checks")
        for _ in range(2):
            clock.now += 20
            parts.did("frames", finished=1)
    assert lines(capsys) == [
        "Restoring: 9/10 frames, 20.0 s each, 20.0 s left",
        "Restoring: 10/10 frames, 20.0 s each, in 40.0 s",
    ]


def test_a_second_phase_begins_its_own_count(clock, capsys):
    with progress.progress_bar("Training") as reporter:
        reporter.progress(72, 72, "reading")
        clock.now += 5
        reporter.progress(1, 10, "")
        clock.now += 20
        reporter.progress(2, 10, "")
    assert lines(capsys)[-1] == "Training: 2/10 20.0 s each, 2:40 min left"


def test_a_phase_that_counts_something_else_names_it(clock, capsys):
    with progress.progress_bar("Training", "steps") as reporter:
        reporter.counts("windows")
        reporter.progress(720, 720, "reading")
        reporter.counts("steps")
        reporter.progress(500, 500)
    reading, training = capsys.readouterr().err.splitlines()
    assert reading.startswith("Training: 720/720 windows, ")
    assert training.startswith("Training: 500/500 steps")


def test_a_narrow_terminal_cuts_what_is_in_work_and_nothing_else(monkeypatch, tmp_path):
    with (tmp_path / "err").open("w+", encoding="utf-8") as terminal:
        monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("TERM", "xterm")
        with progress.progress_bar("Voxelizing", "windows") as reporter:
            reporter.progress(204, 771, "20.3 MB, 1.0 MB/s of spikes, train/scenes/00058")
        terminal.seek(0)
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.read())
    (line,) = {line.rstrip() for line in re.split(r"[\r\n]", shown) if "204/771" in line}
    assert "windows" in line
    assert "0:00:00" in line
    assert line.endswith("…")


def test_the_end_says_what_was_made_how_long_it_took_and_what_comes_next(capsys, tmp_path):
    arguments = ["simulate", str(tmp_path / "out"), "--scenes", "1", "--size", "16x16"]
    assert main([*arguments, "--workers", "1"]) == 0
    made, took, following = capsys.readouterr().out.splitlines()
    assert made.startswith("1 clip with 3 blurred frames")
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
        "with progress_bar('Restoring', 'frames') as reporter:\n"
        "    for done in (1, 2, 3):\n"
        "        reporter.progress(done, 3, 'note')\n"
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
