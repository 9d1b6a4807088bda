"""The restore stage: recordings in, sharp frames out."""

from .job import restore

__all__ = ["restore"]
