"""The calibrate stage: how a spike camera's pixels differ, by recordings in dark and light."""

from .job import calibrate

__all__ = ["calibrate"]
