"""Start of several training processes on one machine, which no other machine can reach.

    python -m spikedeblur.pipeline.train.launch PROCESSES --config YAML ...

starts PROCESSES of `spikedeblur train` by torchrun. By itself torchrun listens to every network,
and unpickles all that it receives; here its processes meet in files of a folder that only this
user may open.
"""

from __future__ import annotations

import os
import sys
import tempfile

from torch.distributed import run

from .distributed import MEETING

_UNSEEN_SECONDS = 3600
"""Seconds between signs of life, each a line in a file; no other machine waits for them."""


def launch(processes: int, arguments: list[str]) -> None:
    """Train with several processes on this machine, until they end.

    Args:
        processes: number of processes; one for each GPU, if there are any.
        arguments: command line of `spikedeblur train`.
    """
    with tempfile.TemporaryDirectory() as private:
        os.environ[MEETING] = f"{private}/processes"
        # torchrun would open a port for them all the same.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        words = ["--nnodes=1", f"--nproc-per-node={processes}", "--rdzv-backend=c10d"]
        words += [f"--rdzv-endpoint={private}/torchrun", "--rdzv-id=1"]
        words += [f"--rdzv-conf=store_type=file,keep_alive_interval={_UNSEEN_SECONDS}"]
        # Without the lone -- torchrun takes --run for an abbreviation of an option of its own.
        run.main([*words, "-m", "--", "spikedeblur", "train", *arguments])


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
