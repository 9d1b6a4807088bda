"""What loading processes need, imported once in the fork server that they are forked from.

Nothing is opened here: TensorStore ends a process that was forked from one that has used it.
"""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy.random
import tensorstore

from ...sequences import light, stored, unified
from ...spikes.intervals import compiled
from . import workers

__all__ = ["light", "numpy", "stored", "tensorstore", "unified", "workers"]

if (fused := compiled()) is not None:
    fused.kernel()  # numba is loaded once for all

# `start_fork_server` blocks Ctrl-C and a scheduler's SIGTERM, which reach the whole process group:
# they would end the server, while training goes on to its checkpoint. What came meanwhile is
# dropped; then `multiprocessing` has it ignore Ctrl-C, and processes that it forks act as usual.
# Other programs that import this keep their signals.
if signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGINT, interrupt)
    os.register_at_fork(after_in_child=partial(signal.signal, signal.SIGTERM, signal.SIG_DFL))
