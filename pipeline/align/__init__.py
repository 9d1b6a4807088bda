"""Alignment: which spikes belong to which blurred frame, and how sure that is."""

from ..clocks.exposures import exposure_window
from ..frames.listing import parse_frame_name
from .job import align
from .layouts import AlignmentError
from .log import AlignmentLogError, AlignmentRow, read_alignment_log, write_alignment_log
from .manifest import (
    AlignedSequence,
    FileRecord,
    Manifest,
    ManifestError,
    Verification,
    Window,
    read_manifest,
    write_manifest,
)
from .settings import AlignOptions

__all__ = [
    "AlignOptions",
    "AlignedSequence",
    "AlignmentError",
    "AlignmentLogError",
    "AlignmentRow",
    "FileRecord",
    "Manifest",
    "ManifestError",
    "Verification",
    "Window",
    "align",
    "exposure_window",
    "parse_frame_name",
    "read_alignment_log",
    "read_manifest",
    "write_alignment_log",
    "write_manifest",
]
