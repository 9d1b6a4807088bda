"""The evaluate stage: methods compared with sharp frames, and a picture of it."""

from .job import Evaluating, evaluate

__all__ = ["Evaluating", "evaluate"]
