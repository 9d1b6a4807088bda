"""Numbers in a file that declare a network of any size take no memory before they are refused."""

from __future__ import annotations

import itertools
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from measured import Outcome, measure
from training_sets import SMALL

from spikedeblur.configs import check_config, dump_config, load_config
from spikedeblur.model import build_model, outline_model, parameter_table
from spikedeblur.pipeline.host import device_memory as memory
from spikedeblur.pipeline.host.device_memory import NotEnoughMemoryError
from spikedeblur.pipeline.train import memory_advice
from spikedeblur.pipeline.train.job import train
from spikedeblur.pipeline.train.memory_advice import require_room
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.trained.model_file import write_model
from spikedeblur.pipeline.weights.checkpoint import load_run
from spikedeblur.pipeline.weights.files import CheckpointError, checkpoint_path

CONFIG = load_config("configs/deblur/quickstart.yaml", SMALL)
MOST = 100 * 10**6

Changes = dict[str, Any]


def channels(number: int) -> Changes:
    return {"MODEL.VRT.embed_dims": [number] * 8, "MODEL.CHANNELS_PER_SCALE": [number] * 4}


def bins(number: int) -> Changes:
    return {"DATA.K": number, "DATA.NUM_VOXEL_BINS": number}


IMPOSSIBLE: dict[str, tuple[Changes, str]] = {
    "window": ({"MODEL.VRT.window_size": [6, 3000, 3000]}, "at most 8192 tokens"),
    "depths": ({"MODEL.VRT.depths": [1000] * 8}, "at most 1000 blocks"),
    "channels": (channels(10**6), "less than or equal to 20000"),
    "bins": (bins(10**9), "less than or equal to 4096"),
}
"""What no configuration may say."""

TOO_LARGE: dict[str, Changes] = {
    "window": {"MODEL.VRT.window_size": [8, 32, 32]},
    "depths": {"MODEL.VRT.depths": [20] * 8},
    "channels": channels(19_200),
    "bins": bins(4096),
}
"""What it may say, of networks that are not the file's: 2.7 GB, 160 blocks, 6 TB, 1 MB."""


def changed(changes: Changes) -> str:
    content: Any = yaml.safe_load(dump_config(CONFIG))
    for key, value in changes.items():
        *above, last = key.split(".")
        section = content
        for name in above:
            section = section[name]
        section[last] = value
    return yaml.safe_dump(content)


def write_run(run: Path, config: str, **more: Any) -> Path:
    torch.manual_seed(0)
    state = {
        "config": config,
        "data": "ab",
        "samples_a_step": 4,
        "total_steps": 9,
        "epoch": 1,
        "step_in_epoch": 0,
        "step": 7,
        "validated_step": 7,
        "best_step": 7,
        "best_psnr": 30.0,
        "interval": {"loss": 0.5, "psnr": 20.0, "steps": 1},
        "model": build_model(CONFIG).state_dict(),
        "ema": build_model(CONFIG).state_dict(),
        "optimizer": {},
        "scaler": {},
        **more,
    }
    path = checkpoint_path(run, "best")
    write_checkpoint(path, state)
    (run / "config.yaml").write_text(config)
    return path


