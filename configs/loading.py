"""From a YAML file and `--set` overrides to a checked configuration, and back."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from ..errors import SpikeDeblurError
from ..pipeline.host.documents import DocumentError, parse_yaml, read_yaml, shown
from .schema import Config
from .schema.model import ModelConfig, VRTOptions
from .schema.values import Section

S = TypeVar("S", bound=Section)

PACKAGE = Path(__file__).resolve().parents[1]
MOST_SHOWN = 16
"""Most wrong values that one message names."""


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
    file = find_file(path, "configuration")
    data = _read_mapping(file)
    _require_sections(data, file)
    return _configured(data, file, overrides)


def override_config(config: Config, overrides: Iterable[str], path: Path) -> Config:
    """Return a configuration with other values, as `load_config` reads it from a file.

    Args:
        config: the configuration.
        overrides: as for `load_config`.
        path: the file that holds it, for the message.

    Raises:
        ConfigError: an unknown key, or an impossible value.
    """
    return _configured(config.model_dump(mode="json"), path, overrides)


def check_config(data: object, path: str | os.PathLike[str]) -> Config:
    """Return the configuration that plain values say, such as those inside a model file.

    Args:
        data: sections by name; all keys that differ from their defaults.
        path: the file that holds them, for the message.

    Raises:
        ConfigError: an unknown key, or an impossible value.
    """
    return _validate(Config, data, Path(path))


def dump_config(config: Config) -> str:
    """Return the configuration as YAML that `load_config` reads back to the same."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def find_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return `path` as it stands or, if there is no such file, the packaged one.

    Raises:
        ConfigError: neither is there.
    """
    path = Path(path)
    if path.is_file():
        return path
    packaged = PACKAGE / path
    if not path.is_absolute() and ".." not in path.parts and packaged.is_file():
        return packaged
    shipped = *PACKAGE.glob("configs/*/*.yaml"), *PACKAGE.glob("third_party/VRT/options/*/*.yaml")
    names = [file.relative_to(PACKAGE).as_posix() for file in shipped]
    near = difflib.get_close_matches(str(path), names, n=1)
    raise ConfigError(
        f"{path}: expected a {what} file, found none here ({Path.cwd()}) and none of that "
        f"name in the package; {f'did you mean {near[0]}?' if near else 'check the path'}"
    )


def _configured(data: dict[str, Any], file: Path, overrides: Iterable[str]) -> Config:
    overridden = _apply(data, overrides)
    if "TRAIN.EPOCHS" in overridden and "TRAIN.MAX_STEPS" not in overridden:
        data["TRAIN"]["MAX_STEPS"] = None
    _complete_vrt(data, file, overridden)
    return _validate(Config, data, file, overridden)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path)
    except DocumentError as error:
        raise ConfigError(
            f"{path}: expected YAML, got an error ({error}); correct the file"
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: expected sections such as DATA:, got {type(data).__name__}; write it as "
            "configs/deblur/quickstart.yaml"
        )
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
            value = parse_yaml(text)
        except DocumentError as error:
            raise ConfigError(f"--set {override}: the value is no YAML; quote it") from error
        section = data
        for key in keys[:-1]:
            if section.get(key) is None:
                section[key] = {}
            section = section[key]
            if not isinstance(section, dict):
                raise ConfigError(f"--set {override}: {key} is a value, not a section")
        section[keys[-1]] = value
        paths.add(".".join(keys))
    return paths


def _complete_vrt(data: dict[str, Any], file: Path, overridden: set[str]) -> None:
    """Merge the file `MODEL.VRT_CFG` under `MODEL.VRT`, in place."""
    model = data["MODEL"] = {} if data.get("MODEL") is None else data["MODEL"]
    if not isinstance(model, dict):
        return  # validation says so, and the same below
    options = model.get("VRT") or {}
    name = model.get("VRT_CFG", ModelConfig.model_fields["VRT_CFG"].default)
    if not isinstance(options, dict) or not isinstance(name, str):
        return
    if options.keys() >= VRTOptions.model_fields.keys():
        return
    try:
        path = find_file(name, "network (MODEL.VRT_CFG)")
    except ConfigError as error:
        source = "--set" if "MODEL.VRT_CFG" in overridden else file
        raise ConfigError(f"{source}: MODEL.VRT_CFG: {error}") from error
    base = _read_mapping(path)
    _validate(VRTOptions, base, path)
    model["VRT"] = {**base, **options}


def _validate(schema: type[S], data: object, path: Path, overridden: Set[str] = frozenset()) -> S:
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        items = error.errors()
        lines = [_explain(schema, dict(item), path, overridden) for item in items[:MOST_SHOWN]]
        if len(items) > MOST_SHOWN:
            lines.append(f"{len(items) - MOST_SHOWN} more")
        said = f"{path}: "
        # The file is named once, and what to do comes last.
        lines = [lines[0], *(f"also {line.removeprefix(said)}" for line in lines[1:])]
        if len(lines) > 1 and lines[0].startswith(said):
            lines.append("correct the file")
        elif lines[0].startswith(said) and "; " not in lines[0]:
            lines.append("correct it there")
        raise ConfigError("; ".join(lines)) from error


def _require_sections(data: Mapping[str, Any], path: Path) -> None:
    """Refuse a file of which no key is a section of a configuration, or misspelt as one."""
    known = Config.model_fields
    if data and not any(
        difflib.get_close_matches(str(key).upper(), known, cutoff=0.8) for key in data
    ):
        raise ConfigError(
            f"{path}: expected a configuration with sections {', '.join(known)}, found "
            f"{', '.join(map(str, list(data)[:4]))}; give one such as "
            "configs/deblur/quickstart.yaml"
        )


def _explain(
    schema: type[Section], item: Mapping[str, Any], path: Path, overridden: Set[str]
) -> str:
    """Say where the wrong value stands, what was expected and what was found."""
    keys = [str(key) for key in item["loc"] if not str(key).startswith("<")]  # forms of a value
    key_path = ".".join(keys)
    unknown = item["type"] == "extra_forbidden"
    source = str(path)
    if any(_within(key_path, o) or (unknown and _within(o, key_path)) for o in overridden):
        source = "--set"
    elif overridden and isinstance(item["input"], dict):
        source += f" with --set {', '.join(sorted(overridden))}"  # several keys meet here
    if unknown:
        return f"{source}: unknown key {key_path}; {_nearest(schema, keys)}"
    reason = item["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    reason = reason[:1].lower() + reason[1:] if reason.startswith("Input") else reason
    # A section's own message already shows the values; a field's does not.
    shows_values = item["type"] == "value_error" and isinstance(item["input"], dict)
    value = "" if shows_values else f", got {shown(item['input'])}"
    return f"{source}: {key_path + ': ' if key_path else ''}{reason}{value}"


def _within(key_path: str, section: str) -> bool:
    return f"{key_path}.".startswith(f"{section}.")


def _nearest(schema: type[Section], keys: list[str]) -> str:
    """Suggest the right name of an unknown key: in its section first, then anywhere."""
    *sections, wrong = keys
    section: Any = schema
    for key in sections:
        if not key.isdecimal():  # else one of a list
            section = _section_in(section.model_fields[key].annotation)
    by_upper = {name.upper(): name for name in section.model_fields}
    near = difflib.get_close_matches(wrong.upper(), by_upper, n=1, cutoff=0.6)
    if near:
        return f"did you mean {'.'.join([*sections, by_upper[near[0]]])}?"
    elsewhere = [p for p in key_paths(schema) if p.rsplit(".", 1)[-1].upper() == wrong.upper()]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"give one of {', '.join(section.model_fields)}"


def _section_in(annotation: Any) -> Any:
    """Return the section that a key's type is, or that it may hold; None: there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def key_paths(schema: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every key path of a section, such as `TRAIN.OPTIM.LR`, sections included."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        below = field.annotation
        if isinstance(below, type) and issubclass(below, Section):
            yield from key_paths(below, f"{prefix}{name}.")
