"""What the C library keeps of freed memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FILL_TWICE = """
import resource, sys, threading
import numpy as np
from spikedeblur.pipeline.host import allocator

allocator.keep_freed_memory()
if sys.argv[1] == "shared":
    allocator.share_freed_memory_among_threads()

def fill():
    np.ones(12_500_000)  # 100 MB

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def in_a_thread():
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()

in_a_thread()
before = faults()
in_a_thread()
print(faults() - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FILL_TWICE, how]
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has heaps of threads")
def test_threads_take_large_arrays_that_other_threads_freed() -> None:
    assert faults("shared") < 2000
    assert faults("alone") > 10_000  # or nothing need be done
