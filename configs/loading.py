"""From a YAML file and `--set` overrides to a checked configuration, and back."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ..errors import SpikeDeblurError
from .schema import Config, ModelConfig, Section, VRTOptions
from .yaml_text import MAX_CHARACTERS, YamlError, read_yaml

S = TypeVar("S", bound=Section)

PACKAGE = Path(__file__).resolve().parents[1]


MOST_SHOWN = 16
"""Wrong values that a message tells of."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 16


class ConfigError(SpikeDeblurError):
    """A configuration can't be used; the message names file, key, and what to write."""


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Read, complete and check a configuration.

    `MODEL.VRT` of the result holds all arguments of the network: the defaults, then those
    of the file `MODEL.VRT_CFG`, then those under `MODEL.VRT`. A result that was dumped
    therefore loads again without that file.

    Args:
        path: a YAML file in the current folder or, if there is none, in the package
            (`configs/deblur/quickstart.yaml`).
        overrides: `SECTION.KEY=VALUE`, the value read as YAML. `TRAIN.EPOCHS=N` without
            `TRAIN.MAX_STEPS=N` beside it sets TRAIN.MAX_STEPS to null.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or an impossible value.
    """
    found = find_file(path, "configuration")
    data = _read_mapping(found)
    overridden = _apply(data, overrides)
    if "TRAIN.EPOCHS" in overridden and "TRAIN.MAX_STEPS" not in overridden:
        data["TRAIN"]["MAX_STEPS"] = None
    _complete_vrt(data, found, overridden)
    return _validate(Config, data, found, overridden)


def check_config(data: object, path: str | os.PathLike[str]) -> Config:
    """Return the configuration that plain values say, as one inside another file is given.

    Args:
        data: sections by name; all keys that differ from their defaults.
        path: the file, for the message.

    Raises:
        ConfigError: an unknown key, or an impossible value.
    """
    return _validate(Config, data, Path(path), set())


def dump_config(config: Config) -> str:
    """Return the configuration as YAML that `load_config` reads back to the same."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def find_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return `path` as it stands or, if there is no such file, the packaged one.

    Raises:
        ConfigError: neither is there.
    """
    given = Path(path)
    if given.is_file():
        return given
    packaged = PACKAGE / given
    if not given.is_absolute() and ".." not in given.parts and packaged.is_file():
        return packaged
    raise ConfigError(
        f"{given}: expected a {what} file, found none here ({Path.cwd()}) and none of that "
        "name in the package; check the path"
    )


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > 4 * MAX_CHARACTERS:  # bytes of a character, at most
            raise ConfigError(f"{path}: expected a configuration, found {size} bytes; check it")
        data = read_yaml(path.read_text(encoding="utf-8"))
    except (YamlError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected YAML, got an error: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected sections such as DATA:, got {type(data).__name__}")
    return data


def _apply(data: dict[str, Any], overrides: Iterable[str]) -> set[str]:
    """Write overrides into `data`; return their key paths."""
    paths = set()
    for override in overrides:
        key_path, equals, text = override.partition("=")
        keys = key_path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f"--set {override}: expected SECTION.KEY=VALUE, such as TRAIN.OPTIM.LR=1e-4"
            )
        try:
            value = read_yaml(text)
        except YamlError as error:
            raise ConfigError(f"--set {override}: the value is no YAML; quote it") from error
        here = data
        for key in keys[:-1]:
            below = here.get(key)
            if below is None:
                below = here[key] = {}
            if not isinstance(below, dict):
                raise ConfigError(f"--set {override}: {key} is a value, not a section")
            here = below
        here[keys[-1]] = value
        paths.add(".".join(keys))
    return paths


def _complete_vrt(data: dict[str, Any], named_in: Path, overridden: set[str]) -> None:
    """Merge the file `MODEL.VRT_CFG` under `MODEL.VRT`, in place."""
    model = data["MODEL"] = {} if data.get("MODEL") is None else data["MODEL"]
    if not isinstance(model, dict):
        return  # validation says so
    given = model.get("VRT") or {}
    if not isinstance(given, dict) or given.keys() >= VRTOptions.model_fields.keys():
        return
    name = model.get("VRT_CFG", ModelConfig.model_fields["VRT_CFG"].default)
    if not isinstance(name, str):
        return
    try:
        path = find_file(name, "network (MODEL.VRT_CFG)")
    except ConfigError as error:
        source = "--set" if "MODEL.VRT_CFG" in overridden else named_in
        raise ConfigError(f"{source}: MODEL.VRT_CFG: {error}") from error
    base = _read_mapping(path)
    _validate(VRTOptions, base, path, set())
    model["VRT"] = {**base, **given}


def _validate(schema: type[S], data: object, path: Path, by_set: set[str]) -> S:
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        items = error.errors()
        lines = [_explain(schema, dict(item), path, by_set) for item in items[:MOST_SHOWN]]
        if len(items) > MOST_SHOWN:
            lines.append(f"and {len(items) - MOST_SHOWN} more")
        raise ConfigError("; ".join(lines)) from error


def _explain(schema: type[Section], item: Mapping[str, Any], path: Path, by_set: set[str]) -> str:
    """Say where the wrong value stands, what was expected and what was found."""
    where = [str(key) for key in item["loc"]]
    key_path = ".".join(where)
    unknown = item["type"] == "extra_forbidden"
    if any(_within(key_path, g) or (unknown and _within(g, key_path)) for g in by_set):
        source = "--set"
    elif by_set and isinstance(item["input"], dict):
        source = f"{path} with --set {', '.join(sorted(by_set))}"  # several keys meet here
    else:
        source = str(path)
    if unknown:
        return f"{source}: unknown key {key_path}; {_nearest(schema, where)}"
    reason = item["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:] if reason.startswith("Input") else reason
    # A section's own message already shows the values; a field's does not.
    own = item["type"] == "value_error" and isinstance(item["input"], dict)
    found = "" if own else f", got {_shown(item['input'])}"
    return f"{source}: {key_path + ': ' if key_path else ''}{reason}{found}"


def _shown(value: object) -> str:
    """Return a value as it is written, cut short: with its aliases it may stand for gigabytes."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return "what can't be written out"


def _within(key_path: str, given: str) -> bool:
    return key_path == given or key_path.startswith(f"{given}.")


def _nearest(schema: type[Section], where: list[str]) -> str:
    """Suggest the right name of an unknown key: in its section first, then anywhere."""
    section = schema
    for key in where[:-1]:
        below = section.model_fields[key].annotation
        assert isinstance(below, type)
        assert issubclass(below, Section)
        section = below
    wrong = where[-1]
    by_upper = {name.upper(): name for name in section.model_fields}
    prefix = ".".join(where[:-1])
    near = difflib.get_close_matches(wrong.upper(), by_upper, n=1, cutoff=0.6)
    if near:
        return f"did you mean {prefix + '.' if prefix else ''}{by_upper[near[0]]}?"
    elsewhere = [p for p in key_paths(schema) if p.rsplit(".", 1)[-1].upper() == wrong.upper()]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"expected one of {', '.join(section.model_fields)}"


def key_paths(schema: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every key path of a section, such as `TRAIN.OPTIM.LR`, sections included."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        below = field.annotation
        if isinstance(below, type) and issubclass(below, Section):
            yield from key_paths(below, f"{prefix}{name}.")
