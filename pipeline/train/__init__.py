"""The train stage: data, the loop, what a run writes, and start-up on several processes.

`train` is imported when it is asked for: the loader's workers do without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .job import train

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from .job import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
