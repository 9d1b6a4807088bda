"""YAML that may come from anybody: plain values only, of a bounded size, each key once."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
"""Most characters of a document; configurations have a few thousand."""

MAX_VALUES = 100_000
"""Most values of a document, aliases followed: ten lines can stand for ten to the ninth."""


class YamlError(ValueError):
    """Text that is not YAML, or holds what `read_yaml` refuses; the message is one line."""


def read_yaml(text: str) -> Any:
    """Return the plain value of a YAML text: dictionaries, lists, strings, numbers, dates, None.

    Raises:
        YamlError: not YAML, a tag for an object, a key given twice, or too many values.
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
    """Count the values of a node, those of an alias each time that it is used."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_VALUES + 1  # for a node that is met again below itself
    below = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        below = [part for pair in below for part in pair]
    size = 1 + sum(_size(part, known) for part in below)
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
                problem = f"key {key} is given twice" if is_name else "expected a name as key"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