def write_files(folder: Path, config: str, whole: Path) -> list[Path]:
    """A configuration, and a model, a checkpoint and its run that name it; else as in `whole`."""
    folder.mkdir()
    alone, model = folder / "config.yaml", folder / "model.safetensors"
    alone.write_text(config)
    content = (whole / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    inner = json.loads(header["__metadata__"]["spikedeblur"])
    header["__metadata__"]["spikedeblur"] = json.dumps(inner | {"config": config})
    text = json.dumps(header).encode()
    model.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    path = checkpoint_path(folder / "run", "best")
    path.parent.mkdir(parents=True)
    state = torch.load(checkpoint_path(whole / "run", "best"), weights_only=True)
    torch.save({**state, "config": config}, path)
    (folder / "run/config.yaml").write_text(config)
    return [alone, model, path, folder / "run"]


FILES = ("config.yaml", "model.safetensors", "best.pt", "run")
OTHERS = ("depths", "channels", "bins")


def inspected(folder: Path, *names: str) -> dict[tuple[str, str, str], Outcome]:
    """Inspect files of some cases; the outcomes by group, case and file."""
    write_run(folder / "run", dump_config(CONFIG))
    write_model(folder / "model.safetensors", build_model(CONFIG), CONFIG, {"step": 1})
    cases = {("whole", ""): Changes()}
    cases |= {("impossible", name): IMPOSSIBLE[name][0] for name in names}
    cases |= {("too large", name): TOO_LARGE[name] for name in names}
    commands = {}
    for (group, name), changes in cases.items():
        for path in write_files(folder / f"{group}-{name}", changed(changes), folder):
            commands[group, name, path.name] = path
    found = measure([("inspect", path) for path in commands.values()])
    return dict(zip(commands, found, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    "names", [("window",), pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["window", "others"]
)
def test_what_a_file_only_declares_takes_no_memory(tmp_path, names) -> None:
    outcomes = inspected(tmp_path, *names)
    for file in FILES:
        code, said, _ = outcomes["whole", "", file]
        assert code == 0, said
    for (_, name, file), (_, said, extra) in outcomes.items():
        assert extra < MOST, (name, file)
        assert said.count("\n") <= 2, said  # what is wrong, and what to do
    for name, file in itertools.product(names, FILES):
        code, said, _ = outcomes["impossible", name, file]
        assert code == 1
        assert IMPOSSIBLE[name][1] in said
        assert ("best.pt" if file == "run" else file) in said
        code, said, _ = outcomes["too large", name, file]
        if file == "config.yaml":  # there is nothing to compare with: it is counted
            assert code == 0, said
        else:
            assert code == 1
            assert "do not fit the model of its configuration" in said


@pytest.mark.parametrize("changes", [{}, *TOO_LARGE.values()], ids=["", *TOO_LARGE])
def test_an_outline_has_no_memory_and_the_networks_names_shapes_and_types(changes) -> None:
    config = check_config(yaml.safe_load(changed(changes)), "x")
    outline = outline_model(config)
    assert {t.device.type for t in (*outline.parameters(), *outline.buffers())} == {"meta"}
    if not changes:
        network = build_model(config)
        forms = [
            [(name, value.shape, value.dtype) for name, value in one.state_dict().items()]
            for one in (outline, network)
        ]
        assert forms[0] == forms[1]
        assert parameter_table(outline) == parameter_table(network)
        assert {t.device.type for t in (*network.parameters(), *network.buffers())} == {"cpu"}


def test_an_outline_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    outline_model(CONFIG)
    assert torch.equal(torch.rand(4), wanted)


def test_weights_that_repeat_one_number_are_refused(tmp_path) -> None:
    """Shapes are those of the configuration, of 130 MB, and the file has one number for each."""
    wide = changed(channels(512) | {"MODEL.VRT.num_heads": [2] * 8})
    network = outline_model(check_config(yaml.safe_load(wide), "x"))
    weights = {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for name, value in network.state_dict().items()
    }
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="stand for more"):
        write_run(run, wide, model=weights, ema=None)
    path = checkpoint_path(run, "best")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"format": "spikedeblur.checkpoint", "model": weights}, path)
    assert path.stat().st_size < 10**6
    with pytest.raises(CheckpointError, match=r"best\.pt: .* stand for more than 4 times as many"):
        load_run(run)


def test_a_run_whose_weights_are_not_its_networks_is_not_resumed(tmp_path) -> None:
    weights = build_model(CONFIG).state_dict()
    name = next(iter(weights))
    weights[name] = weights[name].half()
    path = write_run(tmp_path / "run", dump_config(CONFIG), model=weights)
    path.rename(path.with_name("last.pt"))
    with pytest.raises(CheckpointError, match=rf"last\.pt: its weights do not fit .*: {name}"):
        train(CONFIG, tmp_path / "run", resume=True)


def test_training_does_not_begin_with_weights_larger_than_memory(monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_main_memory", lambda: 10**9)
    monkeypatch.setattr(memory_advice, "free_main_memory", lambda: 10**9)
    require_room(CONFIG)
    huge = check_config(yaml.safe_load(changed(TOO_LARGE["channels"])), "x")
    with pytest.raises(NotEnoughMemoryError, match=r"take \d+\.\d GB, and 1\.0 GB of memory are"):
        require_room(huge)
