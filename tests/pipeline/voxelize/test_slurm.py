"""Voxelizing by jobs of SLURM, whose commands are played by scripts of tests/support/slurm."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_sets import DataSet, make_data_set
from files_of import files_of
from outsiders import as_another_user, beyond_this_machine, by_http, listening, wants_certificate

from spikedeblur.pipeline.storage.base import StoreError
from spikedeblur.pipeline.voxelize import slurm as slurm_module
from spikedeblur.pipeline.voxelize import workers as jobs_module

COMMANDS = Path(__file__).parents[2] / "support/slurm"


class Slurm:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def jobs(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name.isdigit())

    def running(self) -> list[str]:
        listed = subprocess.run(["squeue"], capture_output=True, text=True, check=True)
        return listed.stdout.split()

    def script(self, job: str) -> str:
        return (self.folder / f"{job}.sh").read_text()

    def kill(self, job: str) -> None:
        os.killpg(int((self.folder / job).read_text()), signal.SIGKILL)

    def refuse(self, why: str) -> None:
        (self.folder / "refuse").write_text(why)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    import dask
    import dask_jobqueue  # noqa: F401  # its defaults belong to the configuration

    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PATH", f"{COMMANDS}{os.pathsep}{os.environ['PATH']}")
    settings = {"cores": 1, "memory": "1GB", "interface": "lo", "queue": "short"}
    settings |= {"local-directory": str(tmp_path / "scratch")}
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in settings.items()}):
        found = Slurm(folder)
        yield found
        for job in found.running():
            found.kill(job)


def ended(slurm: Slurm) -> bool:
    deadline = time.monotonic() + 20
    while slurm.running():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_store_made_by_jobs_is_the_local_one_and_the_jobs_are_cancelled(
    data: DataSet, tmp_path: Path, slurm: Slurm
) -> None:
    data.voxelize(tmp_path / "here.zarr")
    summary = data.voxelize(tmp_path / "there.zarr", workers=2, cluster="slurm")
    assert summary.sequences_written == 2
    assert files_of(tmp_path / "there.zarr") == files_of(tmp_path / "here.zarr")
    assert slurm.jobs() == ["1", "2"]
    assert "#SBATCH -p short" in slurm.script("1")
    assert all((slurm.folder / f"{job}.cancelled").exists() for job in slurm.jobs())
    assert ended(slurm)


@pytest.mark.slow
def test_job_that_ends_early_is_submitted_again(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    monkeypatch.setattr(slurm_module, "RENEW_SECONDS", 1)
    monkeypatch.setattr(jobs_module, "GROUP_BYTES", 1)  # tasks are sent as results come
    seqs = tuple(f"train/a/{i:02d}" for i in range(16))
    data = make_data_set(tmp_path, seqs=seqs, frame_shape=(320, 576))
    data.voxelize(tmp_path / "here.zarr")
    killed = threading.Event()

    def kill_all(done: int, total: int, _: str) -> None:
        if done and not killed.is_set():
            killed.set()
            for job in slurm.running():
                slurm.kill(job)

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        summary = data.voxelize(
            tmp_path / "there.zarr", workers=1, cluster="slurm", on_progress=kill_all
        )
    assert killed.is_set()
    assert summary.sequences_written == 16
    assert len(slurm.jobs()) >= 2
    assert files_of(tmp_path / "there.zarr") == files_of(tmp_path / "here.zarr")


@pytest.mark.slow
def test_only_holders_of_the_jobs_key_are_let_in_and_it_is_this_users_alone(
    data: DataSet, tmp_path: Path, slurm: Slurm
) -> None:
    import dask

    seen: set[tuple[str, int]] = set()
    modes: dict[str, int] = {}
    read: list[str] = []

    def look(*_: object) -> None:
        if modes or not slurm.jobs():
            return
        words = re.findall(r"--tls-\S+ (\S+)", slurm.script("1"))
        modes.update({name: Path(name).stat().st_mode & 0o777 for name in words})
        modes["folder"] = Path(words[0]).parent.stat().st_mode & 0o777
        read.append(as_another_user(_READ, *words))
        seen.update(listening(os.getpid(), int((slurm.folder / "1").read_text())))
        for address in beyond_this_machine(seen):
            assert wants_certificate(address)
        for address in seen - beyond_this_machine(seen):
            assert by_http(address, "/status") == 404

    # Without an interface, all of them: as where nodes come by a network.
    options = {"interface": None, "scheduler-options": {"dashboard_address": ":8787"}}
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in options.items()}):
        data.voxelize(tmp_path / "s.zarr", workers=1, cluster="slurm", on_progress=look)
    assert len({port for _, port, *_ in beyond_this_machine(seen)}) == 3  # and of nanny and worker
    assert set(modes.values()) == {0o600, 0o700}
    assert len(modes) == 3
    assert read == [""]
    assert list((tmp_path / "home").glob(".spikedeblur-*")) == []


_READ = """
for name in sys.argv[1:]:
    try:
        print(open(name).read())
    except PermissionError:
        pass
