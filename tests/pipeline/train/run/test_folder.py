from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from training_sets import tiny_config

from spikedeblur.configs import dump_config, load_config
from spikedeblur.pipeline.host.files import UnsafePathError
from spikedeblur.pipeline.host.locks import HeldError
from spikedeblur.pipeline.train.run.folder import (
    MetricsFile,
    begin,
    hold,
    read_resumable,
    require_new,
    require_own_start,
    require_same,
    sweep_run,
)
from spikedeblur.pipeline.train.run.runs import RunFolderError, read_metrics
from spikedeblur.pipeline.weights.same import HARMLESS, STEERING, leaves


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_not(tmp_path: Path):
    run = tmp_path / "run"
    child = os.fork()
    if child == 0:  # holds the folder, then dies without letting go
        try:
            with hold(run):
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    with hold(run), pytest.raises(HeldError, match="another `spikedeblur train`"), hold(run):
        pass


def test_a_run_is_not_replaced_unasked(tmp_path: Path):
    require_new(tmp_path, overwrite=False)
    begin(tmp_path, tiny_config())
    with pytest.raises(RunFolderError, match="--resume"):
        require_new(tmp_path, overwrite=False)
    require_new(tmp_path, overwrite=True)


def test_starting_anew_removes_a_runs_products_and_nothing_else(tmp_path: Path):
    begin(tmp_path, tiny_config())
    theirs = ["notes.txt", "samples/holiday.png", "checkpoints/mine.pt"]
    ours = [
        "metrics.jsonl",
        "environment.json",
        "events.out.tfevents.1.a",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "samples/step_0000010.png",
        "evaluation.json",
        "before_after.png",
        "report.html",
    ]
    for name in theirs + ours:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    begin(tmp_path, tiny_config(SEED=5))
    assert [name for name in theirs + ours if (tmp_path / name).exists()] == theirs
    assert load_config(tmp_path / "config.yaml").TRAIN.SEED == 5


def test_half_written_files_of_a_killed_start_are_swept(tmp_path: Path):
    for name in (".config.ba9876543210.partial.yaml", "checkpoints/.last.0123456789ab.partial.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "checkpoints/last.pt").write_text("x")
    sweep_run(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["last.pt"]


@pytest.mark.parametrize("folder", ["checkpoints", "samples"])
def test_nothing_is_removed_through_a_link_out_of_the_run(tmp_path: Path, folder: str):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    begin(run, tiny_config())
    elsewhere.mkdir()
    names = ("last.pt", "step_0000001.png", ".last.pt.0123456789ab.partial")
    for name in names:
        (elsewhere / name).write_text("theirs")
        os.utime(elsewhere / name, (0, 0))
    (run / folder).symlink_to(elsewhere)
    with pytest.raises(UnsafePathError, match=f"{folder}: is a link that leaves"):
        begin(run, tiny_config())
    with pytest.raises(UnsafePathError, match=f"{folder}: is a link that leaves"):
        sweep_run(run)
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(names)


def test_continuing_with_other_settings_names_those_that_no_run_may_change(tmp_path: Path):
    with pytest.raises(RunFolderError, match=r"TRAIN.SEED \(0 before, 13 now\)") as caught:
        require_same(tiny_config(), tiny_config(SEED=13, NUM_WORKERS=1, MAX_STEPS=20), tmp_path)
    assert "NUM_WORKERS" not in str(caught.value)
    assert "MAX_STEPS" not in str(caught.value)
    wsd = tiny_config(SCHEDULER={"TYPE": "wsd"}, DATA={"CROP_SIZE": 8})
    with pytest.raises(RunFolderError, match=r"DATA.CROP_SIZE.*TRAIN.SCHEDULER.TYPE"):
        require_same(tiny_config(), wsd, tmp_path)


def test_keys_that_may_change_exist():
    assert leaves(tiny_config().model_dump()).keys() >= HARMLESS | STEERING
    assert not HARMLESS & STEERING


def test_a_run_killed_before_its_first_checkpoint_starts_again_with_its_own_settings(tmp_path):
    assert read_resumable(tmp_path, tiny_config()) is None
    (tmp_path / "config.yaml").write_text(dump_config(tiny_config()))
    assert read_resumable(tmp_path, tiny_config()) is None
    with pytest.raises(RunFolderError, match=r"TRAIN\.SEED"):
        read_resumable(tmp_path, tiny_config(SEED=1))


def test_continued_metrics_keep_the_lines_up_to_the_checkpoint(tmp_path: Path):
    first = MetricsFile(tmp_path, -1, -1)
    first.write({"kind": "val", "step": 0})
    for step in (1, 2, 3):
        first.write({"kind": "train", "step": step})
        first.write({"kind": "val", "step": step})  # after the checkpoints, so it comes again
    with first.path.open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    MetricsFile(tmp_path, 2, 0).write({"kind": "again", "step": 3})
    found = [(line["kind"], line["step"]) for line in read_metrics(tmp_path)]
    assert found == [("val", 0), ("train", 1), ("train", 2), ("again", 3)]
    MetricsFile(tmp_path, -1, -1)
    assert read_metrics(tmp_path) == []


def test_damaged_metrics_are_an_error_with_the_line(tmp_path: Path):
    good = json.dumps({"kind": "train", "step": 1}).encode()
    for bad in (b"nonsense", b"{}", b"[1]", b"\xff\xfe", b"\x00" * 40):
        (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([good, bad, good, b""]))
        with pytest.raises(RunFolderError, match="line 2"):
            read_metrics(tmp_path)


def test_a_run_that_began_with_weights_is_not_begun_anew_without_them(tmp_path):
    require_own_start(tmp_path)
    (tmp_path / "environment.json").write_text('{"starts": []}')
    require_own_start(tmp_path)
    (tmp_path / "environment.json").write_text('{"init": {"name": "small"}, "starts": []}')
    with pytest.raises(RunFolderError, match=r"begun with --init small .* give --init again"):
        require_own_start(tmp_path)
