"""Names and values of others on the terminal."""

from __future__ import annotations

import ast
import json
import logging
import typing
from pathlib import Path

import numpy as np
import pytest

from spikedeblur.cli import app, main
from spikedeblur.cli.output import clean, print_table, say
from spikedeblur.cli.progress import progress_bar

HOSTILE = "\x1b]0;title\x07\x1b[2Jred\x9b31m\u202egnp\x00\x08"
"""Sets the title, clears the screen, colours, turns the direction of text, goes back."""


def acts(text: str) -> bool:
    return any(not c.isprintable() and c not in "\n\t" for c in text)


def test_cleaned_text_acts_on_no_terminal_and_keeps_its_lines() -> None:
    assert clean(f"a\n{HOSTILE}") == (
        "a\n\\x1b]0;title\\x07\\x1b[2Jred\\x9b31m\\u202egnp\\x00\\x08"
    )
    assert clean("ünï ✓ 'b\"") == "ünï ✓ 'b\""


def test_all_that_prints_cleans(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say(HOSTILE, err=True)
    print_table([("a", HOSTILE), (HOSTILE, "2")], title=HOSTILE)
    logging.getLogger("spikedeblur.x").warning("%s", HOSTILE)
    with progress_bar("Making") as reporter:
        reporter.progress(1, 1, HOSTILE)
        reporter.note(HOSTILE)
        reporter.warn(HOSTILE)
    out, err = capsys.readouterr()
    assert out.count("title") == 4
    assert err.count("title") == 5
    assert not acts(out + err)


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", f"{HOSTILE[1:]}.dat"),
        ("inspect", "x.dat", HOSTILE[:-2]),
        ("restore", f"--{HOSTILE}"),
        ("align", ".", "--layout", HOSTILE),
        (HOSTILE,),
        ("simulate", "out", "--scenes", HOSTILE),
        ("check", HOSTILE),
    ],
)
def test_what_a_shell_hands_over_is_said_cleaned(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("\0", "") for word in words]) in (1, 2)
    assert not acts(capsys.readouterr().err)


def test_names_in_files_of_others_are_said_cleaned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = HOSTILE.replace("\x00", "")
    folder = tmp_path / name
    folder.mkdir()
    np.zeros(1000 * 8, np.uint8).tofile(folder / "a.dat")
    assert main(["inspect", str(folder / "a.dat"), "--geometry", "8x8,top-down"]) == 0
    assert main(["inspect", str(folder)]) == 0
    (tmp_path / "a.json").write_text(json.dumps({"format": name}))
    assert main(["inspect", str(tmp_path / "a.json")]) == 1
    (tmp_path / "a.yaml").write_text(json.dumps({"DATA": {name: 1}}))
    assert main(["inspect", str(tmp_path / "a.yaml")]) == 1
    said = "".join(capsys.readouterr())
    assert "title" in said
    assert not acts(said)


def test_no_command_prints_but_by_the_function_that_cleans(repository: Path) -> None:
    for path in sorted((repository / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                in_say = path.name == "output.py" and ast.unparse(node).startswith(
                    "print(_mark(label, stream) + clean("
                )
                assert in_say or name not in ("print", "typer.echo", "click.echo"), path
                assert "sys.stdout.write" not in name
                assert "sys.stderr.write" not in name


def test_whole_numbers_of_all_commands_have_bounds() -> None:
    unbounded = []
    seen = 0
    for command in app.registered_commands:
        hints = typing.get_type_hints(command.callback, include_extras=True)
        for name, hint in hints.items():
            kind, *options = typing.get_args(hint) or (None,)
            if options and int in (kind, *typing.get_args(kind)):
                seen += 1
                if None in (options[0].min, options[0].max):
                    unbounded.append((command.callback.__name__, name))
    assert seen > 20
    assert unbounded == []


@pytest.mark.parametrize("value", ["1e308", "1e-308", "nan", "inf", "-1", "0"])
@pytest.mark.parametrize("option", ["--gain", "--rate"])
def test_numbers_that_no_camera_has_are_refused(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.zeros(1000 * 8, np.uint8).tofile(tmp_path / "a.dat")
    geometry = ("--geometry", "8x8,top-down")
    out = str(tmp_path / "b.dat")
    assert main(["convert", str(tmp_path / "a.dat"), out, *geometry, f"{option}={value}"]) == 2
    assert option in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.parametrize(
    "words",
    [
        ("restore", "--frames-per-exposure", "1000000000", "--out", "x"),
        ("simulate", "x", "--scenes", "1", "--seed", "1" + "0" * 23),
        ("simulate", "x", "--scenes", "9" * 6000),
        ("voxelize", "a.json", "x", "--bins", "1000000000"),
        ("split", "a.json", "--seed", "9" * 30),
        ("restore", "--out", "x", "--shutter", "1e99"),
    ],
)
def test_numbers_of_many_digits_are_wrong_use(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error) < 8000


def test_a_table_too_wide_has_the_numbers_of_a_cell_below_each_other(monkeypatch, capsys):
    scores = ["16.06 / 0.523"] * 6
    rows = [("sequence", "windows", *"abcdef"), ("test/scenes / 00000", "3", *scores)]
    monkeypatch.setenv("COLUMNS", "80")
    print_table(rows)
    narrow = capsys.readouterr().out.splitlines()
    assert max(map(len, narrow)) <= 80
    assert narrow[-2].split() == ["test/scenes", "/", "00000", "3", *["16.06"] * 6]
    assert narrow[-1].split() == ["0.523"] * 6
    monkeypatch.delenv("COLUMNS")
    print_table(rows)
    assert "16.06 / 0.523   16.06 / 0.523" in capsys.readouterr().out
