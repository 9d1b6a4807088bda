"""Storage at a path or a URL."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..host.extras import from_extra
from ..host.files import StrPath
from .base import Storage, StoreError
from .folder import Folder

SCHEMES = ("s3", "gs", "az")
"""Beginnings of the URLs of buckets."""


def open_storage(location: StrPath) -> Storage:
    """Return the storage at a folder's path or at a URL: s3://, gs://, az:// or file://.

    Nothing is looked at yet, so nothing need be there.

    Raises:
        StoreError: the URL is of another kind, or the package for buckets is not installed.
    """
    text = os.fspath(location)
    scheme, colon, rest = text.partition("://")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return Folder(os.path.abspath(text))  # noqa: PTH100  # it keeps links
    if scheme.lower() == "file":
        url = urlsplit(text)
        if url.netloc not in ("", "localhost") or not url.path.startswith("/"):
            raise StoreError(f"{text}: expected file:/// and an absolute path; correct it")
        return Folder(os.path.abspath(unquote(url.path)))  # noqa: PTH100
    if scheme.lower() not in SCHEMES:
        raise StoreError(
            f"{text}: expected a folder, or a URL that begins with file://, "
            f"{', '.join(f'{known}://' for known in SCHEMES)}; correct it"
        )
    with from_extra("cloud", f"{text}: buckets need the package obstore", StoreError):
        from .bucket import Bucket
    bucket, _, prefix = rest.partition("/")
    return Bucket(scheme.lower(), bucket, prefix.strip("/"))


def local_path(location: StrPath) -> Path | None:
    """Return the path of a file in a folder, given as a path or a URL; None: it is in a bucket."""
    text = os.fspath(location)
    if "://" not in text:
        return Path(text)
    storage = open_storage(text)
    return Path(storage.location) if storage.is_local else None
