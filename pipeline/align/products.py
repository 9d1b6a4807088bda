"""The log and the manifest of one data set, which are read and replaced together."""

from __future__ import annotations

import secrets
from pathlib import Path

from ..host.files import atomic_write, sweep
from ..host.overwrite import require_free
from ..host.reading import read_file
from .log import format_alignment_log
from .manifest import Manifest, ManifestError, format_manifest, read_manifest


def read_former(log: Path, manifest: Path, *, overwrite: bool) -> Manifest | None:
    """Return the manifest of a former run; None where there is none that can be read.

    Raises:
        OverwriteError: a file that `align` did not write, and not `overwrite`.
    """
    try:
        former = read_manifest(manifest)
    except ManifestError:
        former = None
    require_free(
        manifest, overwrite=overwrite, is_ours=lambda _: former is not None, what="a manifest"
    )
    # Other programs write such logs too, so only its manifest can show that a log is ours.
    rows = format_alignment_log(former.log_rows()).encode() if former else None
    require_free(
        log,
        overwrite=overwrite,
        is_ours=lambda path: read_file(path, len(rows or b"")) == rows,
        what=f"the log of {manifest}, both",
    )
    return former


def write_products(log: Path, manifest: Path, result: Manifest) -> None:
    """Write log and manifest so that, whenever the run is killed, no log lies beside another's.

    The next run would refuse such a log as foreign. Where there is no log, it writes one.
    """
    for path in (manifest, log):
        sweep(path.parent, path.name)
    former = log.with_name(f".{log.name}.{secrets.token_hex(6)}.partial")
    try:
        with atomic_write(log) as log_file:
            log_file.write(format_alignment_log(result.log_rows()).encode())
            log_file.finish()
            try:
                with atomic_write(manifest) as manifest_file:
                    manifest_file.write(format_manifest(result).encode())
                    if log.exists():
                        log.rename(former)
            except BaseException:
                if former.exists():
                    former.rename(log)
                raise
    finally:
        former.unlink(missing_ok=True)
