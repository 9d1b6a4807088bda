"""The sequences to train and to validate on, checked against the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from ....configs.schema import Config, NormConfig
from ...sequences.contract import WindowSequence
from ...sequences.light import is_plain_log1p
from ...sequences.unified import UnifiedFiles, open_windows
from .samples import SampleError


def open_splits(config: Config) -> tuple[list[WindowSequence], list[WindowSequence]]:
    """Open the training and the validation split, and check them against the configuration.

    Raises:
        SpikeDeblurError: a split is missing or empty, both are the same, or bins, gains or voxels
            do not fit.
    """
    data = config.DATA
    if data.TRAIN_SPLIT == data.VAL_SPLIT:
        raise SampleError(
            f"DATA.VAL_SPLIT: expected another split than DATA.TRAIN_SPLIT {data.TRAIN_SPLIT!r}; "
            "a model is not judged by what it was trained on"
        )
    files = UnifiedFiles(
        log_paths=data.ALIGN_LOG_PATHS,
        precomputed=data.USE_PRECOMPUTED_VOXELS,
        spike_dir=data.SPIKE_DIR,
        voxel_dir=data.VOXEL_CACHE_DIRNAME,
        image_exts=data.IMAGE_EXTS,
    )
    splits = []
    for split in (data.TRAIN_SPLIT, data.VAL_SPLIT):
        sequences = open_windows(data.ROOT, split, bins=data.K, files=files, verify=data.VERIFY)
        require_usable(sequences, data.NORM)
        splits.append(sequences)
    return splits[0], splits[1]


def require_usable(sequences: Sequence[WindowSequence], norm: NormConfig) -> None:
    """Check gains and the voxels' form against the configuration.

    Raises:
        SampleError: names the sequence and the key.
    """
    raw = sequences[0].windows_are_raw
    for sequence in sequences:
        if sequence.windows_are_raw != raw:
            raise SampleError(
                f"{sequence.seq}: integer and floating voxels are mixed in this split; "
                "voxelize all of it alike"
            )
        if not raw and not is_plain_log1p(norm):
            raise SampleError(
                f"{sequence.seq}: its voxels are floating, log1p is done already, so they can't "
                f"be normalised by DATA.NORM.MODE {norm.MODE}; set log1p without MEAN and STD, or "
                "set DATA.USE_PRECOMPUTED_VOXELS=false"
            )
        if norm.MODE == "rate" and sequence.gain is None:
            raise SampleError(
                f"{sequence.seq}: DATA.NORM.MODE rate needs the gain (spikes a sample at unit "
                "luminance), and it is not known; give it to `spikedeblur align --gain`, or use "
                "relative or log1p"
            )
