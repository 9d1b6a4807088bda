"""Dealing a manifest's sequences out to train, val and test: whole scenes, the same every time.

    scenes of the test set      stay there, whatever else is asked for
    all others, in an order drawn from the seed: --test's share, --val's share, the rest train

Names decide what one scene is, so what names hide is looked for in the pictures: scenes whose
middle frames look alike and that came to different splits are reported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import SpikeDeblurError
from ..frames.images import read_rgb
from ..host.files import all_inside
from ..host.locks import only_writer_of
from ..host.reporter import Progress
from ..spikes.camera import luminance
from .job import relative_root
from .manifest import (
    AlignedSequence,
    Manifest,
    ManifestError,
    SplitRecord,
    read_manifest,
    write_manifest,
)

By = Literal["scene", "clip", "folders"]

HASH_SIDE = 16
"""A picture's hash has HASH_SIDE x HASH_SIDE bits."""

SIMILAR_BITS = 40
"""Hashes that differ in at most so many of 256 bits are of pictures that look alike."""

_FLAT = 0.02
"""Standard deviation of luminance under which a picture shows nothing to compare."""

Bits = npt.NDArray[np.uint64]


class SplitError(SpikeDeblurError):
    """The sequences can't be dealt out as asked for."""


@dataclass(frozen=True, slots=True)
class Part:
    """One split."""

    scenes: int
    sequences: int
    windows: int


