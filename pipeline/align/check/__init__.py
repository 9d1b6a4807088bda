"""Checks of an aligned data set: files, frames and spike streams."""

from .job import check_manifest

__all__ = ["check_manifest"]
