"""Recordings in SpikeCV's folders, with the blurred frames that a colour camera took beside them.

    <root>/config.yaml                       spike_h, spike_w: for all recordings below it
    <root>/classA/car-100kmh.dat             a recording
    <root>/classA/car-100kmh/blur/0000.png   its blurred frames; also sharp/, if there are any

A folder with a single `.dat` may hold blur/ itself: <root>/spike59/spikes.dat, spike59/blur/.
`config.yaml` states neither rate nor row order, and SpikeCV knows no colour camera: rate, row
order, frames a second and exposure come from options. Recordings without blurred frames are left
out. The first folder is the split if it is called train, val or test; else the split is test.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...frames.listing import shorten, subfolders, walk_folders
from ...host.documents import DocumentError, read_yaml
from ...host.validation import first_problem
from ...spikes.dat import SPIKE_SUFFIXES
from ...spikes.geometry import MAX_SIDE
from . import spk_gopro
from .contract import AlignmentError, FoundSequence, in_order
from .pairing import index_frames, leftovers, pair_frames, unread_arrays

NAME = "spikecv"
NEEDS = "config.yaml with spike_h and spike_w, above recordings <name>.dat"
VARIANTS = ()

CONFIG = "config.yaml"
SPLITS = ("train", "val", "test")


class SpikeCVConfig(BaseModel):
    """The keys of a `config.yaml` that are read; the others are about labels."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    spike_h: int = Field(ge=1, le=MAX_SIDE)
    """Rows, in pixels."""
    spike_w: int = Field(ge=1, le=MAX_SIDE)
    """Columns, in pixels."""


def recognise(root: Path) -> str | None:
    """Return what in `root` shows this layout; None: nothing does."""
    # Spikes of GoPro have a config.yaml of SpikeCV's too.
    folders = [folder for folder in subfolders(root) if folder.name != spk_gopro.SPIKES]
    for path in (root / CONFIG, *(folder / CONFIG for folder in folders)):
        content = _load(path) if path.is_file() else None
        if isinstance(content, dict) and {"spike_h", "spike_w"} <= content.keys():
            return f"{path.relative_to(root)} with spike_h and spike_w"
    return None


def find(root: Path, exposure: int | None, variant: str | None = None) -> list[FoundSequence]:
    """Return all recordings that have blurred frames, in order of `seq`."""
    configs: dict[Path, SpikeCVConfig] = {}
    sequences: list[FoundSequence] = []
    framed: set[Path] = set()
    alone = []
    for folder, folders, names in walk_folders(root):
        # Folders come before what is in them, so that the nearest config above is known.
        config = _read_config(folder / CONFIG) if CONFIG in names else configs.get(folder.parent)
        if config is None:
            continue
        configs[folder] = config
        if "blur" in folders:
            framed.add(folder)
        dats = [name for name in names if name.lower().endswith(SPIKE_SUFFIXES)]
        for name in dats:
            frames = folder / name.rpartition(".")[0]
            if not (frames / "blur").is_dir() and len(dats) == 1 and "blur" in folders:
                frames = folder
            if (frames / "blur").is_dir():
                sequences.append(_find_recording(root, folder / name, frames, config, exposure))
            else:
                alone.append(f"{folder / name}: no blurred frames in {frames / 'blur'}; left out")
    used = {sequence.windows[0].blur.parents[1] for sequence in sequences}
    for frames in sorted(framed - used):
        raise AlignmentError(
            f"{frames / 'blur'}: no spikes for its frames; expected {frames}.dat, or one .dat in "
            f"{frames}"
        )
    if sequences:
        firsts = [sequence.windows[0] for sequence in sequences]
        around = {w.spikes.parent for w in firsts} | {w.blur.parents[1] for w in firsts}
        beside = [sentence for folder in sorted(around) for sentence in unread_arrays(folder)]
        return in_order(root, NEEDS, sequences, [*alone, *beside])
    what = "found none; check the path"
    if alone:
        what = (
            f"but there are spikes only ({shorten(alone, 2)}); put the frames of the camera beside "
            "it there; `spikedeblur inspect` describes a recording alone"
        )
    raise AlignmentError(
        f"{root}: expected recordings <name>.dat below {CONFIG}, with blurred frames "
        f"<name>/blur/0000.png, {what}"
    )


def _find_recording(
    root: Path, dat: Path, frames: Path, config: SpikeCVConfig, exposure: int | None
) -> FoundSequence:
    warnings: list[str] = []
    blurs = index_frames(frames / "blur", warnings, example="0031.png")
    sharps = index_frames(frames / "sharp", warnings)
    parts = frames.relative_to(root).parts or (dat.stem,)
    inside = parts[0] in SPLITS and len(parts) > 1
    return FoundSequence(
        seq="/".join(parts if inside else ("test", *parts)),
        windows=pair_frames(blurs, sharps, dict.fromkeys(blurs, dat), dat.name),
        exposure=exposure,
        fps=None,
        own_files=False,
        spike_shape=(config.spike_h, config.spike_w),
        warnings=(*warnings, *leftovers(blurs, sharps)),
    )


def _read_config(path: Path) -> SpikeCVConfig | None:
    """Return a `config.yaml`'s content; None if it is of another tool.

    Raises:
        AlignmentError: it has one of SpikeCV's keys, but not both as whole numbers.
    """
    content = _load(path)
    if not isinstance(content, dict) or not {"spike_h", "spike_w"} & content.keys():
        return None
    try:
        return SpikeCVConfig.model_validate(content)
    except ValidationError as error:
        raise AlignmentError(
            f"{path}: {first_problem(error)}; expected rows and columns of the spikes, in pixels"
        ) from error


def _load(path: Path) -> object:
    try:
        return read_yaml(path)
    except DocumentError as error:
        raise AlignmentError(f"{path}: expected YAML ({error}); correct the file") from error
