"""Trained models as they are used: a run folder, or one file that `export` wrote.

An exported model is a safetensors file: the weights to use, and in its header the configuration
and where they come from. It holds no optimizer, so a run can't be continued from it. The package
ships one, `small`.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .. import __version__
from ..configs import ConfigError, check_config, dump_config
from ..configs.schema import Config
from ..configs.yaml_text import read_yaml
from ..errors import SpikeDeblurError
from ..model import VRTWithSpike, build_model
from .files import atomic_write
from .locks import only_writer_of
from .training.checkpoint import (
    Form,
    checkpoint_config,
    checkpoint_path,
    load_run,
    outline_that_fits,
    read_checkpoint,
    without_pretrained,
)

FORMAT = "spikedeblur.model"
SCHEMA_VERSION = 1
SUFFIX = ".safetensors"
HEADER = "spikedeblur"

_fetched: dict[str, tempfile.TemporaryDirectory[str]] = {}
"""By URL: what was fetched from buckets, until this process ends."""

_SHIPPED = Path(__file__).parents[1] / "model" / "trained"


class TrainedModelError(SpikeDeblurError):
    """A trained model is missing, is not one of ours, or can't be written."""


def find_model(name: str | os.PathLike[str]) -> Path:
    """Return the path of a shipped model by its name, or of an exported file, a URL's too.

    Raises:
        TrainedModelError: neither; says which ship.
    """
    path = fetched(name)
    if path.suffix == SUFFIX and path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(_SHIPPED.glob(f"*{SUFFIX}"))}
    if str(name) in shipped:
        return shipped[str(name)]
    raise TrainedModelError(
        f"{name}: expected a model that ships ({', '.join(shipped) or 'none here'}) or a file that "
        f"`spikedeblur export` wrote (*{SUFFIX}); for a run folder give --run"
    )


def fetched(source: str | os.PathLike[str]) -> Path:
    """Return the path of a run folder or an exported model; of one at a URL, once it is fetched.

    Of a run only what it takes to use its model is fetched: `config.yaml` and the best weights.

    Raises:
        TrainedModelError: neither is at the URL.
        StoreError: the URL or the bucket can't be used.
    """
    from .store.place import open_place
    from .store.sources import fetch

    text = os.fspath(source)
    if "://" not in text:
        return Path(text)
    place = open_place(text)
    if place.is_local:
        return Path(place.location)
    if text.endswith(SUFFIX):
        above, _, name = text.rpartition("/")
        place, keys = open_place(above), [name]
    else:
        name, keys = "", ["config.yaml", weights_file("").as_posix()]
    if text not in _fetched:
        missing = [key for key in keys if place.size(key) is None]
        if missing:
            raise TrainedModelError(
                f"{text}: expected a run folder or an exported model (*{SUFFIX}), found no "
                f"{' and no '.join(missing)}; correct the URL, or copy all of it there"
            )
        folder = tempfile.TemporaryDirectory()
        fetch(place, keys, Path(folder.name))
        _fetched[text] = folder
    return Path(_fetched[text].name, name)


def weights_file(source: str | os.PathLike[str]) -> Path:
    """Return the file that the weights of a run folder or an exported model are in."""
    return Path(source) if Path(source).suffix == SUFFIX else checkpoint_path(source, "best")


def source_name(source: str | os.PathLike[str]) -> str:
    """Return what products call a model: the name of a shipped one, else its path or URL."""
    path = Path(source)
    for url, folder in _fetched.items():
        if path.is_relative_to(folder.name):
            return url
    return path.stem if path.parent == _SHIPPED else os.fspath(source)


def load_trained(source: str | os.PathLike[str]) -> tuple[VRTWithSpike, Config]:
    """Return the model of a run folder (its best weights) or of an exported file, in eval mode.

    Raises:
        SpikeDeblurError: there is none, or it can't be used; says why.
    """
    path = Path(source)
    if path.suffix != SUFFIX:
        return load_run(path, which="best")
    weights, config = _read(path)
    model = build_model(without_pretrained(config))
    model.load_state_dict(weights)
    return model.eval(), config


