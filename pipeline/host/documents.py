"""YAML and JSON that may come from anybody: plain values only, of bounded size and depth."""

from __future__ import annotations

import json
import re
import reprlib
from typing import Any

import yaml

from .reading import StrPath, read_file

MAX_CHARACTERS = 1 << 20
"""Most characters of a YAML text; configurations have a few thousand."""

MAX_VALUES = 100_000
"""Most values of a YAML text, aliases followed: ten lines can stand for ten to the ninth."""

MAX_DEPTH = 64
"""Most containers inside each other; products have at most ten."""

MAX_DIGITS = 40
"""Most digits of a whole number in JSON and YAML."""

MAX_JSON_BYTES = 1 << 28
"""Most bytes of a JSON file; the manifest of 140,000 frames has 50 million."""


class DocumentError(ValueError):
    """Text that is not YAML or JSON, or holds what is refused; the message is one line."""


def read_json(path: StrPath) -> Any:
    """Return the plain value in a JSON file; see `parse_json`.

    Raises:
        OSError: as `read_file`.
        DocumentError: as `parse_json`.
    """
    return parse_json(read_file(path, MAX_JSON_BYTES))


def read_yaml(path: StrPath) -> Any:
    """Return the plain value in a YAML file; see `parse_yaml`.

    Raises:
        OSError: as `read_file`.
        DocumentError: as `parse_yaml`.
    """
    return parse_yaml(read_file(path, 4 * MAX_CHARACTERS))  # bytes of a character, at most


def parse_json(content: str | bytes) -> Any:
    """Return the plain value of a JSON text; its numbers are finite.

    Raises:
        DocumentError: not JSON in UTF-8, a number of too many digits, or nested too deeply.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        if _is_deep(text):
            raise DocumentError(f"expected at most {MAX_DEPTH} levels, found more")
        return json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(" ".join(str(error).split())[:200]) from error


_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


def _is_deep(text: str) -> bool:
    """Whether a JSON text has more than `MAX_DEPTH` containers inside each other."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for mark in _MARKS.finditer(text):
        first = text[mark.start()]
        depth += (first in "[{") - (first in "]}")
        if depth > MAX_DEPTH:
            return True
    return False


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise DocumentError(f"expected at most {MAX_DIGITS} digits, found {len(digits)}")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not abs(value) < float("inf"):
        raise DocumentError(f"expected a finite number, found {text[:40]}")
    return value


def parse_yaml(text: str | bytes) -> Any:
    """Return the plain value of a YAML text: dictionaries, lists, strings, numbers, dates, None.

    Raises:
        DocumentError: not YAML in UTF-8, a tag for an object, a key given twice, too many values,
            or nested too deeply.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        if len(text) > MAX_CHARACTERS:
            raise DocumentError(f"expected at most {MAX_CHARACTERS} characters, found {len(text)}")
        loader = _StrictLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}) > MAX_VALUES:
                raise DocumentError(
                    f"expected at most {MAX_VALUES} values, found aliases that make more"
                )
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise DocumentError("nested too deeply, or in itself") from error
    except yaml.YAMLError as error:
        raise DocumentError(" ".join(str(error).split())[:400]) from error
    except (ValueError, TypeError, OverflowError) as error:
        # A date that is none, or a number of too many digits.
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"a value can't be read ({str(error)[:200]})") from error


def _size(node: yaml.Node, known: dict[int, int], depth: int = 0) -> int:
    """Count the values of a node, those of an alias each time that it is used."""
    if id(node) in known:
        return known[id(node)]
    if depth > MAX_DEPTH:
        raise DocumentError("nested too deeply, or in itself")
    known[id(node)] = MAX_VALUES + 1  # for a node that is met again below itself
    below = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        below = [part for pair in below for part in pair]
    size = 1 + sum(_size(part, known, depth + 1) for part in below)
    known[id(node)] = min(size, MAX_VALUES + 1)
    return size


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error; PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            is_name = isinstance(key, str)
            if not is_name or key in seen:
                problem = f"key {key[:80]} is given twice" if is_name else "expected a name as key"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number; one of very many digits would take the square of them in time."""
        if len(node.value) > MAX_DIGITS:
            raise DocumentError(f"expected at most {MAX_DIGITS} digits, found {len(node.value)}")
        return int(super().construct_yaml_int(node))


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 16


def shown(value: object) -> str:
    """Return a refused value's text, cut short: a small file may stand for gigabytes."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "what can't be written out"
