"""The simulate stage: sharp high-speed frames in, what two cameras would have recorded out."""

from .job import simulate

__all__ = ["simulate"]
