"""Looking into a recording or a store: what there is to see, and the page that shows it."""

from .page import serve
from .recordings import ViewedClip, ViewError, open_clips

__all__ = ["ViewError", "ViewedClip", "open_clips", "serve"]
