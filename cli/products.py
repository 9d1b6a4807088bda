"""What a path is that was typed where something else belongs: its kind in words, and its place.

Files are told by their names and first bytes, folders by what is in them, without heavy imports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_LOOKED_AT = 4_096
"""Bytes of a file, and names of a folder, that are looked at."""
_DEEPEST = 5
"""Folders below a store at which its arrays lie."""


class Kind(NamedTuple):
    """A kind of file or folder."""

    words: str
    place: str
    """Where it is given; empty: nowhere."""
    expected: str
    """Pattern of a message that expects this kind."""


STORE = Kind("a store", "`evaluate`, `check`, `view` and `--set DATA.ROOT=` take it", r"\bstore\b")
RUN = Kind(
    "a run folder",
    "give it as --run, or to `report`, `runs` or `export`",
    r"\brun folder|run to go on|checkpoint, (found none|can't)",
)
MANIFEST = Kind(
    "a manifest", "`voxelize`, `split`, `check` and `restore --manifest` take it", r"\bmanifest\b"
)
LOG = Kind(
    "an alignment log",
    "`--log` takes it; the manifest is the .json that `align` wrote beside it",
    r"expected the header",
)
EVALUATION = Kind("an evaluation", "`report --evaluation` takes it", r"evaluation")
SENSOR = Kind("a sensor's file", "give it as --sensor", r"\bsensor")
DATA_SET = Kind(
    "a data set", "`align` takes it, and writes the manifest for `voxelize`", r"data set|layout"
)
SPIKES = Kind(
    "spikes", "give it as --spikes, or to `inspect`, `view` or `convert`", r"spike|geometry"
)
FRAMES = Kind("a folder of images", "give it as --blur", r"blurred frames or one|images named")
MODEL = Kind("an exported model", "give it as --model", r"\bmodel\b.*\bexport|published weights")
CHECKPOINT = Kind("a checkpoint", "give the run folder that it is in as --run", r"\bcheckpoint\b")
REPORT = Kind("a page", "open it in a browser, and give the run folder", r"\breport of")
NOTEBOOK = Kind("a notebook", "", r"\bnotebook")
CUT_STORE = Kind(
    "a store that lacks its zarr.json", "copy or download it again, all of it", r"^\b$"
)
EMPTY = Kind("empty (0 bytes)", "copy or download it again", r"^\b$")

_REFUSED = re.compile(
    r"found (something else|another file|nothing|no (file that|config\.yaml|rows))"
    r"|found none($| here| in this run| of (these|them|that name))|can't read|isn't JSON|not a "
    r"|is empty|fits no known|expected the header|gives the geometry|expected a configuration"
)
_NEW = re.compile(r"expected a new|expected a name|is there already|found no (row|file|folder) of")
_BY_SUFFIX = {
    ".dat": SPIKES,
    ".bin": SPIKES,
    ".safetensors": MODEL,
    ".pt": CHECKPOINT,
    ".html": REPORT,
    ".ipynb": NOTEBOOK,
}
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def misplaced(message: str, paths: Iterable[Path]) -> str:
    """Return a hint for a path that a message refuses, if it is of another kind; empty: none is."""
    if not _REFUSED.search(message) or _NEW.search(message):
        return ""
    named = Path(message.partition(": ")[0])
    typed = list(paths)
    for path in (*typed, named):
        names = "|".join(re.escape(str(one)) for one in (path, path.absolute()))
        found = re.search(rf"(?:^|[ '])(?:{names})([:'/,])", message)
        kind = what_is(path) if found else None
        # What is looked for inside is missing there; what is wrong in it is another thing.
        if found is None or kind is None or (path not in typed and kind is not EMPTY):
            continue
        if found[1] == "/" and (kind in (DATA_SET, FRAMES) or named.exists()):
            continue
        wanted = re.sub(rf"({names})\S*", "", message)
        if not re.search(kind.expected, wanted):
            is_it = f"{path} is {kind.words}"
            return f"{is_it}; {kind.place}" if kind.place else is_it
    return ""


def what_is(path: Path) -> Kind | None:
    """Return the kind of a file or folder; None: it isn't there, or is nothing that is known."""
    try:
        if path.is_dir():
            return _of_folder(path)
        if not path.is_file():
            return None
        if path.stat().st_size == 0:
            return EMPTY
        with path.open("rb") as file:
            begin = file.read(_LOOKED_AT)
    except (OSError, ValueError):  # the words of a message may make no path at all
        return None
    if (suffix := path.suffix.lower()) in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if begin.startswith(b"frame_idx,t0,t1"):
        return LOG
    if b'"spikedeblur.manifest"' in begin:
        return MANIFEST
    return EVALUATION if re.match(rb'\{\s*"methods":', begin) else None


def _of_folder(path: Path) -> Kind | None:
    if (path / "zarr.json").is_file():
        with (path / "zarr.json").open("rb") as file:
            return SENSOR if b'"spikedeblur.sensor"' in file.read(_LOOKED_AT) else STORE
    if (path / "config.yaml").is_file() and (path / "environment.json").is_file():
        return RUN
    names = [entry.name for entry, _ in zip(path.iterdir(), range(_LOOKED_AT), strict=False)]
    if any(re.fullmatch(r"(train|val|test)_blurry_\d+|GOPRO_Large", name) for name in names):
        return DATA_SET
    if _holds_arrays(path):
        return CUT_STORE
    return FRAMES if any(name.lower().endswith(_IMAGES) for name in names) else None


def _holds_arrays(path: Path) -> bool:
    """Whether a Zarr array or group is in a folder's first folder, or in that one's first."""
    for _ in range(_DEEPEST):
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
        if not folders:
            return False
        path = folders[0]
        if (path / "zarr.json").is_file():
            return True
    return False
