"""Trained models in use: a run folder, or one file that `export` wrote.

An exported model is a safetensors file: the weights to use, and in its header the configuration
and where they come from. It holds no optimizer, so a run can't be continued from it. The package
ships one, `small`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs import dump_config
from ...configs.schema import Config
from ..host.files import atomic_write
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..weights.exported import (
    HEADER,
    MODEL,
    SUFFIX,
    TrainedModelError,
    read_exported,
    weights_checksum,
)
from ..weights.files import find_checkpoint
from ..weights.find import fetched, located, shipped_names

if TYPE_CHECKING:  # names and paths are checked without torch
    from torch import nn

    from ...model import VRTWithSpike


def load_trained(source: str | os.PathLike[str]) -> tuple[VRTWithSpike, Config]:
    """Return a trained model in eval mode, and its configuration.

    Args:
        source: run folder (its best weights are taken) or exported file, a path or a URL; or the
            name of a model that ships, such as `small`, where no folder here is called so.

    Raises:
        SpikeDeblurError: there is none, or it can't be used; the message says why.
    """
    path = located(source)
    if path.suffix == SUFFIX:
        from ..weights.checkpoint import model_with

        weights, config = read_exported(path)
        return model_with(weights, config), config
    if not path.exists():
        raise TrainedModelError(
            f"{source}: expected a run folder, an exported model (*{SUFFIX}) or one that ships "
            f"({shipped_names()}), found none of that name; check the path"
        )
    from ..weights.checkpoint import load_run

    return load_run(path)


def export_model(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    clip_len: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the best weights of a run as one file.

    Args:
        run: folder or URL of a run with a checkpoint.
        out: file to write, `*.safetensors`.
        clip_len: number of windows that the network sees together when it restores; None: as in
            training.
        overwrite: replace a file that is there.

    Returns:
        The facts in the file's header.

    Raises:
        SpikeDeblurError: no whole checkpoint, another ending, or a file in the way.
    """
    require_model_file(out, overwrite=overwrite)
    path = find_checkpoint(fetched(run))
    from ..weights.base import base_of
    from ..weights.checkpoint import model_of, read_own

    state = read_own(path)
    model, config = model_of(state, path)
    facts = {
        "step": state["step"],
        "clips_a_step": state["samples_a_step"],
        "data_sha256": state["data"],
        "validation_psnr": state["best_psnr"],
        "base": base_of(state),
    }
    if clip_len is not None:
        data = config.DATA.model_copy(update={"CLIP_LEN": clip_len})
        config = config.model_copy(update={"DATA": data})
    return write_model(out, model, config, facts, overwrite=overwrite)


def require_model_file(out: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a name that no model can be written to, before any work is done.

    Raises:
        TrainedModelError: another ending.
        OverwriteError: a file is in the way.
    """
    if Path(out).suffix != SUFFIX:
        raise TrainedModelError(f"{out}: expected a name that ends in {SUFFIX}; change it")
    require_free(out, overwrite=overwrite)


def write_model(
    out: str | os.PathLike[str],
    model: nn.Module,
    config: Config,
    facts: dict[str, Any],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a model, its configuration and facts about it as one file, atomically.

    Without `base` among the facts, it was trained on this release's.

    Returns:
        The facts, with format and version.

    Raises:
        TrainedModelError: another ending, or the file does not read back.
        OverwriteError: a file is in the way.
    """
    from safetensors.torch import save

    from ...model.motion_deblur import BASE

    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = MODEL.header() | {"parameters": parameters, "base": BASE} | facts
    # One entry: the library would write several in any order, and equal models differ in bytes.
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    content = {"facts": facts, "config": dump_config(config), "crc32": weights_checksum(weights)}
    header = {HEADER: json.dumps(content)}
    with only_writer_of(out):
        require_model_file(out, overwrite=overwrite)
        with atomic_write(out) as file:
            file.write(save(weights, metadata=header))
            file.flush()
            read_exported(file.path)
    return facts
