"""The adapt stage: a trained model is fitted to recordings without sharp frames."""

from .job import adapt

__all__ = ["adapt"]
