"""A manifest's sequences dealt out to train, val and test: whole scenes, the same every time.

Scenes of the test set stay there. All others are drawn in an order that the seed decides: first
--test's share of the exposures, then --val's; the rest is for training.

Names decide which sequences are one scene. What names hide shows in the pictures: scenes whose
middle frames look alike and that came to different splits are reported.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import SpikeDeblurError
from ..frames.images import read_frame
from ..host.files import all_inside
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..host.reporter import SILENT, Reporter, counted
from ..host.threads import thread_pool
from ..spikes.camera import luminance
from .manifest import Manifest, SplitRecord, read_manifest, relative_root, write_manifest

By = Literal["scene", "clip", "folders"]

HASH_SIDE = 16
"""A picture's hash has HASH_SIDE x HASH_SIDE bits."""

SIMILAR_BITS = 40
"""Most bits, of 256, in which the hashes of pictures that look alike differ."""

_FLAT = 0.02
"""Standard deviation of luminance below which a picture shows nothing to compare."""

Bits = npt.NDArray[np.uint64]


class SplitError(SpikeDeblurError):
    """The sequences can't be dealt out in these shares."""


@dataclass(frozen=True, slots=True)
class Part:
    """The size of one split."""

    scenes: int
    sequences: int
    windows: int


@dataclass(frozen=True, slots=True)
class Similar:
    """Two scenes in different splits that look alike."""

    first: str
    """A sequence of the first scene."""
    second: str
    """A sequence of the second scene."""
    bits: int
    """Bits, of 256, in which their hashes differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """How `split` dealt the sequences out."""

    manifest: str
    by: By
    seed: int
    parts: dict[str, Part]
    """Sizes by split."""
    moved: tuple[str, ...]
    """Sequences that are in another split than their folders say."""
    shared: tuple[str, ...]
    """Scenes with sequences in test and, by their folders, in others, which stay in train."""
    similar: tuple[Similar, ...]
    """Scenes in different splits that look alike."""


def split(
    manifest: str | os.PathLike[str],
    *,
    val: float = 0.1,
    test: float = 0.0,
    by: By = "scene",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> SplitSummary:
    """Deal a manifest's sequences out, and write it with the splits in it.

    Args:
        manifest: a manifest that `align` wrote.
        val: share of the exposures outside the test set that go to val, in [0, 1).
        test: share of the exposures outside the test set that is added to it, in [0, 1).
        by: what stays together, a scene or a clip; `folders` undoes a split.
        seed: seed of the order in which scenes are drawn.
        out: manifest to write; None: `manifest` itself.
        overwrite: replace a file `out` that is no manifest.
        reporter: hears each picture that is compared, and as warnings the scenes that test
            shares with others and those that look alike.

    Raises:
        SplitError: shares that leave nothing to train on, or too few scenes.
        ManifestError, ImageError: a file that can't be read; names it.
    """
    manifest, target = Path(manifest), Path(manifest if out is None else out)
    with only_writer_of(target):
        aligned = read_manifest(manifest)
        if target != manifest:
            require_free(
                target,
                overwrite=overwrite,
                is_ours=lambda path: bool(read_manifest(path)),
                what="a manifest",
            )
        root = aligned.root_folder(manifest)
        dealt, shared = deal(aligned, val=val, test=test, by=by, seed=seed)
        similar = find_similar(dealt, hash_pictures(dealt, root, manifest, reporter))
        for scene in shared:
            reporter.warn(
                f"scene {scene} is in the test set and elsewhere too, by the data set's own "
                "folders; its other sequences stay in train"
            )
        for pair in similar:
            reporter.warn(
                f"{pair.first} and {pair.second} look alike ({pair.bits} of 256 bits differ) and "
                "are in different splits; if they are one scene, the figures will be too good"
            )
        write_manifest(target, dealt.model_copy(update={"root": relative_root(root, target)}))
    return SplitSummary(
        manifest=os.fspath(target),
        by=by,
        seed=seed,
        parts=_parts(dealt),
        moved=tuple(s.seq for s in dealt.sequences if s.split != s.folder_split),
        shared=shared,
        similar=tuple(similar),
    )


def deal(
    manifest: Manifest, *, val: float, test: float, by: By, seed: int
) -> tuple[Manifest, tuple[str, ...]]:
    """Return the manifest with every sequence's split, and the scenes that test shares with others.

    Args:
        manifest: the sequences, with the splits that their folders name.
        val: share of the exposures outside the test set that go to val, in [0, 1).
        test: share of the exposures outside the test set that is added to it, in [0, 1).
        by: what stays together; `folders`: every sequence in the split that its folders name.
        seed: seed of the order in which scenes are drawn.

    Raises:
        SplitError: shares that leave nothing to train on, or too few scenes.
    """
    if by == "folders":
        folders = {sequence.seq: sequence.folder_split for sequence in manifest.sequences}
        return _assigned(manifest, folders, None), ()
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise SplitError(
            f"expected shares from 0 that leave some to train, got {val} and {test}; "
            "lower --val or --test"
        )
    scenes = {s.seq: s.scene_name if by == "scene" else s.seq for s in manifest.sequences}
    tested = {scenes[s.seq] for s in manifest.sequences if s.folder_split == "test"}
    windows: Counter[str] = Counter()
    for sequence in manifest.sequences:
        if sequence.folder_split != "test":
            windows[scenes[sequence.seq]] += len(sequence.windows)
    shared = tuple(sorted(tested & windows.keys()))
    free = {scene: count for scene, count in windows.items() if scene not in tested}
    needed = 1 + (val > 0) + (test > 0) - bool(shared)
    if len(free) < needed:
        raise SplitError(
            f"expected at least {counted(needed, by)} outside the test set, found {len(free)}"
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
        s.seq: "test" if s.folder_split == "test" else assigned.get(scenes[s.seq], "train")
        for s in manifest.sequences
    }
    return _assigned(manifest, splits, SplitRecord(by=by, val=val, test=test, seed=seed)), shared


def _draw(left: Mapping[str, int], wanted: float, keep: int) -> list[str]:
    """Return scenes that hold about `wanted` of the windows, at least one if any are wanted.

    Args:
        left: number of windows by scene, in the order to draw.
        wanted: number of windows to draw.
        keep: number of scenes that must be left.
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
    moved = {s.seq: splits[s.seq] for s in manifest.sequences if splits[s.seq] != s.folder_split}
    sequences = tuple(
        s.model_copy(update={"assigned_split": moved.get(s.seq)}) for s in manifest.sequences
    )
    return manifest.model_copy(update={"sequences": sequences, "split": record})


