"""Looking into a recording or a store: what there is to see, and the page that shows it."""

from .clips import Clip, ViewError, open_clips
from .page import serve

__all__ = ["Clip", "ViewError", "open_clips", "serve"]
