"""What is printed when a command can't go on: `error:` says what is wrong, `hint:` what to type.

Messages of the package end with the advice, after a semicolon: "x.dat: expected A, found B; give
--geometry". Here it gets a line of its own, and a path that isn't there the nearest that is.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import typer
import typer.main

from .output import say, typed
from .products import misplaced

_LONGEST = 4_000
"""Most characters of an error message that are printed."""
_MOST_LOOKED_AT = 5_000
"""Most names of a folder among which the nearest is sought."""
_MOST_NAMED = 3

_VERBS = (
    *("add", "align", "ask", "calibrate", "call", "change", "check", "choose", "complete"),
    *("continue", "convert", "copy", "correct", "count", "crop", "delete", "divide", "download"),
    *(
        "evaluate",
        "exchange",
        "expect",
        "export",
        "flatten",
        "free",
        "get",
        "give",
        "go",
        "install",
        "join",
        "keep",
    ),
    *("leave", "let", "log", "look", "lower", "make", "mount", "move", "name", "open", "pip"),
    *("put", "quote", "raise", "record", "reduce", "remove", "rename", "repeat", "replace"),
    *("resize", "restore", "run", "save", "see", "set", "simulate", "sort", "split", "stack"),
    *("start", "store", "take", "threshold", "train", "transpose", "try", "type", "undo", "update"),
    *("use", "view", "voxelize", "wait", "write"),
)
_ADVICE = re.compile(
    rf"(or,? |then |first )*((for|from|with|to) [^;]{{1,60}}?,? )?({'|'.join(_VERBS)})\b"
    r"|or\b|did you mean |it has |is it |were |--[a-z]|`spikedeblur |docs/\S+ explains"
    r"|for example\b",
    re.IGNORECASE,
)
_MISSING = re.compile(r"no such|no folder|no file|not there|found (none|no|nothing)\b", re.I)
_OF_OPTION = re.compile(r"(?:expected (?:an odd )?)?(--[a-z][a-z-]*)(?=[ :,])")


def tell(error: Exception, *, is_wrong_use: bool = False) -> int:
    """Print what is wrong and what to do; return the exit code: 1, or 2 for wrong use.

    Args:
        error: the package's own, the system's, or Typer's.
        is_wrong_use: whether Typer raised it.
    """
    if is_wrong_use:
        if type(error).__name__ == "NoArgsIsHelpError":
            say(str(error), err=True)
            return 2
        message, code = _of_wrong_use(error), int(getattr(error, "exit_code", 2))
    else:
        message = _in_words(error)
        option = _OF_OPTION.match(message)
        was_typed = option and any(word.startswith(option[1]) for word in typed.get())
        code = 2 if was_typed and not _MISSING.search(message) else 1
    what, advice = divided(_one_paragraph(message))
    nearest = "" if code == 2 else _nearest_path(what)
    other = "" if code == 2 else misplaced(what, _typed_paths(are_there=True))
    hints = [hint for hint in ([other] if other else [nearest, advice]) if hint]
    if nearest and advice.startswith(("check the path", "did you mean")):
        hints = [advice] if advice.startswith("did") else [nearest]
    if not hints and code == 2:
        hints = [_help_of(error)]
    say(what, err=True, label="error")
    for hint in hints:
        say(_one_paragraph(hint), err=True, label="hint")
    return code


def divided(message: str) -> tuple[str, str]:
    """Return what is wrong, and the advice with which a message ends; empty: it has none."""
    at = len(message)
    for cut in reversed(list(re.finditer(r"; |\. ", message))):
        if not _ADVICE.match(message, cut.end()):
            break
        at = cut.start()
    advice = message[at:].removeprefix("; ").removeprefix(". ").removesuffix(".")
    return message[:at].removesuffix("."), advice[:1].lower() + advice[1:]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a question for the nearest of these names; empty: none is near."""
    known = list(names)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    near = near or [name for name in known if word and name.startswith(word)][:_MOST_NAMED]
    return f"did you mean {' or '.join(near)}?" if near else ""


