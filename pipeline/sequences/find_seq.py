"""The name that a folder's sequence has in an alignment log."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..frames.listing import shorten
from ..host.files import StrPath
from .recording import RecordingError

_BLUR_FOLDER = re.compile(r"(.+)_blurry_[1-9][0-9]*")


def find_seq(blur: Path, seqs: Iterable[str], seq: str | None, log: StrPath) -> str:
    """Return the name of a folder's sequence in a log.

    `seq` is taken if it is given. The folder `.../<split>_blurry_<L>/<group>/<clip>` is exactly
    `<split>/<group>/<clip>`. Any other folder is the one sequence whose name shares most last
    parts with its path; a last part `blur` or `blur_gamma`, as in the layout unified, doesn't
    count.

    Args:
        blur: folder of blurred frames.
        seqs: names of the log's sequences.
        seq: the name that the user gave, or None.
        log: the log, for messages.

    Raises:
        RecordingError: none fits, or several; lists them.
    """
    known = sorted(seqs)
    blur_folder = blur.parent if blur.is_file() else blur
    parts = Path(os.path.normpath(blur_folder.absolute())).parts
    if seq is None:
        for i, part in enumerate(parts[:-1]):
            if match := _BLUR_FOLDER.fullmatch(part):
                seq = "/".join((match[1], *parts[i + 1 :]))
                break
    if seq is not None:
        if seq not in known:
            raise RecordingError(
                f"{log}: expected the sequence {seq!r} for {blur}, found "
                f"{shorten(known) or 'no rows'}; give one of them as --seq"
            )
        return seq
    if parts[-1] in ("blur", "blur_gamma"):
        parts = parts[:-1]
    shared = {name: _shared_last_parts(name.split("/"), parts) for name in known}
    most = max(shared.values(), default=0)
    fitting = [name for name in known if shared[name] == most > 0]
    if len(fitting) == 1:
        return fitting[0]
    raise RecordingError(
        f"{log}: {'several sequences fit' if fitting else 'no sequence fits'} {blur}: "
        f"{shorten(fitting or known, 20) or 'there are none'}; give one as --seq"
    )


def _shared_last_parts(a: Sequence[str], b: Sequence[str]) -> int:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
