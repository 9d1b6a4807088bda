"""Mapping tasks over processes: what happens when one is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import cloudpickle
import pytest

from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.voxelize import workers as workers_module
from spikedeblur.pipeline.voxelize.workers import IN_FLIGHT, Workers, run_tasks


@pytest.fixture(autouse=True)
def _send_functions_of_this_file() -> Iterator[None]:
    """Workers can't import test files, so their functions travel by value."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def die_once(marker_and_task: tuple[str, int]) -> int:
    marker, task = marker_and_task
    if task == 3 and not Path(marker).exists():
        Path(marker).touch()
        os._exit(9)
    return task * task


def die_always(_task: int) -> None:
    os._exit(9)


def test_in_this_process_tasks_are_drawn_one_by_one() -> None:
    drawn = []

    def tasks() -> Iterator[int]:
        for i in range(5):
            drawn.append(i)
            yield i

    results = run_tasks(abs, tasks(), Workers(count=1))
    assert next(results) == 0
    assert drawn == [0]


def test_a_job_of_seconds_starts_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "connect", pytest.fail)
    assert list(run_tasks(abs, range(-3, 0))) == [3, 2, 1]


@pytest.mark.parametrize("limit", ["ALONE_SECONDS", "ALONE_AT_MOST"])
def test_a_longer_job_goes_on_with_workers_from_where_it_is(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    handed: list[int] = []

    def run_on(_client: object, _function: object, tasks: Iterator[int], *_: object) -> list[int]:
        handed.extend(tasks)
        return handed

    monkeypatch.setattr(workers_module, limit, -1.0)
    monkeypatch.setattr(workers_module, "workers_that_fit", lambda _bytes: 2)
    monkeypatch.setattr(workers_module, "connect", lambda _workers: nullcontext())
    monkeypatch.setattr(workers_module, "run_on", run_on)
    assert list(run_tasks(abs, range(-3, 0))) == [3, -2, -1]
    assert handed == [-2, -1]
    assert list(run_tasks(abs, range(-2, 0), Workers(count=2)))[-2:] == [-2, -1]  # asked for


@pytest.mark.slow
def test_task_of_a_killed_worker_is_done_by_another(tmp_path: Path) -> None:
    drawn = []

    def tasks() -> Iterator[tuple[str, int]]:
        for i in range(30):
            drawn.append(i)
            yield str(tmp_path / "died"), i

    results = run_tasks(die_once, tasks(), Workers(count=2))
    first = next(results)
    # All that were in flight may be ready together, and are replaced before the first is yielded.
    assert len(drawn) <= 2 * (2 * IN_FLIGHT)
    assert sorted([first, *results]) == [i * i for i in range(30)]
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_task_that_kills_every_worker_is_named() -> None:
    with pytest.raises(StoreError, match="clip 7: workers died on it"):
        list(run_tasks(die_always, [7], Workers(count=2), describe=lambda task: f"clip {task}"))


@pytest.mark.slow
def test_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikedeblur.pipeline.voxelize.workers.CONNECT_SECONDS", 1)
    with pytest.raises(StoreError, match=r"tcp://127\.0\.0\.1:9: can't reach"):
        list(run_tasks(abs, [1], Workers(scheduler="tcp://127.0.0.1:9")))


def test_running_scheduler_is_used_and_left_running() -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        for _ in range(2):
            results = run_tasks(abs, range(-50, 0), Workers(scheduler=cluster.scheduler_address))
            assert sorted(results) == list(range(1, 51))
