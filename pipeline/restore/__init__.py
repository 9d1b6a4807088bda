"""The restore stage: recordings in, sharp frames out."""

from .job import Restoring, restore

__all__ = ["Restoring", "restore"]
