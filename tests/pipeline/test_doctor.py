"""Machines that lack something are told what, and what to do."""

from __future__ import annotations

import json
import resource

import pytest

from spikedeblur.cli import main
from spikedeblur.pipeline import doctor


@pytest.fixture
def limits(monkeypatch):
    """A container with limits of the test's choice, by the files that the kernel shows."""
    told: dict[str, str] = {}
    monkeypatch.setattr(doctor, "cgroup_value", lambda name: told.get(name, ""))
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(8)))
    return told


def test_a_share_of_the_cores_is_told_with_the_number_to_give(limits):
    limits["cpu.max"] = "250000 100000"
    (found,) = doctor._cores()
    assert "8, of which the container may use 2.5" in found.found
    assert "--workers 2" in found.advice


@pytest.mark.parametrize("quota", ["max 100000", "", "900000 100000"])
def test_no_quota_below_the_cores_is_none(limits, quota):
    limits["cpu.max"] = quota
    (found,) = doctor._cores()
    assert (found.found, found.advice) == ("8", "")


@pytest.mark.parametrize(("gib", "ok"), [(1, False), (4, True)])
def test_the_containers_memory_counts_not_the_machines(limits, gib, ok):
    limits["memory.max"] = str(gib * 2**30)
    (found,) = doctor._memory()
    assert found.found.startswith(f"{gib}.0 GiB (limit of the container")
    assert found.ok == ok
    assert "MEMORY_BUDGET" in found.advice


def test_parts_of_one_library_from_two_releases_are_called_out(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(
        doctor, "_version", lambda name: "2020.1.0" if name == "distributed" else real(name)
    )
    found = {finding.what: finding for finding in doctor._clashes()}
    assert not found["Dask"].ok
    assert "pip install distributed==" in found["Dask"].advice


def test_few_open_files_are_called_out(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    found = {finding.what: finding for finding in doctor._limits()}
    assert not found["open files"].ok
    assert "ulimit -n 4096" in found["open files"].advice


def test_the_disk_is_measured_and_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "PROBE_BYTES", 2**20)
    disk, lock = doctor._disk()
    assert "MB/s" in disk.found
    assert disk.ok
    assert lock.ok
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written_is_called_out(monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "_writing_rate", refuse)
    (disk,) = doctor._disk()
    assert not disk.ok
    assert "Permission denied" in disk.found


def test_something_to_mend_is_exit_code_1_and_said_last(monkeypatch, capsys):
    findings = [
        doctor.Diagnosis("a", "fine"),
        doctor.Diagnosis("b", "bad", ok=False, advice="mend it"),
        doctor.Diagnosis("c", "so so", advice="better"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "BAD b                  bad  -> mend it"
    assert lines[-1] == "1 to mend, 1 that could be better"
    assert main(["doctor", "--json"]) == 1
    assert [finding["ok"] for finding in json.loads(capsys.readouterr().out)] == [True, False, True]