def _parts(manifest: Manifest) -> dict[str, Part]:
    usual = ("train", "val", "test")
    names = {sequence.split for sequence in manifest.sequences}
    parts = {}
    for name in sorted(names, key=lambda n: (usual.index(n) if n in usual else len(usual), n)):
        sequences = [sequence for sequence in manifest.sequences if sequence.split == name]
        parts[name] = Part(
            scenes=len({sequence.scene_name for sequence in sequences}),
            sequences=len(sequences),
            windows=sum(len(sequence.windows) for sequence in sequences),
        )
    return parts


def hash_pictures(
    manifest: Manifest, root: Path, named_in: Path, reporter: Reporter = SILENT
) -> dict[str, Bits]:
    """Return the hash of each sequence's middle frame by seq; flat frames are left out.

    Args:
        manifest: the sequences; their sharp frames are taken where there are any.
        root: the data set's folder.
        named_in: the manifest's path, for messages.
        reporter: hears each picture.

    Raises:
        ImageError: a picture can't be read.
    """
    middles = {s.seq: s.windows[len(s.windows) // 2] for s in manifest.sequences}
    pictures = {seq: window.sharp or window.blur for seq, window in middles.items()}
    paths = all_inside(root, pictures.values(), named_in, manifest.links)
    hashes: dict[str, Bits] = {}
    with thread_pool(None, "split") as pool:
        results = pool.map(lambda name: hash_picture(Path(paths[name])), pictures.values())
        reporter.progress(0, len(pictures))
        for done, (seq, bits) in enumerate(zip(pictures, results, strict=True), start=1):
            if bits is not None:
                hashes[seq] = bits
            reporter.progress(done, len(pictures), seq)
    return hashes


def hash_picture(path: Path) -> Bits | None:
    """Return a picture's difference hash, (4,) uint64; None: it is flat.

    Each bit says whether luminance rises from one cell of a coarse grid to the next in its row.

    Raises:
        ImageError: the picture can't be read.
    """
    plane = Image.fromarray(luminance(read_frame(path)))
    coarse = np.asarray(plane.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    if coarse.std() < _FLAT:
        return None
    return np.packbits(coarse[:, 1:] > coarse[:, :-1]).view(np.uint64)


def find_similar(manifest: Manifest, hashes: Mapping[str, Bits]) -> list[Similar]:
    """Return the pairs of scenes in different splits that look alike, each once, ordered by seq."""
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
                continue  # its name shows it already, and `deal` reports it
            scenes = (sequence.scene_name, other.scene_name)
            pair = Similar(sequence.seq, other.seq, int(differing[j]))
            if scenes not in best or pair.bits < best[scenes].bits:
                best[scenes] = pair
    return sorted(best.values(), key=lambda pair: (pair.first, pair.second))
