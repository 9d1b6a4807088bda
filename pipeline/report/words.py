"""The words of a report: what it calls each method, and what a method does."""

from __future__ import annotations

from ..simulate.display import SPLIT as SHOW

__all__ = ["EXPLAINED", "SHOW", "title"]

_TITLES = {"tfp": "TFP", "tfi": "TFI", "sdm": "SDM", "rgb": "RGB"}

EXPLAINED = {
    "blur": "the frame as the colour camera recorded it.",
    "TFP": "texture from playback: the spikes of a short window, counted. Grey, since spikes have "
    "no colour; a short window is noisy, a long one blurred.",
    "TFI": "texture from interval: one over the time between the two spikes around the middle of "
    "the exposure. Grey.",
    "SDM": "spike-guided division: the blurred frame, times the spikes of a short window, divided "
    "by those of the whole exposure. It learns nothing.",
    "path": "the blurred frame, made sharp along the motion that the spikes show. It learns "
    "nothing.",
    "RGB": "a network that was trained on blurred frames alone: what can be had without spikes.",
    "model": "the trained network of this run.",
    "sharp": "the truth, which no method sees.",
}
"""What each method does, by its title."""


def title(method: str) -> str:
    """Return what the page calls a method."""
    return _TITLES.get(method, method)
