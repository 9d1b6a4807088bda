"""Looking into a recording or a store: what there is to see, and the page that shows it."""

from .page import serve
from .recordings import ViewedClip, ViewError, open_clips, open_recording

__all__ = ["ViewError", "ViewedClip", "open_clips", "open_recording", "serve"]
