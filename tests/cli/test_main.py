"""The command line's frame: help, exit codes, one-paragraph errors, nothing heavy to start."""

import errno
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from spikedeblur import __version__
from spikedeblur.cli import app, main

COMMANDS = [
    "simulate",
    "align",
    "check",
    "calibrate",
    "split",
    "voxelize",
    "train",
    "runs",
    "evaluate",
    "export",
    "adapt",
    "restore",
    "report",
    "convert",
    "inspect",
    "view",
    "doctor",
    "config-schema",
]


def test_the_commands_are_those_of_the_contract():
    names = [command.callback.__name__ for command in app.registered_commands]
    assert sorted(name.replace("_", "-") for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_one_example(command, capsys):
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.count("Example: spikedeblur") == 1


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from spikedeblur.cli import main; main(['--help']); main(['--version']);"
        "heavy = {'torch', 'zarr', 'dask', 'numpy', 'pydantic', 'PIL'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"spikedeblur {__version__}" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["simulate"],
        ["simulate", "out"],
        ["simulate", "out", "--scenes", "1", "--frames", "x"],
        ["simulate", "out", "--scenes", "1", "--size", "large"],
        ["simulate", "out", "--scenes", "1", "--split", "holdout"],
    ],
)
def test_wrong_use_exits_with_2_and_says_what_is_expected(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failure_exits_with_1_and_one_paragraph_without_traceback(capsys, tmp_path):
    missing = str(tmp_path / "missing.dat")
    assert main(["inspect", missing]) == 1
    error = capsys.readouterr().err
    assert (
        error == f"error: {missing}: expected a file or folder, found none\nhint: check the path\n"
    )


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(tmp_path, place):
    arguments = ["inspect", str(tmp_path / "missing.dat")]
    arguments.insert(place, "--debug")
    with pytest.raises(ValueError, match="expected a file"):
        main(arguments)


def test_an_error_of_the_system_is_told_in_words(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments = ["simulate", str(tmp_path / "file"), "--scenes", "1", "--size", "16x16"]
    assert main([*arguments, "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "file" in error


def test_an_error_of_writing_names_the_file_that_was_asked_for(capsys, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    np.save(tmp_path / "in.npy", np.ones((8, 4, 4), np.uint8))
    monkeypatch.setattr("os.fsync", full)
    assert main(["convert", str(tmp_path / "in.npy"), str(tmp_path / "out.dat")]) == 1
    error = capsys.readouterr().err
    assert f"error: {tmp_path / 'out.dat.json'}: No space left on device" in error
    assert ".partial" not in error


@pytest.mark.parametrize("name", ["-dash", "a space", "it's", "ümlaut", "a;b"])
def test_the_next_command_is_one_that_a_shell_takes(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    arguments = ["simulate", "--scenes", "1", "--size", "16x16", "--workers", "1", "--", name]
    assert main(arguments) == 0
    for command, few in (("align", []), ("voxelize", ["--workers", "1"])):
        line = capsys.readouterr().out.splitlines()[-1].removeprefix("Next: ")
        words = shlex.split(line)
        assert words[:2] == ["spikedeblur", command]
        assert main([*words[1:], *few]) == 0


def test_simulate_reports_in_json_and_keeps_stdout_clean(capsys, tmp_path):
    arguments = ["simulate", str(tmp_path / "out"), "--scenes", "1", "--size", "16x16"]
    assert main([*arguments, "--workers", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["clips"], summary["written"], summary["windows"]) == (1, 1, 3)


def test_doctor_examines_this_machine(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["spikedeblur"]["found"] == __version__
    assert findings["Blosc lz4"]["ok"]
