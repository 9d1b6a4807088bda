"""Constants in the type and on the device of other tensors, made once.

A GPU takes a constant from main memory only when it has done all that it was given before, and the
program waits for that; so a constant is not made anew on each call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

_made: dict[tuple[Any, ...], Tensor] = {}
_MOST = 512
_changing = threading.Lock()


def constant(make: Callable[..., Tensor], *arguments: Hashable, like: Tensor) -> Tensor:
    """Return `make(*arguments)` in the type and on the device of another tensor.

    The latest are kept, and are not to be changed.

    Args:
        make: a function of this package, which makes the same on each call, in main memory.
        arguments: its arguments.
        like: the other tensor.
    """
    if torch.compiler.is_compiling():
        return make(*arguments).to(like)
    key = (make, arguments, like.dtype, like.device)
    found = _made.get(key)
    if found is None:
        # Tensors made in inference mode could not be used again in training.
        with torch.inference_mode(False), torch.no_grad():
            found = make(*arguments).to(like)
        with _changing:  # frames are restored side by side
            if len(_made) >= _MOST:
                _made.pop(next(iter(_made)))
            _made[key] = found
    return found


def numbers(*values: float) -> Tensor:
    """Return numbers (n,) float64, for `constant`."""
    return torch.tensor(values, dtype=torch.float64)
