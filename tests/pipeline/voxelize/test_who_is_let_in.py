"""What runs while `voxelize` does: nobody but its own processes may talk to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from data_sets import DataSet
from outsiders import as_another_user, beyond_this_machine, by_http, listening, wants_certificate

from spikedeblur.pipeline.voxelize.workers import Workers, connect

_IMPORTS = """
import asyncio, logging, warnings
from contextlib import suppress
import distributed.comm.tcp, distributed.protocol.pickle, distributed.versions
from distributed import Client
from distributed.core import rpc
from distributed.security import Security
async def ask(where, how):
    async with rpc(where, timeout=10, connection_args=how) as peer:
        return await peer.identity()
"""
_TRY = """
logging.disable()
warnings.simplefilter("ignore")
for address in sys.argv[1:]:
    host = address.split("://")[1]
    for where, security in (f"tcp://{host}", Security()), (f"tls://{host}", Security.temporary()):
        with suppress(Exception):
            asyncio.run(ask(where, security.get_connection_args("client")))
            print(address, "answers", where)
        with suppress(Exception), Client(where, security=security, timeout=10) as client:
            print(address, "runs code as user", client.run_on_scheduler(os.getuid))
"""


@contextmanager
def cluster_without_keys() -> Iterator[list[str]]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        host="127.0.0.1",
        protocol="tcp://",
        dashboard_address=None,
    ) as cluster:
        yield [cluster.scheduler_address]


def addresses_of(client) -> list[str]:
    """All that Dask started: scheduler, workers and their nannies."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return [client.scheduler.address, *workers, *(w["nanny"] for w in workers.values())]


def pair(address: str) -> tuple[str, int]:
    host, _, port = address.split("://")[1].partition(":")
    return host, int(port)


@pytest.mark.slow
def test_another_user_gets_no_word_from_scheduler_workers_and_nannies() -> None:
    with cluster_without_keys() as open_to_all:  # or the test would be blind
        said = as_another_user(_TRY, *open_to_all, imports=_IMPORTS)
    assert f"{open_to_all[0]} runs code as user 0" in said
    assert f"{open_to_all[0]} answers" in said
    with connect(Workers(count=2)) as client:
        addresses = addresses_of(client)
        assert len(addresses) == 5
        assert as_another_user(_TRY, *addresses, imports=_IMPORTS) == ""
        assert client.submit(abs, -3).result() == 3
        for address in addresses:
            assert wants_certificate(pair(address))


@pytest.mark.slow
def test_http_servers_show_nothing_and_no_key_is_in_sight() -> None:
    shown = ("/", "/status", "/info/main/workers.html", "/json/counts.json", "/metrics", "/health")
    with connect(Workers(count=2)) as client:
        others = listening(os.getpid()) - set(map(pair, addresses_of(client)))
        assert len(others) == 3  # of the scheduler and two workers
        assert 8787 not in {port for _, port in others}  # two runs at once would quarrel over it
        for address in others:
            assert {by_http(address, path) for path in shown} == {404}
        for process in psutil.Process().children(recursive=True):
            assert "PRIVATE KEY" not in " ".join(process.cmdline())
            assert "PRIVATE KEY" not in " ".join(process.environ().values())


@pytest.mark.slow
def test_while_voxelize_runs_no_other_machine_reaches_anything(
    data: DataSet, tmp_path: Path
) -> None:
    seen = []
    data.voxelize(
        tmp_path / "s.zarr",
        workers=2,
        on_progress=lambda *_: seen.append(listening(os.getpid())),
    )
    assert max(map(len, seen)) >= 5
    assert beyond_this_machine(set().union(*seen)) == set()
