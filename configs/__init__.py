"""Training configurations: the YAML files under `deblur/` and the schema that checks them."""

from .loading import (
    ConfigError,
    check_config,
    dump_config,
    find_file,
    load_config,
    override_config,
)
from .schema import Config

__all__ = [
    "Config",
    "ConfigError",
    "check_config",
    "dump_config",
    "find_file",
    "load_config",
    "override_config",
]
