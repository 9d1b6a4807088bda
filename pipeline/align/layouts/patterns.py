"""Patterns of paths in which {words} stand for parts of names, and {frame} for a frame's number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from ...frames.listing import walk_folders
from .contract import AlignmentError

MOST_SPLITS = 3
"""Most words of a pattern that share a name with the word before: the time to match a long name
grows with its length to this power."""

_WORD = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def require_pattern(pattern: str) -> str:
    """Return a pattern; refuse what is no path below the root, or has other braces than {words}.

    Raises:
        ValueError: it is so.
    """
    parts = pattern.split("/")
    if any(part in ("", ".", "..") or part.startswith(".") for part in parts) or "\\" in pattern:
        raise ValueError("expected a path below the root, such as {clip}/blur/{frame}.png")
    if set("{}") & set(_WORD.sub("", pattern)):
        raise ValueError("expected words of lower-case letters in braces, such as {clip}")
    if "}{" in pattern:
        raise ValueError("expected text between two words, such as {scene}_{clip}")
    if sum(max(0, len(_WORD.findall(part)) - 1) for part in parts) > MOST_SPLITS:
        raise ValueError(
            f"expected at most {MOST_SPLITS} places where a name is cut in two, as in "
            "{scene}_{clip}_{frame}.png; make folders of the other words"
        )
    return pattern


Pattern = Annotated[str, AfterValidator(require_pattern)]

Key = tuple[tuple[str, str], ...]
"""Pairs of a word other than {frame} and what it stands for, in order of the word."""


def words_of(pattern: str) -> list[str]:
    """Return the words of a pattern, each once, in order."""
    return list(dict.fromkeys(_WORD.findall(pattern)))


def _expression(pattern: str) -> re.Pattern[str]:
    text = ""
    parts = _WORD.split(pattern)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            text += _any_case_ending(part) if i == len(parts) - 1 else re.escape(part)
        elif f"(?P<{part}>" in text:
            text += f"(?P={part})"
        else:
            text += f"(?P<{part}>{'[0-9]{1,9}' if part == 'frame' else '[^/]+'})"
    return re.compile(text)


def _any_case_ending(text: str) -> str:
    """Return an expression for text whose ending, such as .png, may be upper-case."""
    before, dot, suffix = text.rpartition(".")
    return f"{re.escape(before + dot)}(?i:{re.escape(suffix)})"


def files_below(root: Path) -> Iterator[str]:
    """Yield all visible files below `root`, relative to it, in order."""
    for folder, _, names in walk_folders(root):
        top = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for name in names:
            yield top + name


def collect(root: Path, files: list[str], pattern: str) -> dict[Key, dict[int, Path]]:
    """Return the files that fit a pattern, by words and number; without {frame} the number is 0."""
    expression = _expression(pattern)
    collected: dict[Key, dict[int, Path]] = {}
    for file in files:
        match = expression.fullmatch(file)
        if match is None:
            continue
        words = match.groupdict()
        number = int(words.pop("frame", "0"))
        frames = collected.setdefault(tuple(sorted(words.items())), {})
        if number in frames:
            raise AlignmentError(
                f"{root}: {frames[number].relative_to(root)} and {file} are both frame {number} "
                f"by {pattern}; remove one"
            )
        frames[number] = root / file
    return collected


def filled(pattern: str, names: Mapping[str, str]) -> str:
    """Return a pattern with what its words stand for."""
    return _WORD.sub(lambda word: names[word[1]], pattern)