def _one_paragraph(message: str) -> str:
    """Return a message in one line, shortened to `_LONGEST` characters."""
    shown = message.replace("\n", " ").replace("\t", " ")
    if len(shown) <= _LONGEST:
        return shown
    return f"{shown[: _LONGEST // 2]} [...] {shown[-_LONGEST // 2 :]}"


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        if isinstance(error, FileExistsError):
            return f"{where}a file is in the way of what should be made there; choose another path"
        return f"{where}{error.strerror}; check the path, its permissions and the free space"
    if isinstance(error, MemoryError):
        return "out of memory; take smaller pieces (--workers, --tile, a smaller crop)"
    return str(error)


def _help_of(error: Any) -> str:
    """Return a hint where the message has none: what an option is, an example, or the page."""
    context: Any = getattr(error, "ctx", None)
    parameter: Any = getattr(error, "param", None)
    kind = type(error).__name__
    message = str(getattr(error, "param_hint", None) or _in_words(error))
    named = re.search(r"--[a-z][a-z-]*", message)
    if parameter is None and named:
        from . import app

        commands: Any = typer.main.get_command(app)
        command = commands.commands.get(next(iter(typed.get()), ""))
        known = [] if command is None else command.params
        parameter = next((one for one in known if named[0] in one.opts), None)
    if kind != "MissingParameter" and parameter is not None and parameter.help:
        return f"{parameter.opts[0]}: {parameter.help}"
    example = (getattr(context and context.command, "help", "") or "").partition("Example: ")[2]
    if kind == "MissingParameter" and example:
        return f"for example: {' '.join(example.partition(chr(10) * 2)[0].split())}"
    name = next((word for word in typed.get() if not word.startswith("-")), "")
    group = context.find_root().command if context is not None else None
    known = group is None or name in group.commands
    return f"see `{' '.join(('spikedeblur', *([name] if known else []), '--help'))}`"


def _of_wrong_use(error: Any) -> str:
    """Return Typer's message in our words: by its attributes, as its classes are of many places."""
    context: Any = getattr(error, "ctx", None)
    parameter: Any = getattr(error, "param", None)
    kind = type(error).__name__
    if kind == "NoSuchOption":
        known = [name for one in context.command.params for name in one.opts if len(name) > 2]
        short = (word for word in typed.get() if re.match(r"-[a-z]{2}", word))
        near = next((f"did you mean -{word}?" for word in short if f"-{word}" in known), "")
        near = near or did_you_mean(error.option_name, known)
        return f"no such option {error.option_name}" + (f"; {near}" if near else "")
    if kind == "MissingParameter":
        if parameter.param_type_name == "argument":
            return f"missing {parameter.metavar or parameter.name.upper()}"
        return f"missing option {parameter.opts[0]}"
    message = str(getattr(error, "message", error))
    unknown = re.match(r"No such command '(.*?)'", message)
    if unknown:
        near = did_you_mean(unknown[1], context.command.commands)
        return f"no such command {unknown[1]}" + (f"; {near}" if near else "")
    extra = re.match(r"Got unexpected extra argument\S* \((.*)\)", message)
    if extra:
        return f"expected nothing more, got {extra[1]}{_unquoted(extra[1])}"
    if not hasattr(error, "param_hint"):
        return message[:1].lower() + message[1:].removesuffix(".")
    where: str | None = error.param_hint
    if where is not None and any(name in message for name in where.split(" / ")):
        where = ""  # the message names it
    if where is None and parameter is not None:
        is_option = parameter.param_type_name == "option"
        where = parameter.opts[0] if is_option else parameter.metavar or parameter.name.upper()
    message = message.removeprefix(f"{where}: ")
    return f"{where}: {_plainly(message, parameter)}" if where else message


