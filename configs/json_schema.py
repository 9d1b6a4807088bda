"""The schema as JSON Schema: for editors, and for the reference page."""

from __future__ import annotations

from typing import Any

from .schema import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What pydantic leaves under its own names where a validator runs before the check.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def config_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a training configuration.

    It does not say which values fit each other: `load_config` checks that.
    """
    schema: dict[str, Any] = _renamed(Config.model_json_schema())
    return {"$schema": DIALECT, **schema, "title": "spikedeblur training configuration"}


def _renamed(node: Any) -> Any:
    if isinstance(node, list):
        return [_renamed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {_BOUNDS.get(key, key): _renamed(value) for key, value in node.items()}
