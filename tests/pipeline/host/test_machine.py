import pytest

from spikedeblur.pipeline.host import machine
from spikedeblur.pipeline.host.machine import (
    MEMORY,
    MachineError,
    free_main_memory,
    workers_that_fit,
)
from spikedeblur.pipeline.simulate.clips import SourceClip
from spikedeblur.pipeline.simulate.rig import Rig


def test_the_user_s_limit_bounds_what_is_free(monkeypatch):
    monkeypatch.delenv(MEMORY, raising=False)
    free = free_main_memory()
    monkeypatch.setenv(MEMORY, "100MB")
    assert free_main_memory() == 100_000_000
    monkeypatch.setenv(MEMORY, f"{100 * free}")
    assert free_main_memory() <= 1.5 * free


def test_a_container_s_limit_bounds_what_is_free(monkeypatch):
    found = {"memory.max": "500000000", "memory.current": "200000000"}
    monkeypatch.setattr(machine, "cgroup_value", found.get)
    monkeypatch.delenv(MEMORY, raising=False)
    assert free_main_memory() == 300_000_000


def test_a_limit_that_is_no_size_is_refused(monkeypatch):
    monkeypatch.setenv(MEMORY, "plenty")
    with pytest.raises(MachineError, match="SPIKEDEBLUR_MEMORY: expected a size"):
        free_main_memory()


def test_workers_are_one_a_core_as_far_as_memory_holds_them(monkeypatch):
    monkeypatch.setattr(machine, "available_cores", lambda: 16)
    monkeypatch.setenv(MEMORY, "1GB")
    assert workers_that_fit(1) == 16
    assert workers_that_fit(200_000_000) == 4
    assert workers_that_fit(10**12) == 1


def test_large_frames_take_a_simulation_more_memory():
    small, large = (SourceClip("test/a/b", size=(side, side), length=65) for side in (64, 4096))
    rig = Rig()
    assert rig.worker_bytes(small) < 150 * 2**20
    assert rig.worker_bytes(large) > 10 * 2**30
