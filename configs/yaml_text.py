"""YAML that may come from anybody: plain values only, of a bounded size, each key once."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
"""Of a document: configurations have a few thousand."""

MAX_VALUES = 100_000
"""Once aliases are followed: ten lines of them can stand for ten to the ninth."""


class YamlError(ValueError):
    """Text that is no YAML, or none of ours; the message is one line."""


def read_yaml(text: str) -> Any:
    """Return what the text says: dictionaries, lists, strings, numbers, dates, True, False, None.

    Raises:
        YamlError: not YAML, a tag for an object, a key twice, or too much.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"expected at most {MAX_CHARACTERS} characters, found {len(text)}")
    try:
        loader = _StrictLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}) > MAX_VALUES:
                raise YamlError(
                    f"expected at most {MAX_VALUES} values, found aliases that make more"
                )
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise YamlError("nested too deeply, or in itself") from error
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from error
    except (ValueError, TypeError, OverflowError) as error:
        # A date that is none, or a number of too many digits.
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"a value can't be read ({error})") from error


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the values below a node, those of an alias as often as it is there."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_VALUES + 1  # met again below itself, it never ends
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        below = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    size = 1 + sum(_size(part, known) for part in below)
    known[id(node)] = min(size, MAX_VALUES + 1)
    return size


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem="expected a name as key", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
