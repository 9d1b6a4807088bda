"""How `error:` and `hint:` are made of a message, and what they look like on a terminal."""

from __future__ import annotations

import ast
import io
import itertools
import re
import sys
from pathlib import Path

import pytest

from spikedeblur.cli import main, output
from spikedeblur.cli.mistakes import divided
from spikedeblur.pipeline.host.reporter import counted


@pytest.mark.parametrize(
    ("message", "error", "hint"),
    [
        ("a.dat: expected A, found B; give --rate", "a.dat: expected A, found B", "give --rate"),
        ("a: cut; copy it again; give --rate", "a: cut", "copy it again; give --rate"),
        ("a: b; c differs", "a: b; c differs", ""),
        ("a: keys X, Y. Set them (--set KEY=VALUE)", "a: keys X, Y", "set them (--set KEY=VALUE)"),
        ("a.b; c: unknown; did you mean d?", "a.b; c: unknown", "did you mean d?"),
        ("no way; for a run folder give --run", "no way", "for a run folder give --run"),
    ],
)
def test_a_message_ends_with_its_hint(message: str, error: str, hint: str) -> None:
    assert divided(message) == (error, hint)


def test_nearly_all_messages_of_the_package_end_with_a_hint_that_is_seen(repository: Path) -> None:
    advised = seen = 0
    for room in ("pipeline", "configs"):
        for path in (repository / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                    text = ast.unparse(node.exc.args[0])
                    last = re.search(r"; ([^;]*)['\"]$", text)
                    if last and "{" not in last[1]:
                        seen += 1
                        advised += bool(divided(f"x; {last[1]}")[1])
    assert seen > 200
    assert advised / seen > 0.9


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("variable", [None, "NO_COLOR", "TERM"])
def test_colours_are_for_terminals_that_want_them(
    variable: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "dumb")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["inspect", str(tmp_path / "no.dat")]) == 1
    said = stream.getvalue()
    if variable is None:
        assert said.startswith("\x1b[1;31merror:\x1b[0m ")
        assert "\n\x1b[1;36mhint:\x1b[0m check the path\n" in said
    else:
        assert "\x1b" not in said


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("data/recording.da", "did you mean data/recording.dat?"),
        ("dat/recording.dat", "did you mean data/recording.dat?"),
        ("data/x.dat", "data has recording.dat"),
        ("other/deep/x.dat", "there is no folder other; check the path"),
        ("data/nothing", "check the path"),
    ],
)
def test_a_path_that_is_not_there_is_answered_by_its_neighbours(
    typed: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/recording.dat").write_bytes(b"\0" * 8)
    assert main(["inspect", typed]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[1].endswith(hint)
    assert said.count("\n") == 2


@pytest.mark.parametrize(
    ("typed", "where"),
    [
        ("convert s3://bucket/x.dat spike.dat --geometry vidar", "IN"),
        ("view gs://bucket/x.zarr", "PATH"),
        ("evaluate store.zarr --sensor s3://bucket/s.zarr", "--sensor"),
        ("restore --method sdm --blur b --spikes https://host/s.dat --out o", "--spikes"),
        ("restore --method sdm --blur b --spikes s.dat --out s3://bucket/o", "--out"),
        ("calibrate --recording a.dat --recording s3://bucket/b.dat --out s.zarr", "--recording"),
        ("adapt m.safetensors --blur s3://bucket/frames --spikes s.dat", "--blur"),
    ],
)
def test_a_url_is_refused_where_a_path_is_taken(
    typed: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 2
    (url,) = (word for word in typed.split() if "://" in word)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"error: {where}: expected a path of this machine, got the URL {url}"
    assert said[1].startswith("hint: give a folder or file, and copy it from or to the bucket")


def test_a_folder_that_is_named_like_a_scheme_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    assert main(["convert", "s3:/x.dat", "s3:/y.dat", "--geometry", "vidar"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: s3:/x.dat: expected a file with spikes, found none\n")


@pytest.mark.parametrize(
    "typed",
    [
        "restore --method blur --blur loop --spikes s.dat --out o",
        "restore --method blur --blur b --spikes s.dat --out loop",
        "evaluate loop",
        "train --run loop",
        "report loop",
    ],
)
def test_a_link_to_itself_is_told_as_such(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    assert main(typed.split()) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: loop: Too many levels of symbolic links\nhint: check the path")


def test_a_folder_of_any_number_of_names_is_looked_at_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spikedeblur.cli.mistakes._MOST_LOOKED_AT", 3)
    for n in range(10):
        (tmp_path / f"{n}.npy").touch()
    assert main(["inspect", str(tmp_path / "x.npy")]) == 1
    assert len(re.findall(r"\d\.npy", capsys.readouterr().err)) == 3


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


def test_no_message_gives_a_number_of_things_a_plural_that_stays(repository: Path) -> None:
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for room in ("cli", "pipeline")
        for path in (repository / room).rglob("*.py")
    }
    called = [
        node
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "counted"
    ]
    words = (node.args[1] for node in called if len(node.args) > 1)
    nouns = {str(word.value) for word in words if isinstance(word, ast.Constant)}
    assert len(nouns) > 30
    several = re.compile(rf" ({'|'.join(sorted(nouns))})s\b")
    stiff = [
        f"{path.relative_to(repository)}:{text.lineno}"
        for path, tree in trees.items()
        for text in ast.walk(tree)
        if isinstance(text, ast.JoinedStr)
        for number, words in itertools.pairwise(text.values)
        if isinstance(number, ast.FormattedValue) and isinstance(words, ast.Constant)
        if isinstance(number.value, ast.Call) and getattr(number.value.func, "id", "") == "len"
        if several.match(words.value)
    ]
    assert not stiff, "these say `1 frames`; take `counted`"


@pytest.mark.parametrize(
    ("called", "found", "said"),
    [
        ("/opt/venv/bin/spikedeblur", True, "spikedeblur"),
        (".venv/bin/spikedeblur", False, ".venv/bin/spikedeblur"),
        (str(Path(output.__file__).parents[1] / "__main__.py"), False, f"{sys.executable} -m"),
        ("/usr/bin/pytest", False, "spikedeblur"),
    ],
)
def test_a_next_command_calls_the_program_as_this_shell_finds_it(
    called: str, found: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setattr(output.shutil, "which", lambda name: called if found else None)
    assert output.command_line("inspect", Path("-x")).startswith(f"{said} ")
    assert output.command_line("inspect", Path("-x")).endswith("inspect ./-x")