def describe_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what an exported model says of itself.

    Raises:
        TrainedModelError: it is not one.
    """
    return _header(Path(path))[0]


def export_model(
    run: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the best weights of a run as one file.

    Args:
        run: folder or URL of a run with a checkpoint.
        out: file to write, `*.safetensors`.
        overwrite: replace a file that is there.

    Returns:
        What the file says of itself.

    Raises:
        SpikeDeblurError: no whole checkpoint, another ending, or a file in the way.
    """
    require_free(out, overwrite=overwrite)
    run = fetched(run)
    path = checkpoint_path(run, "best")
    model, _ = load_run(run, which="best")
    state = read_checkpoint(path)
    facts = {
        "step": state["step"],
        "clips_a_step": state["samples_a_step"],
        "data_sha256": state["data"],
        "validation_psnr": state["best_psnr"],
    }
    return write_model(out, model, checkpoint_config(state, path), facts, overwrite=overwrite)


def require_free(out: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a file that can't be written, before any work is done.

    Raises:
        TrainedModelError: another ending, or a file in the way.
    """
    out = Path(out)
    if out.suffix != SUFFIX:
        raise TrainedModelError(f"{out}: expected a name that ends in {SUFFIX}; change it")
    if out.exists() and not overwrite:
        raise TrainedModelError(f"{out}: is there already; choose another, or give --overwrite")


def write_model(
    out: str | os.PathLike[str],
    model: nn.Module,
    config: Config,
    facts: dict[str, Any],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a model, its configuration and facts about it as one file, atomically.

    Returns:
        The facts, with format and version.
    """
    facts = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **facts,
    }
    # One entry: of several, the library would write any first, and equal models differ in bytes.
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    content = {"facts": facts, "config": dump_config(config), "crc32": _checksum(weights)}
    header = {HEADER: json.dumps(content)}
    with only_writer_of(out):
        require_free(out, overwrite=overwrite)
        with atomic_write(out) as file:
            file.write(save(weights, metadata=header))
            file.flush()
            _read(file.path)
    return facts


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Config]:
    """Return the weights of an exported model, which fit its configuration's network."""
    _, config, recorded = _header(path)
    try:
        with safe_open(path, framework="pt") as file:
            outline_that_fits(config, {name: _form(file, name) for name in file.keys()}, path)  # noqa: SIM118
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise TrainedModelError(f"{path}: can't be read ({error}); get it anew") from error
    if recorded not in (None, _checksum(weights)):  # models of earlier releases have none
        raise TrainedModelError(
            f"{path}: damaged: its weights are not what was written; get it anew"
        )
    return weights, config


_DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "I64": torch.int64}


def _form(file: Any, name: str) -> Form:
    """Return shape and dtype of a weight as the file's header has them; nothing is read."""
    entry = file.get_slice(name)
    return tuple(entry.get_shape()), _DTYPES.get(entry.get_dtype(), entry.get_dtype())


def _checksum(weights: dict[str, torch.Tensor]) -> str:
    """Return the CRC-32 of all weights in the order of their names, in hex."""
    value = 0
    for name in sorted(weights):
        flat = weights[name].contiguous().view(-1).view(torch.uint8).numpy()
        value = zlib.crc32(flat.tobytes(), value)
    return f"{value:08x}"


def _header(path: Path) -> tuple[dict[str, Any], Config, str | None]:
    if not path.is_file():
        raise TrainedModelError(f"{path}: expected an exported model, found no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
        facts = header["facts"]
        found = facts["format"], facts["schema_version"]
        config = read_yaml(header["config"])
        recorded = header.get("crc32")
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainedModelError(
            f"{path}: expected a model that `spikedeblur export` wrote, found another file, or a "
            f"part of one ({type(error).__name__}); published weights go to MODEL.PRETRAINED"
        ) from error
    if found != (FORMAT, SCHEMA_VERSION):
        raise TrainedModelError(
            f"{path}: expected {FORMAT} {SCHEMA_VERSION}, found {str(found[0])[:40]} "
            f"{str(found[1])[:40]} (spikedeblur {str(facts.get('version'))[:40]}); use that release"
        )
    try:
        return facts, check_config(config, path), recorded
    except ConfigError as error:
        raise TrainedModelError(
            f"{error}; its configuration does not fit this release (it was written by spikedeblur "
            f"{str(facts.get('version'))[:40]})"
        ) from error
