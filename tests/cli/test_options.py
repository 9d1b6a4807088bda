"""An option means the same in every command, and is declared once."""

from __future__ import annotations

import itertools
import typing
from collections import defaultdict
from typing import Any, NamedTuple

import pytest
import typer
from typer.models import OptionInfo

from spikedeblur.cli import app

HELP, TYPE, METAVAR, PANEL, DEFAULT = "help", "type", "metavar", "panel", "default"
DIFFERENT: dict[str, set[str]] = {
    # Several recordings, where other commands take one.
    "--blur": {TYPE, HELP},
    "--spikes": {TYPE, HELP},
    "--times": {TYPE, HELP},
    "--seq": {TYPE, HELP},
    # What is written or replaced is each command's own.
    "--out": {TYPE, METAVAR, HELP, DEFAULT},
    "--overwrite": {HELP},
    "--json": {TYPE, METAVAR, HELP},  # evaluate: a file, in which figures are compared later
    # Written by align, read by others.
    "--log": {HELP, PANEL, DEFAULT},
    "--manifest": {TYPE, HELP, PANEL, DEFAULT},
    # Written by train, which needs a folder; read by others, from a URL too.
    "--run": {TYPE, HELP, PANEL, DEFAULT},
    # The same, but with a default of the command's own, or none (which changes the type).
    "--exposure": {TYPE, DEFAULT},
    "--fps": {TYPE, DEFAULT},
    "--model": {DEFAULT},
    "--sensor": {DEFAULT},
    # The same, said for what the command does with it.
    "--instants": {TYPE, HELP, PANEL, DEFAULT},
    "--seed": {HELP},
    "--size": {TYPE, HELP, PANEL},
    "--spike-size": {HELP, PANEL, DEFAULT},
    "--workers": {HELP, PANEL, DEFAULT},
    "--dry-run": {HELP},
    "--split": {TYPE, METAVAR, HELP, PANEL, DEFAULT},  # a store may have any splits
    # Two things of one name, which scripts know.
    "--frames": {TYPE, METAVAR, HELP, PANEL, DEFAULT, "min", "max"},  # a folder, or how many
    "--verify": {HELP},  # lags, or checksums
}
"""What may differ between commands, by option, and why."""


class Declared(NamedTuple):
    """An option of a command."""

    command: str
    source: OptionInfo
    says: dict[str, Any]


def declared() -> dict[str, list[Declared]]:
    """Return every option of every command, by its first name."""
    found: dict[str, list[Declared]] = defaultdict(list)
    for command in app.registered_commands:
        function = command.callback
        assert function is not None
        for name, hint in typing.get_type_hints(function, include_extras=True).items():
            if typing.get_origin(hint) is not typing.Annotated:
                continue
            kind, *extras = typing.get_args(hint)
            for option in (extra for extra in extras if isinstance(extra, OptionInfo)):
                # The first name of an option in Annotated stands where its default would.
                names = [option.default, *(option.param_decls or ()), f"--{name.replace('_', '-')}"]
                says = {
                    TYPE: kind,
                    METAVAR: option.metavar,
                    PANEL: option.rich_help_panel,
                    HELP: option.help,
                    DEFAULT: option.show_default,
                    "min": option.min,
                    "max": option.max,
                }
                first = next(word for word in names if str(word).startswith("--"))
                found[str(first)].append(Declared(function.__name__, option, says))
    return found


DECLARED = declared()


def differing(options: list[Declared]) -> set[str]:
    return {
        part
        for one, other in itertools.combinations(options, 2)
        for part in one.says
        if one.says[part] != other.says[part]
    }


@pytest.mark.parametrize("name", [name for name, found in DECLARED.items() if len(found) > 1])
def test_commands_agree_on_an_option_but_for_what_is_listed(name: str) -> None:
    commands = ", ".join(option.command for option in DECLARED[name])
    found = differing(DECLARED[name])
    assert found <= DIFFERENT.get(name, set()), (
        f"{name} of {commands}: take the option of cli/options, or list why it differs"
    )
    assert found == DIFFERENT.get(name, set()), f"{name}: {commands} agree; take it off the list"


def test_options_that_are_listed_as_different_are_of_several_commands() -> None:
    assert {name for name in DIFFERENT if len(DECLARED[name]) < 2} == set()


@pytest.mark.parametrize("name", [name for name, found in DECLARED.items() if len(found) > 1])
def test_options_that_are_alike_are_declared_once(name: str) -> None:
    for one, other in itertools.combinations(DECLARED[name], 2):
        if one.says == other.says:
            assert one.source is other.source, f"{name}: {one.command} and {other.command} copy it"


def test_every_option_is_seen() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = {
        parameter.opts[0]
        for command in commands.values()
        for parameter in command.params
        if parameter.param_type_name == "option"
    }
    assert shown - {"--help"} == set(DECLARED)
