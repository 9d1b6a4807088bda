"""What loading processes need, imported once in the fork server that they are forked from.

Nothing is opened here: TensorStore ends a process that was forked from one that has used it.
"""

from __future__ import annotations

import signal

import numpy.random
import tensorstore

from ...sequences import light, stored, unified
from . import workers

__all__ = ["light", "numpy", "stored", "tensorstore", "unified", "workers"]

# `start_fork_server` blocks Ctrl-C, which would end the imports; what came meanwhile is dropped.
interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
signal.signal(signal.SIGINT, interrupt)
