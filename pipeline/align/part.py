"""A part of a data set's recordings: the frames that are exposed in it, and the bytes of files."""

from __future__ import annotations

from pathlib import Path

from ..spikes.between import Between, Cut, both, none_exposed
from ..spikes.dat import SpikeFile
from ..spikes.geometry import SpikeGeometry
from .correct_clock import with_windows
from .manifest import AlignedSequence, Manifest, ManifestError


def with_part(sequence: AlignedSequence, between: Between) -> tuple[AlignedSequence, list[Between]]:
    """Return a sequence with the frames that are exposed wholly between two times.

    Args:
        sequence: the sequence; a part of its recording may have been aligned only.
        between: times on its recording's clock.

    Returns:
        The sequence, which may have no window, and the exposures of the frames left out.
    """
    part = both(between, sequence.between)
    assert part is not None
    whole = sequence.model_copy(update={"part": (part.start, part.end)})
    held, outside = set(), []
    for window in whole.windows:
        cut = Cut(part, whole.clock(window))
        if cut.holds(window.t0, window.t1):
            held.add(window.frame_index)
        else:
            outside.append(cut.around(window.t0, window.t1))
    return with_windows(whole, held), outside


def part_of(path: Path, geometry: SpikeGeometry, cut: Cut) -> tuple[int, int] | None:
    """Return the bytes [start, stop) of a stream that hold a part of it; None: all of them."""
    file = SpikeFile.open(path, geometry, cut)
    start, stop = file.whole
    return None if (start, stop) == (0, file.n_frames) else file.place(start, stop)


def cut_manifest(manifest: Manifest, root: Path, between: Between) -> tuple[Manifest, int]:
    """Return a manifest with what lies wholly between two times, and the number of frames left out.

    The hashes that `align` recorded of whole streams say nothing of their parts and are dropped.

    Raises:
        ManifestError: no frame does.
    """
    sequences: list[AlignedSequence] = []
    left_out: list[Between] = []
    for sequence in manifest.sequences:
        kept, outside = with_part(sequence, between)
        left_out += outside
        if not kept.windows:
            continue
        files = dict(kept.files)
        for path, window in {window.spikes: window for window in kept.windows}.items():
            cut = kept.cut(window)
            assert cut is not None
            part = part_of(root / path, kept.spike_geometry(), cut)
            if part != files[path].part:
                update = {"sha256": None, "piece": None, "part": part}
                files[path] = files[path].model_copy(update=update)
        sequences.append(kept.model_copy(update={"files": files}))
    if not sequences:
        raise ManifestError(none_exposed(root, between, left_out))
    return manifest.model_copy(update={"sequences": tuple(sequences)}), len(left_out)
