"""The schema as JSON Schema: for editors, and for the reference page."""

from __future__ import annotations

import json
from typing import Any

from .schema import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What pydantic leaves under its own names where a validator runs before the check.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def config_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a training configuration.

    It does not say which values fit each other: `load_config` checks that.
    """
    schema: dict[str, Any] = json.loads(
        json.dumps(Config.model_json_schema()),
        object_hook=lambda node: {_BOUNDS.get(key, key): value for key, value in node.items()},
    )
    return {"$schema": DIALECT, **schema, "title": "spikedeblur training configuration"}
