"""`spikedeblur config-schema`: the configuration's JSON Schema, for editors."""

from __future__ import annotations

from .output import say


def config_schema() -> None:
    """Print the JSON Schema of training configurations.

    Editors complete and check keys by it. The first line of a YAML file names it: `#
    yaml-language-server: $schema=config.schema.json`.

    Example: spikedeblur config-schema > config.schema.json
    """
    import json

    from ..configs.json_schema import config_json_schema

    say(json.dumps(config_json_schema(), indent=1))
