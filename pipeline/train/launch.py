"""Start of several training processes on one machine, which no other machine can reach.

`spikedeblur train --gpus N` starts its own command line N times. The processes meet in a file of a
folder that only this user may open: torchrun's store listens to every network, and unpickles all
that it receives.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from ...errors import SpikeDeblurError
from .stop import stop_request

MEETING = "SPIKEDEBLUR_MEETING"
"""Environment variable: a private file in which the processes of one machine find each other."""
_LAUNCHER = "SPIKEDEBLUR_LAUNCHER"  # number of the process that started them

_PATIENCE = 30.0  # seconds that the others get to end once a process failed
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def is_launched() -> bool:
    """Whether this process is one of those that `launch` started."""
    return MEETING in os.environ


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run a command line of `spikedeblur` in several processes, until they end.

    Ctrl-C and SIGTERM are passed on to them, so that they write their checkpoint. Where one of them
    fails, the others are ended.

    Args:
        processes: number of processes; one for each GPU, if there are any.
        arguments: the command line, without the program's name.

    Returns:
        Exit code of the first one that failed; 0: none. 128 + a signal that ended it.
    """
    with tempfile.TemporaryDirectory() as private:
        shared = {
            MEETING: f"{private}/processes",
            _LAUNCHER: str(os.getpid()),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }
        # The processes share the cores: one thread each, as under torchrun, or TRAIN.THREADS.
        environment = {"OMP_NUM_THREADS": "1"} | os.environ | shared
        started: list[subprocess.Popen[bytes]] = []
        try:
            with stop_request() as stop:
                started.extend(
                    subprocess.Popen(
                        [sys.executable, "-m", "spikedeblur", *arguments],
                        env=environment | {"RANK": rank, "LOCAL_RANK": rank},
                        start_new_session=True,  # Ctrl-C reaches it once, from here
                    )
                    for rank in map(str, range(processes))
                )
                failed, until = 0, float("inf")
                passed_on = False
                while any(process.poll() is None for process in started):
                    codes = [process.returncode for process in started if process.returncode]
                    if codes and not failed:
                        failed, until = codes[0], time.monotonic() + _PATIENCE
                    if stop.signal is not None and not passed_on:
                        _signal_all(started, stop.signal)
                        passed_on = True
                    if time.monotonic() > until:
                        _signal_all(started, signal.SIGKILL)
                    time.sleep(0.05)
                failed = failed or next((p.returncode for p in started if p.returncode), 0)
        finally:
            _signal_all(started, signal.SIGKILL)
    return failed if failed >= 0 else 128 - failed


def _signal_all(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        process.send_signal(number)  # nothing is sent to one that has ended


def end_with_launcher() -> None:
    """Have the system kill this process when the one that launched it ends (Linux).

    Raises:
        SpikeDeblurError: it has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if str(os.getppid()) != os.environ.get(_LAUNCHER):
        raise SpikeDeblurError("the process that launched this one has ended; start it again")