def _unquoted(extra: str) -> str:
    """Return advice where typed words are one path with spaces; empty: they are none."""
    words = typed.get()
    for i, j in itertools.combinations(range(len(words) + 1), 2):
        path = " ".join(words[i:j])
        if j - i > 1 and words[j - 1] in extra.split() and os.path.lexists(path):
            return f'; quote a path with spaces: "{path}"'
    return ""


def _plainly(message: str, parameter: Any) -> str:
    """Return in our words what Typer and pydantic say of a value of the wrong form."""
    value = "" if parameter is None else _typed_value(parameter.opts)
    got = f", got {value}" if value else ""
    message = message.removeprefix("Value error, ")
    choices = re.fullmatch(r"'(.*)' is not one of (.*?)\.?", message, re.DOTALL)
    if choices:
        names = re.findall(r"'([^']*)'", choices[2])
        near = did_you_mean(choices[1], names)
        some = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
        return f"expected {some}, got {choices[1]}" + (f"; {near}" if near else "")
    outside = re.fullmatch(r"(\S+) is not in the range (?:x>=|(\S+)<=x<=)(\S+?)\.?", message)
    if outside:
        least, most = (outside[2], outside[3]) if outside[2] else (outside[3], None)
        is_less = float(outside[1]) < float(least)
        return f"expected {f'{least} or more' if is_less else f'{most} or less'}{got}"
    if re.search(r"valid integer|as an integer", message):
        return f"expected a whole number{got}"
    if re.search(r"valid (number|float)", message):
        return f"expected a number{got}"
    bound = re.fullmatch(r"Input should be (greater|less) than or equal to (\S+)", message)
    if bound:
        return f"expected {bound[2]} or {'more' if bound[1] == 'greater' else 'less'}{got}"
    return message


def _typed_value(options: list[str]) -> str:
    words = typed.get()
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in options:
            value = value if equals else "".join(words[i + 1 : i + 2])
            return value if len(value) <= 100 else f"{value[:100]}..."
    return ""


def _nearest_path(message: str) -> str:
    """Return a hint for a path that was typed and isn't there; empty: the message is of no such."""
    if not _MISSING.search(message):
        return ""
    for path in _typed_paths(are_there=False):
        names = {str(path), str(path.absolute())}
        if any(re.search(rf"(^|[ ']){re.escape(name)}[:'/]", message) for name in names):
            return _neighbours(path)
    return ""


def _typed_paths(*, are_there: bool) -> Iterator[Path]:
    """Yield what was typed and is a path, or may be one that isn't there."""
    for word in typed.get():
        for text in (word, word.partition("=")[2]):
            if text and "://" not in text and len(text) < 4_000 and "\0" not in text:
                path = Path(text)
                if os.path.lexists(path) == are_there:
                    yield path


def _neighbours(path: Path) -> str:
    """Return a hint: the nearest names in the folder, or where the path ends."""
    there = path.parent
    missing = [path.name]
    while not there.exists() and there != there.parent:
        missing.insert(0, there.name)
        there = there.parent
    try:
        with os.scandir(there) as entries:
            names = sorted(entry.name for entry in islice(entries, _MOST_LOOKED_AT))
    except OSError:
        return ""
    near = difflib.get_close_matches(missing[0], names, n=_MOST_NAMED, cutoff=0.6)
    if near:
        whole = [Path(there, name, *missing[1:]) for name in near]
        found = [one for one in whole if one.exists()] or [there / name for name in near]
        return f"did you mean {' or '.join(map(str, found))}?"
    if len(missing) > 1:
        return f"there is no folder {there / missing[0]}; check the path"
    alike = [name for name in names if path.suffix and name.endswith(path.suffix)]
    if alike:
        more = ", ..." if len(alike) > _MOST_NAMED else ""
        return f"{there.absolute()} has {', '.join(alike[:_MOST_NAMED])}{more}"
    return ""
