"""The adapt stage: a trained model is fitted to recordings without sharp frames."""

from .job import Adapting, adapt

__all__ = ["Adapting", "adapt"]
