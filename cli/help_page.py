"""The page that --help prints: summary, usage, arguments, options in groups, an example.

An option says its group as Typer's `rich_help_panel`. Rich itself isn't used: it takes as long to
import as all of the rest.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

FRAMES = "Recording"
TIMES = "Times of the frames"
SIMULATED = "Simulated frames"
SPIKES = "Spike camera"
MODEL = "Model"
OUTPUT = "Output"
GLOBAL = "Global options"

_GLOBAL_OPTIONS = [
    ("-q, --quiet", "Print results and warnings only."),
    ("--log-format text|json", "Form of the progress on stderr."),
    ("--debug", "Show the traceback of an error."),
]

_HYPHEN = "\N{NON-BREAKING HYPHEN}"


class Command(TyperCommand):
    """A command whose help reads from the summary to the example, in plain text.

    It refuses URLs where it takes paths, and links that end nowhere but at themselves.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        for parameter in self.get_params(ctx):
            value = ctx.params.get(parameter.name)
            for given in value if isinstance(value, list | tuple) else [value]:
                if isinstance(given, Path):
                    _require_no_url(given, parameter)
                if isinstance(given, Path | str):
                    _require_no_loop(given)
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        summary, _, more = (self.help or "").strip().partition("\n\n")
        body, _, example = more.partition("Example: ")
        formatter.write_text(summary)
        formatter.write_paragraph()
        formatter.write_usage(ctx.command_path, " ".join(_usage(self.get_params(ctx))))
        if body.strip():
            formatter.write_paragraph()
            formatter.write_text(_unbroken(body.strip()))
        for title, rows in _groups(self.get_params(ctx), ctx).items():
            with formatter.section(title):
                formatter.write_dl(rows)
        if example:
            formatter.write_paragraph()
            formatter.write_text(_unbroken(f"Example: {example}"))
        formatter.buffer = [part.replace(_HYPHEN, "-") for part in formatter.buffer]


def _require_no_url(path: Path, parameter: Any) -> None:
    url = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", str(path))
    # A folder here may have a name such as s3: too.
    if url is not None and not Path(f"{url[1]}:").exists():
        text = f"{url[1]}://{str(path)[url.end() :]}"
        raise typer.BadParameter(
            f"expected a path of this machine, got the URL {text}; give a folder or file, and copy "
            "it from or to the bucket (as `aws s3 cp --recursive` does)",
            param_hint=_metavar(parameter)
            if parameter.param_type_name == "argument"
            else parameter.opts[0],
        )


def _require_no_loop(given: Path | str) -> None:
    """Refuse symbolic links that lead to themselves, which no system call can follow.

    Raises:
        OSError: what is given is the path of one.
    """
    try:
        Path(given).stat()
    except ValueError:  # no path at all
        return
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise


def _usage(parameters: list[Any]) -> list[str]:
    words = ["[OPTIONS]"]
    for parameter in parameters:
        name = _metavar(parameter)
        if parameter.param_type_name == "argument":
            words.append(name if parameter.required else f"[{name}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {name}")
    return words


def _groups(parameters: list[Any], ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return rows of names and help by the group's title, in the order of a page."""
    first = ("Arguments", "Options", FRAMES, TIMES, SIMULATED, SPIKES, MODEL)
    groups: dict[str, list[tuple[str, str]]] = {title: [] for title in first}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            title, name = "Arguments", _metavar(parameter)
            record = name, record[1].replace("[required]", "")
        else:
            title, name = getattr(parameter, "rich_help_panel", None) or "Options", record[0]
            if "--help" in parameter.opts:
                title = GLOBAL
        groups.setdefault(title, []).append((name, _plain(record[1])))
    if OUTPUT in groups:
        groups[OUTPUT] = groups.pop(OUTPUT)
    groups[GLOBAL] = [*_GLOBAL_OPTIONS, *groups.pop(GLOBAL)]
    return {title: rows for title, rows in groups.items() if rows}


def _metavar(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{name}..." if parameter.nargs != 1 and not name.endswith("...") else name


def _plain(text: str) -> str:
    """Return an option's help without bounds, which a wrong value is told, and brackets in it."""
    text = text.replace("\\[", "[")  # as some of Typer's releases write it
    number = r"-?[\d.e+]+"
    text = re.sub(rf"(?:; |(?<=\[))(?:{number}<=?)?x(?:<=?{number}|>=?{number})?(?=\])", "", text)
    text = re.sub(r"\[default: \((.*)\)(; required)?\]$", r"[default: \1\2]", text, flags=re.DOTALL)
    return _unbroken(text.replace("  []", ""))


def _unbroken(text: str) -> str:
    """Return text whose options are not broken at their hyphens when lines are filled."""
    return re.sub(r"--[a-z][\w-]+|\w+-\w+(?=[\[\],|])", lambda m: m[0].replace("-", _HYPHEN), text)
