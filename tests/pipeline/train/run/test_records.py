"""What a run counts, and what it writes of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_sets import tiny_config

from spikedeblur import __version__
from spikedeblur.configs.schema.train import TrainConfig
from spikedeblur.pipeline.storage.traffic import Traffic
from spikedeblur.pipeline.train.clock import STEP_PARTS, Clock
from spikedeblur.pipeline.train.run import wandb
from spikedeblur.pipeline.train.run.records import Interval, Position, Records, open_records
from spikedeblur.pipeline.train.step import StepResult

NAN = float("nan")


def session(run: Path, *, state: Any = None, first: bool = True, world: int = 1, steps: int = 100):
    group = SimpleNamespace(is_first=first, device=torch.device("cpu"), world=world)
    return SimpleNamespace(
        run=run,
        state=state,
        init=None,
        group=group,
        steps=steps,
        config=tiny_config(LOG_INTERVAL=2),
        data={"digest": "abc"},
        phases=[SimpleNamespace(start=0, plan=SimpleNamespace(steps_an_epoch=4))],
        continuation=None,
    )


def clock(seconds: float = 2.0, samples: int = 6) -> Clock:
    """A clock that counted some seconds of the forward pass, and samples."""
    timer = Clock(torch.device("cpu"))
    timer._seconds["forward"] += seconds
    timer.samples, timer.hits, timer.misses = samples, 4, 5
    return timer


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_steps_are_counted_and_means_are_over_those_with_a_loss():
    at = Position()
    for loss, psnr in ((0.5, 20.0), (NAN, NAN), (0.25, 30.0)):
        at.note_step(StepResult(loss, psnr, 1.0))
    assert at.step == 3
    assert at.interval == Interval(loss=0.75, psnr=50.0, steps=2)


def test_a_position_reads_back_from_a_checkpoint_which_holds_more():
    at = Position(7, 6, 3, 31.5, Interval(0.5, 20.0, 2))
    assert Position.of({**asdict(at), "model": {}}) == at
    assert Position.of(None) == Position(0, -1, None, None, Interval())


def test_the_best_validation_is_the_first_of_the_highest_finite_ones():
    at, said = Position(), []
    for step, psnr in ((1, NAN), (2, 30.0), (3, 30.0), (4, math.inf), (5, 31.0), (6, 29.0)):
        at.step = step
        said.append(at.note_validation(psnr))
        assert at.validated_step == step
    assert said == [False, True, False, False, True, False]
    assert (at.best_step, at.best_psnr) == (5, 31.0)


@pytest.mark.parametrize(
    ("early", "best", "validated", "stale"),
    [
        (2, 10, 29, False),
        (2, 10, 30, True),
        (2, 10, 40, True),
        (None, 10, 99, False),
        (2, None, 99, False),
    ],
)
def test_a_run_is_stale_after_so_many_validations_without_a_better_one(
    early, best, validated, stale
):
    options = TrainConfig(EARLY_STOP=early, VAL_INTERVAL=10)
    assert Position(99, validated, best, 30.0).is_stale(options) is stale


def test_lines_hold_means_of_their_interval_and_the_last_step_has_one(tmp_path: Path):
    at = Position()
    with open_records(session(tmp_path, steps=5, world=3), at) as records:
        for step in range(1, 6):
            at.note_step(StepResult(step / 8, 10.0 * step, 1.0))
            records.training_if_due(1e-3, 0.5, clock())
    first, second, last = lines(tmp_path)
    assert [line["step"] for line in (first, second, last)] == [2, 4, 5]
    assert [line["epoch"] for line in (first, second, last)] == [0.5, 1.0, 1.25]
    assert [line["loss"] for line in (first, second, last)] == [1.5 / 8, 3.5 / 8, 5 / 8]
    assert [line["psnr"] for line in (first, second, last)] == [15.0, 35.0, 50.0]
    assert first["kind"] == "train"
    assert (first["lr"], first["grad_norm"]) == (1e-3, 0.5)
    assert (first["cache_hits"], first["cache_misses"]) == (4, 5)
    assert first["seconds"] == pytest.approx(2.0, rel=0.2)
    assert first["samples_per_s"] == pytest.approx(3 * 6 / first["seconds"])
    assert 0 <= first["data_wait"] <= 1
    assert {f"seconds_{part}" for part in (*STEP_PARTS, "saving")} <= set(first)
    assert at.interval == Interval()


def test_a_line_says_what_came_from_a_bucket_if_anything_did(tmp_path: Path):
    at = Position()
    with open_records(session(tmp_path, steps=2), at) as records:
        for traffic in (Traffic(requests=30, fetched=50, used=200), Traffic()):
            at.note_step(StepResult(0.5, 10.0, 1.0))
            timer = clock()
            timer.count([{"seq": [], "weight": 0, "cache": (0, 0), "traffic": traffic}])
            timer.steps = 2
            at.step = 2
            records.training_if_due(1e-3, 0.5, timer)
    with_bucket, without = lines(tmp_path)
    assert (with_bucket["fetched_over_used"], with_bucket["requests_per_step"]) == (0.25, 15)
    assert not {"fetched_over_used", "requests_per_step"} & without.keys()


def test_a_line_begins_a_new_interval_of_the_clock(tmp_path: Path):
    at, timer = Position(), clock()
    records = Records(session(tmp_path), at)
    at.step = 1
    records.training_if_due(1e-3, 0.5, timer)
    assert timer.samples == 6, "not due"
    at.step = 2
    records.training_if_due(1e-3, 0.5, timer)
    assert (timer.samples, timer.hits, timer.misses) == (0, 0, 0)
    assert timer.seconds < 1
    assert timer._part == "other", "what follows is no saving"
    assert not list(tmp_path.iterdir())


def test_what_is_not_known_is_null(tmp_path: Path):
    at = Position()
    with open_records(session(tmp_path), at) as records:
        for _ in range(2):
            at.note_step(StepResult(NAN, NAN, math.inf))
        records.training_if_due(1e-3, math.inf, clock())
    (line,) = lines(tmp_path)
    assert (line["loss"], line["psnr"], line["grad_norm"]) == (None, None, None)


def test_a_validation_is_a_line_a_curve_and_a_picture(tmp_path: Path):
    at = Position(step=6)
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with open_records(session(tmp_path), at) as records:
        records.validation({"psnr": 31.5, "lost": None}, picture)
        at.step = 8
        records.validation({"psnr": 32.0, "lost": None}, None)
        records.unread("train/x", "cut")
    first, second, unread = lines(tmp_path)
    assert first == {"kind": "val", "step": 6, "epoch": 1.5, "psnr": 31.5, "lost": None}
    assert second["step"] == 8
    assert unread == {"kind": "unread", "step": 8, "seq": "train/x", "error": "cut"}
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["step_0000006.png"]
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("val/psnr")] == [(6, 31.5), (8, 32.0)]
    assert board.Tags()["scalars"] == ["val/psnr"], "null is no point of a curve"
    assert [(e.step, e.width, e.height) for e in board.Images("val/sample")] == [(6, 6, 4)]


def test_a_curve_is_on_disk_before_the_run_goes_on(tmp_path: Path):
    at = Position(step=6)
    with open_records(session(tmp_path), at) as records:
        records.validation({"psnr": 31.5}, None)
        board = EventAccumulator(str(tmp_path))
        board.Reload()
        assert [e.step for e in board.Scalars("val/psnr")] == [6]


def test_a_run_that_goes_on_keeps_lines_up_to_its_checkpoint_and_a_new_one_keeps_none(
    tmp_path: Path,
):
    def run(state: Any, at: Position, steps: list[int]) -> list[int]:
        with open_records(session(tmp_path, state=state), at) as records:
            for at.step in steps:
                records.validation({"psnr": float(at.step)}, None)
        return [line["step"] for line in lines(tmp_path)]

    assert run(None, Position(), [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert run({}, Position(step=3, validated_step=2), [3, 5]) == [1, 2, 3, 5]
    curve = EventAccumulator(str(tmp_path))
    curve.Reload()
    assert [e.step for e in curve.Scalars("val/psnr")][-2:] == [3, 5]
    assert 4 not in [e.step for e in curve.Scalars("val/psnr")], "hidden: it was not checkpointed"
    assert run(None, Position(), [1]) == [1]


def test_each_start_is_noted_with_its_software(tmp_path: Path):
    for state, at in ((None, Position()), ({}, Position(step=4))):
        with open_records(session(tmp_path, state=state, world=2), at):
            pass
    noted = json.loads((tmp_path / "environment.json").read_text())
    assert noted["data"] == {"digest": "abc"}
    first, second = noted["starts"]
    assert (first["step"], second["step"]) == (0, 4)
    assert second["spikedeblur"] == __version__
    assert (second["device"], second["cuda"], second["processes"]) == ("cpu", None, 2)
    assert second["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"starts": null}'])
def test_a_damaged_note_of_starts_begins_anew(tmp_path: Path, content: str):
    (tmp_path / "environment.json").write_text(content)
    with open_records(session(tmp_path, state={}), Position(step=2)):
        pass
    (start,) = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert start["step"] == 2


def test_other_processes_write_nothing(tmp_path: Path):
    at = Position(step=2)
    with open_records(session(tmp_path, first=False), at) as records:
        records.training_if_due(1e-3, 0.5, clock())
        records.validation({"psnr": 30.0}, np.zeros((2, 2, 3), np.uint8))
        records.unread("train/x", "cut")
    assert not list(tmp_path.iterdir())


def test_pictures_of_validations_that_come_again_are_removed(tmp_path: Path):
    (tmp_path / "samples").mkdir()
    for name in ("step_0000004.png", "step_0000008.png", "step_mine.png", "holiday.png"):
        (tmp_path / "samples" / name).write_text("x")
    with open_records(session(tmp_path, state={}), Position(step=6, validated_step=4)):
        pass
    found = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert found == ["holiday.png", "step_0000004.png", "step_mine.png"]


def test_what_is_logged_also_goes_to_a_service_which_is_told_the_end(tmp_path, monkeypatch):
    said: list[Any] = []
    service = SimpleNamespace(
        log=lambda values, step: said.append((values, step)), finish=lambda: said.append("end")
    )
    monkeypatch.setattr(
        "spikedeblur.pipeline.train.run.records.open_wandb", lambda run, config: service
    )
    with open_records(session(tmp_path), Position(step=3)) as records:
        records.validation({"psnr": 31.5, "lost": None}, None)
    assert wandb.open_wandb(tmp_path, tiny_config()) is None
    assert said == [({"val/psnr": 31.5}, 3), "end"]
