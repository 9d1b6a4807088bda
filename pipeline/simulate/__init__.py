"""The simulate stage: sharp high-speed frames become what two cameras would have recorded."""

from .job import simulate

__all__ = ["simulate"]
