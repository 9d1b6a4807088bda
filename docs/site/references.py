"""Reference pages made from the code, so that they say what it does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import typer
import typer.cli
import typer.main

from spikedeblur.cli import app
from spikedeblur.configs.json_schema import config_json_schema


def commands() -> str:
    """Return the page of all commands, as `typer utils docs` writes it."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="spikedeblur")
    text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="spikedeblur")
    text = re.sub(r"^# `spikedeblur`$", "# Commands", text, flags=re.MULTILINE)
    for name, each in command.commands.items():
        first = " ".join((each.help or "").partition("\n\n")[0].split())
        text = re.sub(rf"^\* `{name}`: .*$", f"* `{name}`: {first}", text, flags=re.MULTILINE)
    return re.sub(r"^Example: (.+(?:\n.+)*)$", _as_block, text, flags=re.MULTILINE)


def _as_block(match: re.Match[str]) -> str:
    return f"```console\n$ {' '.join(match[1].split())}\n```"


def config() -> str:
    """Return the page of every key: type, default, effect."""
    schema = config_json_schema()
    lines = [
        "# Configuration keys",
        "",
        "This page lists every key of a training configuration, with its type, default and effect. "
        "It is made from the schema that checks configurations (`configs/schema/`). "
        "`--set TRAIN.OPTIM.LR=1e-4` overrides a key. An unknown key is refused, and the message "
        "gives the nearest right name. [Completion in the "
        "editor](../how-to/install.md#completion-in-the-editor) shows keys while you type.",
        "",
    ]
    for path, section, effect in _sections(schema, schema, ""):
        name = path or "top"
        if path:
            lines += [f"## {name}", "", _text(effect), ""]
        for key, key_schema in section["properties"].items():
            if "$ref" not in key_schema:
                effect = _text(key_schema.get("description", ""))
                default = "required"
                if "default" in key_schema:
                    default = f"default `{json.dumps(key_schema['default'])}`"
                lines += [
                    f"`{key}`, {_type(key_schema)}, {default}",
                    f": {effect}",
                    "",
                ]
    return "\n".join(lines)


def _sections(
    schema: dict[str, Any], section: dict[str, Any], path: str
) -> Iterator[tuple[str, dict[str, Any], str]]:
    yield path, section, section.get("description", "")
    for key, value in section["properties"].items():
        name = f"{path}.{key}" if path else key
        for reference in _references(value):
            below = schema["$defs"][reference.rpartition("/")[2]]
            yield from _sections(schema, below, name if "$ref" in value else f"{name}, each entry")


def _references(value: Any) -> Iterator[str]:
    """Yield the sections that a value is, or may hold."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    for below in value if isinstance(value, list) else ():
        yield from _references(below)


def _type(key: dict[str, Any]) -> str:
    if several := key.get("anyOf", key.get("oneOf")):
        return " or ".join(dict.fromkeys(_type(part) for part in several))
    if "$ref" in key:
        return "a mapping, see below"
    if "const" in key:
        return f"`{key['const']}`"
    if "enum" in key:
        return ", ".join(f"`{value}`" for value in key["enum"])
    if key.get("type") == "array":
        if "prefixItems" in key:
            return f"{len(key['prefixItems'])} of {_type(key['prefixItems'][0])}"
        return f"list of at most {key['maxItems']}, each {_type(key['items'])}"
    if "pattern" in key:
        return "text such as 16GB" if "\\d" in key["pattern"] else "text"
    words = {
        "integer": "whole number",
        "number": "number",
        "boolean": "true, false",
        "string": "text",
        "null": "null",
    }
    limits = [
        f"{sign} {key[name]:.16g}"
        for name, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if name in key
    ]
    return f"{words[key['type']]} {' and '.join(limits)}".strip()


def _text(words: str) -> str:
    return " ".join(words.split())
