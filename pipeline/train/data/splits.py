"""The sequences to train and to validate on, of one store or several, and what is made of them."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ....configs.schema import Config, NormConfig
from ....configs.schema.data import StoreConfig
from ...host.reporter import counted
from ...sequences.contract import WindowSequence, sensor_of
from ...sequences.grid import is_registered, resampling_of
from ...sequences.light import beside_exposure, is_plain_log1p, seen_by
from ...sequences.linear_frames import with_linear_frames
from ...sequences.provenance import describe_data, describe_mixture, findings
from ...sequences.unified import UnifiedFiles, open_windows
from ...spikes.frame_grid import size_warning
from ...storage.locate import open_storage
from .order import ClipIndex, MixturePlan, StepPlan
from .samples import ClipSamples, SampleError
from .shuffle import shuffled

if TYPE_CHECKING:
    import torch

Split = Literal["training", "validation"]

_FRACTION = 8  # random stream of a seed that chooses the sequences of StoreConfig.FRACTION


class Part(NamedTuple):
    """What is used of one of several stores."""

    name: str
    """Its name, which stands before those of its sequences."""
    weight: float | None
    """Its share over the sum of all; None: its clips."""
    training: int
    """Number of its sequences to train on."""
    validation: int
    """Number of its sequences to validate on."""


class Splits(NamedTuple):
    """Sequences of the training and of the validation split, store after store."""

    training: Sequence[WindowSequence]
    validation: Sequence[WindowSequence]
    parts: Sequence[Part] = ()
    """The stores that they are from; empty where there is one."""

    def by_store(self, split: Split) -> list[Sequence[WindowSequence]]:
        """Return the sequences of a split, those of each store apart."""
        sequences: Sequence[WindowSequence] = getattr(self, split)
        lengths = [getattr(part, split) for part in self.parts] or [len(sequences)]
        ends = np.cumsum([0, *lengths]).tolist()
        return [sequences[a:b] for a, b in itertools.pairwise(ends)]

    def names(self, split: Split) -> list[str]:
        """Return the names of the sequences of a split, each after its store's."""
        before = [f"{part.name}:" for part in self.parts] or [""]
        stores = zip(before, self.by_store(split), strict=True)
        return [name + sequence.seq for name, sequences in stores for sequence in sequences]

    def without_spikes(self) -> str | None:
        """Return the name of a sequence whose spikes can't be read, only counts; None: no such."""
        return self._first(lambda sequence: not sequence.has_spikes)

    def resampled(self) -> str | None:
        """Return the name of a sequence whose light is resampled to its frames; None: no such."""
        return self._first(lambda sequence: resampling_of(sequence) is not None)

    def corrected(self) -> str | None:
        """Return the name of a sequence whose pixels a sensor corrects; None: no such."""
        return self._first(lambda sequence: sensor_of(sequence) is not None)

    def _first(self, holds: Callable[[WindowSequence], bool]) -> str | None:
        """Return the name of the first sequence for which something holds; None: no such."""
        named = [
            *zip(self.names("training"), self.training, strict=True),
            *zip(self.names("validation"), self.validation, strict=True),
        ]
        return next((name for name, sequence in named if holds(sequence)), None)

    def packs(self, config: Config, device: torch.device) -> tuple[bool, str | None]:
        """Return whether samples hold packed spikes, as DATA.SPIKES_ON_DEVICE says.

        Args:
            config: DATA.
            device: device that trains.

        Returns:
            Also a note on why they don't, where a GPU could make use of them; None: there is none.

        Raises:
            SampleError: they are to, and a sequence has counts only, or its light is resampled or
                corrected by a sensor.
        """
        wanted = config.DATA.SPIKES_ON_DEVICE
        if not wanted or (wanted == "auto" and device.type != "cuda"):
            return False, None
        name, resized, corrected = self.without_spikes(), self.resampled(), self.corrected()
        if name is not None and wanted is True:
            raise SampleError(
                f"{name}: DATA.SPIKES_ON_DEVICE: expected spikes, found counts only; voxelize with "
                "--kind packed, or set it to auto"
            )
        if resized is not None and wanted is True:
            raise SampleError(
                f"{resized}: DATA.SPIKES_ON_DEVICE: expected frames a whole multiple of spikes, "
                "since light is resampled where it is loaded; set it to auto"
            )
        if corrected is not None and wanted is True:
            raise SampleError(
                f"{corrected}: DATA.SPIKES_ON_DEVICE: expected spikes of equal pixels, found a "
                "sensor, which corrects light where it is loaded; set it to auto"
            )
        if name is not None:
            why = f"{name} has counts only"
        elif corrected is not None:
            why = f"a sensor corrects the pixels of {corrected} there"
        elif resized is not None:
            why = f"light of {resized} is resampled to the frame's grid there"
        elif (
            wanted is True
            or config.DATA.NORM.MODE == "relative"
            or all(map(_has_few_bits, self.training))
        ):
            return True, None
        else:
            why = "the spikes of a window are more bytes than its counts"
        return False, f"DATA.SPIKES_ON_DEVICE: loading processes make the GPU's voxels, since {why}"

    def training_samples(self, config: Config, *, packed: bool = False) -> ClipSamples:
        """Return the clips to train on, without a cache.

        Args:
            config: DATA, TRAIN.SEED and TRAIN.ON_ERROR.
            packed: samples hold packed spikes, which all sequences have, in place of voxels.

        Raises:
            SampleError: the crop does not fit the frames, or frames and voxels don't fit each
                other.
        """
        data, options = config.DATA, config.TRAIN
        return ClipSamples(
            self._seen("training", data.NORM, packed=packed),
            ClipIndex.joined(self._every_start(data.CLIP_LEN)),
            beside=beside_exposure(data.NORM) if packed else None,
            crop_size=data.CROP_SIZE,
            augment=data.AUGMENT,
            instants=data.INSTANTS,
            seed=options.SEED,
            names=self.names("training"),
            replace_unreadable=options.ON_ERROR == "skip",
        )

    def validation_samples(self, config: Config, *, packed: bool = False) -> ClipSamples:
        """Return the clips to validate on, each window once.

        With TRAIN.VAL_MAX_WINDOWS, a store has its part of them, and one window at least.

        Args:
            config: DATA and TRAIN.VAL_MAX_WINDOWS.
            packed: as for `training_samples`.

        Raises:
            SampleError: frames and voxels don't fit each other.
        """
        most, parts = config.TRAIN.VAL_MAX_WINDOWS, []
        total = sum(sequence.length for sequence in self.validation)
        for sequences in self.by_store("validation"):
            lengths = [sequence.length for sequence in sequences]
            own = most if most is None else max(1, most * sum(lengths) // total)
            index = ClipIndex.each_window_once(lengths, config.DATA.CLIP_LEN, own)
            parts.append((index, len(sequences)))
        norm = config.DATA.NORM
        return ClipSamples(
            self._seen("validation", norm, packed=packed),
            ClipIndex.joined(parts),
            beside=beside_exposure(norm) if packed else None,
            names=self.names("validation"),
        )

    def _seen(self, split: Split, norm: NormConfig, *, packed: bool) -> list[WindowSequence]:
        """Return the sequences of a split as the network sees them: frames are linear light."""
        linear = [one for store in self.by_store(split) for one in with_linear_frames(store)]
        return linear if packed else seen_by(norm, linear)

    def plan(
        self, config: Config, index: ClipIndex, rank: int, world: int, samples_a_step: int = 0
    ) -> StepPlan:
        """Return the clips of each step.

        Args:
            config: TRAIN.BATCH_SIZE, TRAIN.GRADIENT_ACCUMULATION_STEPS, TRAIN.SEED.
            index: of `training_samples`.
            rank: number of this process.
            world: number of processes.
            samples_a_step: clips a step of a run that goes on; 0: it begins.
        """
        options = config.TRAIN
        batches = (options.BATCH_SIZE, options.GRADIENT_ACCUMULATION_STEPS)
        dealt = (*batches, options.SEED, rank, world, samples_a_step)
        if not self.parts:
            return StepPlan(index, *dealt)
        counts = tuple(len(clips) for clips, _ in self._every_start(config.DATA.CLIP_LEN))
        return MixturePlan(index, *dealt, counts=counts, shares=self._shares(counts))

    def describe(self) -> dict[str, Any]:
        """Return what identifies the training split's content; see `describe_data`."""
        if not self.parts:
            return describe_data(self.training)
        return describe_mixture(
            {
                part.name: (part.weight, sequences)
                for part, sequences in zip(self.parts, self.by_store("training"), strict=True)
            }
        )

    def hash_validation(self, most: int | None) -> str:
        """Return the hex SHA-256 of what is validated on.

        Args:
            most: TRAIN.VAL_MAX_WINDOWS.
        """
        content = [describe_data(part)["sha256"] for part in self.by_store("validation")]
        return hashlib.sha256(repr((content, most)).encode()).hexdigest()

    def findings(self) -> dict[str, str]:
        """Return what `align` found wrong with sequences, by their names."""
        named = [*zip(self.names("training"), self.training, strict=True)]
        named += zip(self.names("validation"), self.validation, strict=True)
        return {name: finding for name, one in named for finding in findings([one]).values()}

    def size_warnings(self) -> dict[str, str]:
        """Return what is odd about the sizes of frames and spikes, by the sequences' names."""
        named = [*zip(self.names("training"), self.training, strict=True)]
        named += zip(self.names("validation"), self.validation, strict=True)
        found = {
            name: size_warning(one.frame_shape, one.voxel_shape)
            for name, one in named
            if not is_registered(one)
        }
        return {name: warning for name, warning in found.items() if warning is not None}

    def mixture(self, clip_len: int) -> str:
        """Return a line about the share of each of several stores."""
        counts = tuple(len(clips) for clips, _ in self._every_start(clip_len))
        return ", ".join(
            f"{part.name} {float(share):.1%} ({counted(count, 'clip')})"
            for part, share, count in zip(self.parts, self._shares(counts), counts, strict=True)
        )

    def _every_start(self, clip_len: int) -> list[tuple[ClipIndex, int]]:
        return [
            (ClipIndex.every_start([s.length for s in sequences], clip_len), len(sequences))
            for sequences in self.by_store("training")
        ]

    def _shares(self, counts: Sequence[int]) -> tuple[Fraction, ...]:
        """Return the share of each store, whose sum is 1 to the last bit."""
        weights = [
            Fraction(count if part.weight is None else part.weight)
            for part, count in zip(self.parts, counts, strict=True)
        ]
        return tuple(weight / sum(weights) for weight in weights)


def _has_few_bits(sequence: WindowSequence) -> bool:
    """Return whether the bits of a window take no more bytes than its counts."""
    counts = np.dtype(sequence.voxel_dtype).itemsize * sequence.bins
    return sequence.longest_window <= 8 * counts


def open_splits(config: Config) -> Splits:
    """Open the training and the validation split, and check them against the configuration.

    Raises:
        SpikeDeblurError: a split is missing or empty, both are the same, patterns match nothing,
            or stores, bins, gains or voxels do not fit.
    """
    data = config.DATA
    if data.TRAIN_SPLIT == data.VAL_SPLIT:
        raise SampleError(
            f"DATA.VAL_SPLIT: expected another split than DATA.TRAIN_SPLIT {data.TRAIN_SPLIT!r}; "
            "a model is not judged by what it was trained on"
        )
    opened = [_open(store, config) for store in data.stores]
    training = [sequence for one in opened for sequence in one[0]]
    validation = [sequence for one in opened for sequence in one[1]]
    parts: list[Part] = []
    if len(opened) > 1:
        _require_once(data.stores, opened)
        names = names_of([store.ROOT for store in data.stores])
        parts = [
            Part(name, store.WEIGHT, *map(len, one))
            for name, store, one in zip(names, data.stores, opened, strict=True)
        ]
    if not validation:
        raise SampleError(
            f"DATA.ROOT: INCLUDE and EXCLUDE leave nothing of the split {data.VAL_SPLIT!r} to "
            "validate on; choose other patterns"
        )
    splits = Splits(training, validation, parts)
    require_usable(training, data.NORM, splits.names("training"))
    require_usable(validation, data.NORM, splits.names("validation"))
    return splits


def _open(store: StoreConfig, config: Config) -> tuple[list[WindowSequence], list[WindowSequence]]:
    """Open what is used of a store's two splits."""
    data = config.DATA
    files = UnifiedFiles(
        log_paths=data.ALIGN_LOG_PATHS,
        precomputed=data.USE_PRECOMPUTED_VOXELS,
        spike_dir=data.SPIKE_DIR,
        voxel_dir=data.VOXEL_CACHE_DIRNAME,
        image_exts=data.IMAGE_EXTS,
    )
    training, validation = (
        open_windows(store.ROOT, split, bins=data.K, files=files, verify=data.VERIFY)
        for split in (data.TRAIN_SPLIT, data.VAL_SPLIT)
    )
    for key, patterns in (("INCLUDE", store.INCLUDE), ("EXCLUDE", store.EXCLUDE)):
        for pattern in patterns:
            if not any(_matches(s.seq, [pattern]) for s in (*training, *validation)):
                raise SampleError(
                    f"{store.ROOT}: DATA.ROOT: the pattern {pattern!r} of {key} matches none of "
                    f"its sequences, such as {training[0].seq}; correct it"
                )
    training, validation = (
        [s for s in split if _matches(s.seq, store.INCLUDE) and not _matches(s.seq, store.EXCLUDE)]
        for split in (training, validation)
    )
    if not training:
        raise SampleError(
            f"{store.ROOT}: DATA.ROOT: INCLUDE and EXCLUDE leave nothing of the split "
            f"{data.TRAIN_SPLIT!r} to train on; choose other patterns, or leave the store out"
        )
    kept = math.ceil(store.FRACTION * len(training))
    order = shuffled(np.arange(kept), len(training), (config.TRAIN.SEED, _FRACTION))
    return [training[number] for number in sorted(order.tolist())], validation


def _matches(seq: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits a sequence's name, with or without its split."""
    names = (seq, seq.partition("/")[2])
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _require_once(
    stores: Sequence[StoreConfig],
    opened: Sequence[tuple[Sequence[WindowSequence], Sequence[WindowSequence]]],
) -> None:
    """Refuse a sequence that is taken twice, by a store that is named twice."""
    seen: set[tuple[str, str]] = set()
    for store, splits in zip(stores, opened, strict=True):
        place = str(open_storage(store.ROOT))
        taken = {(place, sequence.seq) for split in splits for sequence in split}
        if twice := sorted(taken & seen):
            raise SampleError(
                f"{store.ROOT}: DATA.ROOT: the store is there twice, and {twice[0][1]} is in both; "
                "name it once, or give INCLUDE and EXCLUDE that share no sequence"
            )
        seen |= taken


def names_of(roots: Sequence[str]) -> list[str]:
    """Return a name for each of several stores: the last parts of its path that tell them apart.

    One that is there several times has a number behind it.
    """
    parts = [tuple(part for part in root.split("/") if part) for root in roots]
    different = len(set(parts))
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of_path[-length:]) for of_path in parts]
        if len(set(names)) == different:
            break
    return list(_numbered(names))


