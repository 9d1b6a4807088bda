"""`spikedeblur config-schema`: the configuration's JSON Schema, for editors."""

from __future__ import annotations

import typer


def config_schema() -> None:
    """Print the JSON Schema of training configurations, with which editors complete and check.

    Put `# yaml-language-server: $schema=config.schema.json` on the first line of a YAML file.

    Example: spikedeblur config-schema > config.schema.json
    """
    import json

    from ..configs.json_schema import config_json_schema

    typer.echo(json.dumps(config_json_schema(), indent=1))