@dataclass(frozen=True, slots=True)
class Similar:
    """Two scenes in different splits that look alike."""

    first: str
    """A sequence of one."""
    second: str
    """A sequence of the other."""
    bits: int
    """In which their hashes differ, of 256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """What `split` did."""

    manifest: str
    by: By
    seed: int
    parts: dict[str, Part]
    """By split."""
    moved: tuple[str, ...]
    """Sequences that are in another split than their folders say."""
    shared: tuple[str, ...]
    """Scenes that are in the test set and, by their folders, elsewhere too; those stay in train."""
    similar: tuple[Similar, ...]


def split(
    manifest: str | os.PathLike[str],
    *,
    val: float = 0.1,
    test: float = 0.0,
    by: By = "scene",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> SplitSummary:
    """Deal a manifest's sequences out, and write it with the splits in it.

    Args:
        manifest: as `align` wrote it.
        val: share of the exposures outside the test set that go to val, in [0, 1).
        test: share of them that is added to the test set.
        by: what is never divided: a scene, or a clip; folders: undo, as the folders say.
        seed: of the order in which scenes are dealt.
        out: manifest to write; None: `manifest` itself.
        overwrite: replace an `out` that is no manifest.
        workers: pictures at once; None: one a core, at most 8.
        on_progress: told after each picture that is compared.

    Raises:
        SplitError: shares that leave nothing to train on, or too few scenes.
        ManifestError, ImageError: a file that can't be read; names it.
    """
    manifest, target = Path(manifest), Path(manifest if out is None else out)
    with only_writer_of(target):
        found = read_manifest(manifest)
        if not overwrite and target.exists() and target != manifest:
            _require_manifest(target)
        root = found.root_folder(manifest)
        dealt, shared = deal(found, val=val, test=test, by=by, seed=seed)
        hashes = hash_pictures(dealt, root, manifest, workers, on_progress)
        similar = tuple(find_similar(dealt, hashes))
        write_manifest(target, dealt.model_copy(update={"root": relative_root(root, target)}))
    return SplitSummary(
        manifest=os.fspath(target),
        by=by,
        seed=seed,
        parts=_parts(dealt),
        moved=tuple(s.seq for s in dealt.sequences if s.split != s.folder_split),
        shared=shared,
        similar=similar,
    )


def deal(
    manifest: Manifest, *, val: float, test: float, by: By, seed: int
) -> tuple[Manifest, tuple[str, ...]]:
    """Return the manifest with every sequence's split, and the scenes that test shares.

    Raises:
        SplitError: shares that leave nothing to train on, or too few scenes.
    """
    if by == "folders":
        return _assigned(manifest, {}, None), ()
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise SplitError(f"expected shares from 0 that leave some to train, got {val} and {test}")
    name = _scene if by == "scene" else _clip
    held = {name(s) for s in manifest.sequences if s.folder_split == "test"}
    windows: dict[str, int] = {}
    for sequence in manifest.sequences:
        if sequence.folder_split != "test":
            scene = name(sequence)
            windows[scene] = windows.get(scene, 0) + len(sequence.windows)
    shared = tuple(sorted(held & windows.keys()))
    free = {scene: count for scene, count in windows.items() if scene not in held}
    needed = 1 + (val > 0) + (test > 0) - bool(shared)
    if len(free) < needed:
        raise SplitError(
            f"expected at least {needed} {by}s outside the test set, found {len(free)}"
            f"{f' ({next(iter(free))})' if len(free) == 1 else ''}; "
            + ("take --by clip, or give fewer shares" if by == "scene" else "give fewer shares")
        )
    total = sum(windows.values())
    order = sorted(free, key=lambda scene: hashlib.sha256(f"{seed}/{scene}".encode()).digest())
    assigned: dict[str, str] = {}
    for target, share, later in (("test", test, val > 0), ("val", val, False)):
        left = {scene: free[scene] for scene in order if scene not in assigned}
        for scene in _draw(left, share * total, keep=later + (not shared)):
            assigned[scene] = target
    splits = {
        s.seq: "test" if s.folder_split == "test" else assigned.get(name(s), "train")
        for s in manifest.sequences
    }
    return _assigned(manifest, splits, SplitRecord(by=by, val=val, test=test, seed=seed)), shared


def _draw(left: Mapping[str, int], wanted: float, keep: int) -> list[str]:
    """Return scenes that hold about `wanted` of the windows, at least one if any are wanted.

    Args:
        left: windows by scene, in the order to be drawn.
        wanted: windows.
        keep: scenes that must not be taken.
    """
    if not wanted:
        return []
    drawn: list[str] = []
    count = 0
    for scene, windows in left.items():
        nearer = abs(count + windows - wanted) < abs(count - wanted)
        if nearer and len(drawn) < len(left) - keep:
            drawn.append(scene)
            count += windows
    # Where even one scene is more than twice what is wanted, the smallest comes nearest.
    return drawn or [min(left, key=lambda scene: left[scene])]


def _assigned(
    manifest: Manifest, splits: Mapping[str, str], record: SplitRecord | None
) -> Manifest:
    sequences = []
    for sequence in manifest.sequences:
        chosen = splits.get(sequence.seq, sequence.folder_split)
        moved = None if chosen == sequence.folder_split else chosen
        sequences.append(sequence.model_copy(update={"assigned_split": moved}))
    return manifest.model_copy(update={"sequences": tuple(sequences), "split": record})


def _scene(sequence: AlignedSequence) -> str:
    return sequence.scene_name


def _clip(sequence: AlignedSequence) -> str:
    return sequence.seq


def _parts(manifest: Manifest) -> dict[str, Part]:
    parts = {}
    for name in sorted({s.split for s in manifest.sequences}, key=_usual_order):
        own = [s for s in manifest.sequences if s.split == name]
        parts[name] = Part(
            scenes=len({s.scene_name for s in own}),
            sequences=len(own),
            windows=sum(len(s.windows) for s in own),
        )
    return parts


def _usual_order(split: str) -> tuple[int, str]:
    usual = ("train", "val", "test")
    return usual.index(split) if split in usual else len(usual), split


def hash_pictures(
    manifest: Manifest,
    root: Path,
    named_in: Path,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Bits]:
    """Return the hash of each sequence's middle frame, sharp if there is one, by seq.

    Pictures that show nothing are left out.

    Raises:
        ImageError: one can't be read.
    """
    pictures = {}
    for sequence in manifest.sequences:
        window = sequence.windows[len(sequence.windows) // 2]
        pictures[sequence.seq] = window.sharp or window.blur
    paths = all_inside(root, pictures.values(), named_in)
    hashes: dict[str, Bits] = {}
    n_workers = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(n_workers, thread_name_prefix="split") as pool:
        found = pool.map(lambda name: hash_picture(Path(paths[name])), pictures.values())
        for done, (seq, bits) in enumerate(zip(pictures, found, strict=True), start=1):
            if bits is not None:
                hashes[seq] = bits
            if on_progress is not None:
                on_progress(done, len(pictures), seq)
    return hashes


def hash_picture(path: Path) -> Bits | None:
    """Return a picture's difference hash, (4,) uint64; None if it is flat.

    Each bit says whether luminance rises from one cell of a coarse grid to the next in its row.

    Raises:
        ImageError: it can't be read.
    """
    plane = Image.fromarray(luminance(read_rgb(path)))
    coarse = np.asarray(plane.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    if coarse.std() < _FLAT:
        return None
    return np.packbits(coarse[:, 1:] > coarse[:, :-1]).view(np.uint64)


def find_similar(manifest: Manifest, hashes: Mapping[str, Bits]) -> list[Similar]:
    """Return the pairs of scenes in different splits that look alike, each once, by seq."""
    known = [sequence for sequence in manifest.sequences if sequence.seq in hashes]
    best: dict[tuple[str, str], Similar] = {}
    if not known:
        return []
    table = np.stack([hashes[sequence.seq] for sequence in known])  # (N, 4)
    splits = np.array([sequence.split for sequence in known])
    for i, sequence in enumerate(known):
        differing = np.bitwise_count(table[i + 1 :] ^ table[i]).sum(axis=1, dtype=np.int64)
        alike = (differing <= SIMILAR_BITS) & (splits[i + 1 :] != sequence.split)
        for j in np.flatnonzero(alike):
            other = known[i + 1 + int(j)]
            if other.scene_name == sequence.scene_name:
                continue  # by name already, and told as shared
            pair = (sequence.scene_name, other.scene_name)
            found = Similar(sequence.seq, other.seq, int(differing[j]))
            if pair not in best or found.bits < best[pair].bits:
                best[pair] = found
    return sorted(best.values(), key=lambda pair: (pair.first, pair.second))


def _require_manifest(target: Path) -> None:
    try:
        read_manifest(target)
    except ManifestError as error:
        raise SplitError(
            f"{target}: there, but not a manifest; give another --out, or --overwrite to replace it"
        ) from error
