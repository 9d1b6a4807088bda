"""What --help prints, and what the shell offers when Tab is pressed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import typer.main

from spikedeblur.cli import app, main
from spikedeblur.cli.completion import LAYOUT_NAMES
from spikedeblur.pipeline.align.layouts import LAYOUTS

COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("command", COMMANDS)
def test_help_goes_from_summary_to_example_in_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([command, "--help"]) == 0
    page = capsys.readouterr().out
    summary, usage, *_ = page.split("\n\n")
    assert "\n" not in summary
    assert len(summary) <= 78
    assert summary.endswith(".")
    assert usage.startswith("Usage: ")
    assert max(map(len, page.splitlines())) <= 80
    titles = re.findall(r"^(\S.*):$", page, re.MULTILINE)
    assert titles[-1] == "Global options"
    assert re.search(r"\n\nExample: spikedeblur", page)
    assert "\x1b" not in page
    # What a machine calls a value is no help; what may be typed is.
    assert not re.search(r"<(path|str|int|float|int range|float range)>|<=x|\[default: \(", page)
    for option in COMMANDS[command].params:
        assert all(word in page for word in option.help.split()), "a word is broken"
        assert f"{option.opts[0]}" in page or option.param_type_name == "argument"
        if option.param_type_name == "option" and not option.is_flag:
            assert option.metavar or re.search(rf"{option.opts[0]} [<\[]\w+", page), (
                f"{command} {option.opts[0]}"
            )


def test_options_are_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    main(["restore", "--help"])
    page = capsys.readouterr().out
    titles = re.findall(r"^(\S.*):$", page, re.MULTILINE)
    groups = "Recording, Times of the frames, Simulated frames, Spike camera, Model, Output"
    assert titles == [*groups.split(", "), "Global options"]
    cameras = page.partition("Spike camera:")[2].partition("\n\n")[0]
    assert set(re.findall(r"^  (--\S+)", cameras, re.MULTILINE)) >= {"--rate", "--geometry"}


def offered(*words: str) -> tuple[list[str], list[str]]:
    """Return what bash is offered for the last word, and the heavy packages that it took."""
    code = (
        "import atexit, json, sys; sys.argv = ['spikedeblur'];"
        "heavy = lambda: sorted({'torch', 'zarr', 'dask'} & set(sys.modules));"
        "atexit.register(lambda: print(json.dumps(heavy()), file=sys.stderr));"
        "from spikedeblur.cli import main; main()"
    )
    line = " ".join(("spikedeblur", *words))
    variables = {
        "_SPIKEDEBLUR_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(), json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("restore", "--method", "t"), ["tfp", "tfi"]),
        (("evaluate", "x.zarr", "--methods", "blur,s"), ["blur,sdm"]),
        (("evaluate", "x.zarr", "--protocol", "gopro-blur-"), ["gopro-blur-gamma"]),
        (("evaluate", "x.zarr", "--split", "v"), ["val"]),
        (("restore", "--split", "te"), ["test"]),
        (("align", "--layout", "spk"), ["spk-gopro"]),
        (("view", "x.dat", "--geometry", "spk-x"), ["spk-x4k-train", "spk-x4k-val"]),
        (("adapt", "--model", "sm"), ["small"]),
        (("train", "--set", "TRAIN.OPTIM.L"), ["TRAIN.OPTIM.LR="]),
        (("train", "--config", "configs/deblur/q"), ["configs/deblur/quickstart.yaml"]),
    ],
)
def test_the_shell_is_offered_names_without_torch(words: tuple[str, ...], names: list[str]) -> None:
    found, heavy = offered(*words)
    assert found == names
    assert heavy == []


def test_layouts_that_are_offered_are_those_that_there_are() -> None:
    assert set(LAYOUT_NAMES) == set(LAYOUTS)
