"""`spikedeblur adapt` as a user types it; what it fits is looked at elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer.main

from spikedeblur.cli import app, main
from spikedeblur.pipeline import adapt
from spikedeblur.pipeline.adapt.job import AdaptSummary
from spikedeblur.pipeline.sequences import find_recording

TWO = ["--blur", "a", "--spikes", "a.dat", "--blur", "b", "--spikes", "b.dat"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What recordings are looked for with; nothing is read or fitted."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(find_recording, "find_recording", lambda *found: calls.append(found))
    summary = AdaptSummary(
        out="m.safetensors", steps=1, recordings=2, exposures=3, loss_before=1.0, loss_after=0.5
    )
    monkeypatch.setattr(adapt, "adapt", lambda *_, **__: summary)
    return calls


def test_each_folder_has_a_sequence_of_the_log(asked, tmp_path: Path, capsys) -> None:
    out, log = str(tmp_path / "m.safetensors"), ["--log", "log.txt"]
    assert main(["adapt", out, *TWO, *log, "--seq", "test/x", "--seq", "test/y"]) == 0
    assert [when.seq for _, _, when, _ in asked] == ["test/x", "test/y"]
    assert main(["adapt", out, *TWO, *log]) == 0
    assert [when.seq for _, _, when, _ in asked[2:]] == [None, None]
    assert main(["adapt", out, *TWO, *log, "--seq", "test/x"]) == 2
    assert "one --seq for each --blur, got 1 for 2" in capsys.readouterr().err


def test_the_next_command_says_of_the_spike_camera_what_was_said(asked, tmp_path, capsys) -> None:
    camera = ["--geometry", "8x8,bottom-up", "--rate", "20000", "--gain", "0.5", "--first", "2ms"]
    times = ["--frame-rate", "30", "--shutter", "16ms"]
    assert main(["adapt", str(tmp_path / "m.safetensors"), *TWO, *camera, *times]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("Next: ")]
    name, command, *words = shlex.split(line.removeprefix("Next: "))
    context = typer.main.get_command(app).commands[command].make_context(command, words)
    assert (name, command) == ("spikedeblur", "restore")
    typed = {option: context.params[option] for option in ("geometry", "rate", "gain", "first")}
    assert typed == {"geometry": "8x8,bottom-up", "rate": 20000.0, "gain": 0.5, "first": 0.002}
