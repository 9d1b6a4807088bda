"""The evaluate stage: methods compared with sharp frames, and a picture of it."""

from .job import evaluate

__all__ = ["evaluate"]