"""


def test_certificates_need_a_disk_where_a_folder_can_be_private(
    data: DataSet, tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    with (
        dask.config.set({"jobqueue.slurm.shared-temp-directory": str(tmp_path / "none")}),
        pytest.raises(StoreError, match=r"none: expected a folder .*shared-temp-directory"),
    ):
        data.voxelize(tmp_path / "s.zarr", workers=1, cluster="slurm")

    class OpenToAll(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
        def __enter__(self) -> str:
            Path(self.name).chmod(0o777)
            return self.name

    monkeypatch.setattr(tempfile, "TemporaryDirectory", OpenToAll)
    with pytest.raises(StoreError, match="its mode becomes 777"):
        data.voxelize(tmp_path / "s.zarr", workers=1, cluster="slurm")
    assert not slurm.jobs()


def test_refusal_is_one_sentence_of_slurms_own_words(
    data: DataSet, tmp_path: Path, slurm: Slurm
) -> None:
    slurm.refuse("sbatch: error: Batch job submission failed: Invalid account specified\n")
    with pytest.raises(StoreError) as caught:
        data.voxelize(tmp_path / "s.zarr", workers=2, cluster="slurm")
    assert str(caught.value).startswith(
        "SLURM refused a job: sbatch: error: Batch job submission failed: Invalid account "
        "specified; correct jobqueue.slurm"
    )
    assert "\n" not in str(caught.value)


def test_machine_without_sbatch_is_told(
    data: DataSet, tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(StoreError, match="expected the command sbatch, found none"):
            data.voxelize(tmp_path / "s.zarr", workers=1, cluster="slurm")


def test_jobs_that_end_before_a_worker_comes_are_named(
    data: DataSet, tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    monkeypatch.setattr(slurm_module, "LOOK_SECONDS", 0.5)
    with (
        dask.config.set({"jobqueue.slurm.python": "false"}),
        pytest.raises(StoreError, match="jobs 1 ended before a worker of theirs answered"),
    ):
        data.voxelize(tmp_path / "s.zarr", workers=1, cluster="slurm")


def test_missing_configuration_is_named(data: DataSet, tmp_path: Path, slurm: Slurm) -> None:
    import dask

    with (
        dask.config.set({"jobqueue.slurm.memory": None}),
        pytest.raises(StoreError, match="DASK_JOBQUEUE__SLURM__MEMORY"),
    ):
        data.voxelize(tmp_path / "s.zarr", workers=1, cluster="slurm")
    with pytest.raises(StoreError, match="give --workers"):
        data.voxelize(tmp_path / "s.zarr", workers=None, cluster="slurm")


def test_dry_run_prints_the_script_and_submits_nothing(
    data: DataSet, tmp_path: Path, slurm: Slurm
) -> None:
    from typer.testing import CliRunner

    from spikedeblur.cli import app

    arguments = ["voxelize", str(data.manifest), str(tmp_path / "s"), "--dry-run"]
    arguments += ["--cluster", "slurm", "--workers", "3", "--bins", "8"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Each of 3 jobs:\n#!/usr/bin/env bash" in result.stdout
    for line in (
        "#SBATCH -p short",
        "#SBATCH --mem=954M",
        f"{sys.executable} -m distributed",
        "--tls-key",
    ):
        assert line in result.stdout
    assert not slurm.jobs()