def _numbered(names: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        earlier = names[:number].count(name)
        yield f"{name}#{earlier + 1}" if earlier else name


def require_usable(
    sequences: Sequence[WindowSequence], norm: NormConfig, names: Sequence[str] = ()
) -> None:
    """Check gains and the voxels' form against the configuration.

    Args:
        sequences: all of a split.
        norm: how counts are normalised.
        names: their names, for the message; none: their own.

    Raises:
        SampleError: names the sequence and the key.
    """
    names = names or [sequence.seq for sequence in sequences]
    raw = sequences[0].windows_are_raw
    for name, sequence in zip(names, sequences, strict=True):
        if sequence.windows_are_raw != raw:
            raise SampleError(
                f"{name}: integer and floating voxels are mixed, here and in {names[0]}; "
                "voxelize all of it alike"
            )
        if not raw and not is_plain_log1p(norm):
            raise SampleError(
                f"{name}: its voxels are floating, log1p is done already, so they can't "
                f"be normalised by DATA.NORM.MODE {norm.MODE}; set log1p without MEAN and STD, or "
                "set DATA.USE_PRECOMPUTED_VOXELS=false"
            )
        if norm.MODE == "rate" and sequence.gain is None:
            raise SampleError(
                f"{name}: DATA.NORM.MODE rate needs the gain (spikes a sample at unit "
                "luminance), and it is not known; give it to `spikedeblur align --gain`, or use "
                "relative or log1p"
            )
