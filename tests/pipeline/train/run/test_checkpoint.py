from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from training_sets import SMALL

from spikedeblur.configs import dump_config, load_config
from spikedeblur.model import build_model
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.trained.model_file import export_model
from spikedeblur.pipeline.weights.checkpoint import describe_checkpoint, load_run, read_checkpoint
from spikedeblur.pipeline.weights.files import CheckpointError, checkpoint_path

CONFIG = load_config("configs/deblur/quickstart.yaml", SMALL)


def state(step: int = 3, **changes):
    torch.manual_seed(step)
    model, ema = build_model(CONFIG).state_dict(), build_model(CONFIG).state_dict()
    return {
        "config": dump_config(CONFIG),
        "data": "00",
        "samples_a_step": 4,
        "total_steps": 9,
        "epoch": 1,
        "step_in_epoch": 0,
        "step": step,
        "validated_step": step,
        "best_step": step,
        "best_psnr": 30.0,
        "interval": {"loss": 0.5, "psnr": 20.0, "steps": 1},
        "model": model,
        "ema": ema,
        "optimizer": {},
        "scaler": {},
    } | changes


def test_load_run_gives_averaged_weights_in_eval_mode(tmp_path: Path):
    written = state()
    write_checkpoint(checkpoint_path(tmp_path, "best"), written)
    model, config = load_run(tmp_path)
    assert config == CONFIG
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, written["ema"][name])


def test_without_averages_the_weights_themselves_are_used(tmp_path: Path):
    written = state(ema=None)
    write_checkpoint(checkpoint_path(tmp_path, "last"), written)
    model, _ = load_run(tmp_path, "last")
    assert all(torch.equal(v, written["model"][k]) for k, v in model.state_dict().items())


def test_pretrained_weights_are_not_asked_for_again(tmp_path: Path):
    moved = CONFIG.model_dump(mode="json")
    moved["MODEL"]["PRETRAINED"] = "gone.pth"
    config = dump_config(type(CONFIG).model_validate(moved))
    write_checkpoint(checkpoint_path(tmp_path, "best"), state(config=config))
    load_run(tmp_path)


def test_a_missing_checkpoint_names_what_is_there(tmp_path: Path):
    with pytest.raises(CheckpointError, match="found none in this run"):
        load_run(tmp_path)
    write_checkpoint(checkpoint_path(tmp_path, "last"), state())
    with pytest.raises(CheckpointError, match=r"best\.pt: expected a checkpoint, found last\.pt"):
        load_run(tmp_path)


class Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path):
    path = tmp_path / "bomb.pt"
    torch.save({"format": "spikedeblur.checkpoint", "x": Bomb(str(tmp_path / "ran"))}, path)
    with pytest.raises(CheckpointError, match=r"bomb\.pt: refused"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran")), protocol=2))
    with pytest.raises(CheckpointError, match=r"bomb\.pt"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_a_foreign_pickle_is_refused_in_one_message_and_no_warning(tmp_path: Path, recwarn):
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps(Bomb(str(tmp_path / "ran")), protocol=4))
    with pytest.raises(CheckpointError, match=r"bomb\.pt: refused"):
        read_checkpoint(path)
    assert not recwarn.list
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't read it"),
        (b"no checkpoint", "bad.pt"),
        ({"params": {}}, "expected .*spikedeblur.checkpoint.*published weights are named by"),
        ([1, 2], "found 'list'"),
        ({"format": "spikedeblur.checkpoint", "schema_version": 9, "version": "7"}, "found 9"),
        ({"format": "spikedeblur.checkpoint", "schema_version": 1}, "lacks best_psnr"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content, message):
    path = tmp_path / "bad.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_cut_checkpoint_is_refused(tmp_path: Path):
    path = checkpoint_path(tmp_path, "last")
    write_checkpoint(path, state())
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r"last\.pt"):
            read_checkpoint(path)


@pytest.mark.parametrize("fault", ["full disk", "wrong bytes"])
def test_a_failed_write_leaves_the_old_checkpoint_whole(tmp_path: Path, monkeypatch, fault):
    path = checkpoint_path(tmp_path, "last")
    write_checkpoint(path, state(step=3))
    save = torch.save

    def broken(value, file):
        buffer = io.BytesIO()
        save(value, buffer)
        file.write(buffer.getvalue()[:-2000])
        if fault == "full disk":
            raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(CheckpointError, match=r"step 4 .*--resume"):
        write_checkpoint(path, state(step=4))
    assert read_checkpoint(path)["step"] == 3
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_a_checkpoint_describes_itself(tmp_path: Path):
    path = checkpoint_path(tmp_path, "last")
    write_checkpoint(path, state())
    facts, table = describe_checkpoint(path)
    assert facts["step"] == "3 of 9"
    numbers = [int(count.replace(",", "")) for _, count in table[1:]]
    assert sum(numbers) == facts["parameters"] > 0


def test_half_written_checkpoints_are_not_offered(tmp_path: Path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in (".last.pt.0123456789ab.partial", ".last.0123456789ab.partial.pt"):
        (folder / name).write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"best\.pt: expected a checkpoint, found none"):
        load_run(tmp_path)
    write_checkpoint(checkpoint_path(tmp_path, "last"), state())
    with pytest.raises(CheckpointError, match=r"best\.pt: expected a checkpoint, found last\.pt;"):
        load_run(tmp_path)


def own_run(run: Path, **changes: object) -> None:
    (run / "config.yaml").write_text(dump_config(CONFIG))
    (run / "environment.json").write_text(json.dumps({"data": {"sha256": "a" * 64}, "starts": []}))
    write_checkpoint(checkpoint_path(run, "best"), state(data="a" * 64) | changes)


def other(**sections: dict[str, object]) -> str:
    """Return this run's configuration with other values, as YAML."""
    content = CONFIG.model_dump(mode="json")
    for section, values in sections.items():
        content[section] |= values
    return dump_config(type(CONFIG).model_validate(content))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": other(TRAIN={"SEED": 7})}, r"TRAIN\.SEED"),
        ({"config": other(DATA={"CLIP_LEN": 3})}, r"DATA\.CLIP_LEN"),
        ({"data": "b" * 64}, "the training data"),
    ],
)
def test_the_best_checkpoint_of_another_run_is_refused(tmp_path: Path, changes, said):
    own_run(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=rf"best\.pt: is of another run.*{said}"):
        load_run(tmp_path)
    with pytest.raises(CheckpointError, match="is of another run"):
        export_model(tmp_path, tmp_path / "a.safetensors")


def test_what_may_differ_within_a_run_and_what_is_not_there_is_no_other_run(tmp_path: Path):
    own_run(tmp_path, config=other(DATA={"ROOT": "/elsewhere"}, TRAIN={"LOG_INTERVAL": 7}))
    load_run(tmp_path)
    (tmp_path / "environment.json").unlink()
    (tmp_path / "config.yaml").write_text("not: [ours")
    load_run(tmp_path)


def test_exported_models_and_checkpoints_have_the_rights_that_the_umask_leaves(tmp_path: Path):
    before = os.umask(0o022)
    try:
        own_run(tmp_path)
        export_model(tmp_path, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    for path in (tmp_path / "a.safetensors", checkpoint_path(tmp_path, "best")):
        assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.timeout(60)
def test_a_checkpoint_that_is_no_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises((CheckpointError, OSError), match=r"a\.pt"):
        read_checkpoint(tmp_path / "a.pt")
