"""`DATA`: where samples come from, and how spike counts become what the network sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, StringConstraints, Tag, model_validator

from .values import (
    Bool,
    Extent,
    Fraction,
    Name,
    NaturalFloat,
    Number,
    PositiveFloat,
    Section,
    Windows,
)

Float = Annotated[Number, Field(ge=-1e15, le=1e15)]
Bins = Annotated[int, Strict(), Field(ge=1, le=4096)]
Extension = Annotated[str, StringConstraints(pattern=r"^\.[A-Za-z0-9]+$", max_length=16)]


class NormConfig(Section):
    """How voxel counts become the numbers the spike encoder sees."""

    MODE: Literal["log1p", "rate", "relative"] = "log1p"
    """`log1p`: log(1 + count), as the field does, whatever the gain. `rate`: spikes a
    sample divided by the gain, that is luminance. `relative`: deviation of the rate from
    its mean over the bins, divided by that mean + 0.05, within [-3, 3]; a wrong gain
    nearly cancels. Each spike counts over the time since the one before it: by its very
    sample where the spikes are at hand (.dat, stores of kind packed), else by its bin."""
    MEAN: Float | None = 0.0
    """Subtracted after the mode's own scaling (not in `relative`). 0 with STD 1 changes
    nothing; null with STD null switches the step off."""
    STD: Annotated[Number, Field(ge=0, le=1e9)] | None = 1.0
    """Divided by after MEAN is subtracted; at least 1e-12 is used."""
    CURVE: Annotated[tuple[Float, ...], Field(min_length=2, max_length=6)] | None = None
    """One camera's luminance for MODE `relative`, in place of the gain: coefficients of a
    polynomial of the spikes a sample, highest power first. `adapt` fits it, so that false spikes
    and a response that is not linear are accounted for. null: luminance is spikes a sample over
    the gain."""
    CORRECT_LAG: Bool = False
    """Raw counts are moved, by whole bins, by the lag (late > 0) that the blurred frames show.
    For frames of linear light."""
    TRUST: Annotated[PositiveFloat, Field(le=1)] = 1.0
    """Factor on the deviations of MODE `relative` before the network sees them. `adapt` lowers it
    for a camera whose spikes are noisier than those of training."""

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other."""
        if (self.MEAN is None) != (self.STD is None):
            yield (
                f"expected MEAN and STD both given or both null, got MEAN {self.MEAN}, "
                f"STD {self.STD}; correct one of them"
            )
        if self.MODE == "relative" and (self.MEAN, self.STD) not in ((0, 1), (None, None)):
            yield (
                "MODE relative has its own scale, so expected MEAN 0 and STD 1 (or null), got "
                f"{self.MEAN} and {self.STD}"
            )
        if self.MODE != "relative" and (self.CURVE is not None or self.TRUST != 1):
            yield f"CURVE and TRUST are for MODE relative, got {self.MODE}; set them to null and 1"


class SpikeAugmentConfig(Section):
    """Spikes of training clips changed as if another camera had recorded them. Off by default."""

    CHANCE: Annotated[Number, Field(ge=0, le=1)] = 0.5
    """Share of the clips that are changed."""
    THRESHOLD: Annotated[Number, Field(ge=1, le=1000)] = 1.0
    """Largest factor of the camera's threshold, from 1 on; the gain falls by it. 1: off."""
    NOISE: Fraction = 0.0
    """Largest share of samples without a spike that get a false one. 0: off."""
    DEAD: Fraction = 0.0
    """Largest share of pixels that never spike. 0: off."""
    ROWS: Fraction = 0.0
    """Largest share of rows that never spike. 0: off."""
    PIXELS: Annotated[Number, Field(ge=0, le=0.5)] = 0.0
    """Largest standard deviation of the pixels' gains, as a share of their mean. 0: off."""
    DARK: Annotated[Number, Field(ge=0, le=0.1)] = 0.0
    """Largest mean number of spikes a sample that pixels fire without light. 0: off."""
    HOT: Fraction = 0.0
    """Largest share of pixels that are hot: they fire at random besides. 0: off."""
    LATE: Fraction = 0.0
    """Largest share of the exposure by which spikes come late or early, in whole bins. 0: off."""
    TINT: Fraction = 0.0
    """Largest share by which each colour of the frames, blurred and sharp alike, gets darker than
    what the spikes saw: another exposure and another white. 0: off."""
    GRAIN: Fraction = 0.0
    """Largest standard deviation of noise in the blurred frames, whose range is 1. 0: off."""
    THIN: Fraction = 0.0
    """Share of the steps that see only some windows of their clips, at random, as if exposures
    were further apart or single. Independent of CHANCE. 0: off."""

    @property
    def changes_clips(self) -> bool:
        """Whether anything but THIN is on."""
        shares = (self.NOISE, self.DEAD, self.ROWS, self.LATE, self.TINT, self.GRAIN)
        pixels = (self.PIXELS, self.DARK, self.HOT)
        return self.CHANCE > 0 and (self.THRESHOLD > 1 or max(*shares, *pixels) > 0)


class StoreConfig(Section):
    """One of several stores that are trained on together."""

    ROOT: Name
    """A Zarr store, or a folder in the unified layout, as DATA.ROOT."""
    WEIGHT: NaturalFloat | None = None
    """Its share of the training clips, over the sum of all stores' weights: 60, 30 and 10 are 60 %,
    30 % and 10 %, whatever the stores' sizes. null, for all stores: by the number of their clips,
    so that every clip comes equally often."""
    INCLUDE: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)] = ("*",)
    """Patterns of names of sequences that are taken, in both splits; `*` stands for any characters,
    `?` for one. A pattern is compared with the name (`train/Type1/TEST01`) and with the name
    without its split (`Type1/TEST01`)."""
    EXCLUDE: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    """Patterns of names that are left out all the same."""
    FRACTION: Annotated[PositiveFloat, Field(le=1)] = 1.0
    """Share of its training sequences that are trained on, chosen by TRAIN.SEED: at least one, and
    rounded up. It is validated on all of its validation split."""

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other."""
        if self.WEIGHT == 0:
            yield "WEIGHT: expected more than 0, got 0; leave the store out of DATA.ROOT instead"


def _one_form(value: object) -> str:
    return "<store>" if isinstance(value, dict | StoreConfig) else "<path>"


def _form(value: object) -> str:
    return "<list>" if isinstance(value, list | tuple) else "<path>"


_Path = Annotated[Name, Tag("<path>")]
_Store = Annotated[_Path | Annotated[StoreConfig, Tag("<store>")], Discriminator(_one_form)]
_Stores = Annotated[tuple[_Store, ...], Field(max_length=100), Tag("<list>")]


def roots_of(value: object) -> list[str]:
    """Return the paths in a value of DATA.ROOT, as it is checked or as YAML has it."""
    several = value if isinstance(value, list | tuple) else [value]
    paths = (each.get("ROOT") if isinstance(each, dict) else each for each in several)
    paths = (path.ROOT if isinstance(path, StoreConfig) else path for path in paths)
    return [str(path) for path in paths if path is not None]


class DataConfig(Section):
    """Where samples come from and how they are cut."""

    ROOT: Annotated[_Path | _Stores, Discriminator(_form)] = "data/processed/gopro_spike_unified"
    """A Zarr store, or a folder in the unified layout
    `<ROOT>/<split>/<sequence>/{blur,sharp,spike}/`. Relative to the current folder. Or a list of
    several, which are trained on together: each a path, or a mapping of ROOT, WEIGHT, INCLUDE,
    EXCLUDE and FRACTION. They have the same splits, K and form of voxels."""
    TRAIN_SPLIT: Name = "train"
    """Split to train on."""
    VAL_SPLIT: Name = "val"
    """Split to validate on; never trained on."""
    SPIKE_DIR: Name = "spike"
    """Unified layout: folder of the `.dat` files in each sequence."""
    VOXEL_CACHE_DIRNAME: Name = "spike_vox"
    """Unified layout: folder of the precomputed `.npy` voxels in each sequence."""
    USE_PRECOMPUTED_VOXELS: Bool = False
    """Unified layout: true reads `.npy` voxels, false counts the `.dat` when read."""
    ALIGN_LOG_PATHS: Annotated[tuple[Name, ...], Field(max_length=1000)] = (
        "outputs/logs/align_x4k1000fps.txt",
    )
    """Unified layout: alignment logs that give each frame's exposure [t0, t1] in seconds."""
    CLIP_LEN: Windows = 5
    """Windows (frames) in a training clip, T. A shorter sequence is used whole."""
    CROP_SIZE: Extent = 256
    """Side of the square training crop, in pixels of the blurred frame. A multiple of
    8 * MODEL.TRUNK_SCALE."""
    K: Bins = 32
    """Time bins of a voxel grid. Must be what the store was made with. Not given: as
    NUM_VOXEL_BINS."""
    NUM_VOXEL_BINS: Bins = 32
    """The same number under the reference's second name. Not given: as K."""
    IMAGE_EXTS: Annotated[tuple[Extension, ...], Field(max_length=100)] = (
        ".png",
        ".jpg",
        ".jpeg",
        ".bmp",
    )
    """Unified layout: file name endings that are frames."""
    NORM: NormConfig = NormConfig()
    """Scaling of the counts."""
    USE_RAM_CACHE: Bool = True
    """Keep what was read in memory, least recently used out first."""
    CACHE_SIZE_GB: Annotated[Number, Field(ge=0, le=1e6)] = 4.0
    """Limit of that memory, in GiB a training process."""
    VERIFY: Bool = True
    """Compare each file of a store in a folder with its checksum, once in a run, before the first
    of its pixels is read. Costs about a second for each gigabyte of the store, at the beginning."""
    SPIKES_ON_DEVICE: Bool | Literal["auto"] = "auto"
    """Where counts or light are made, which are the same. true: on the device that trains, to which
    the spikes go as bits. false: in the loading processes. auto: on a GPU, where all sequences have
    spikes, frames a whole multiple of their size, and light is wanted, or windows' bits are no more
    bytes than their counts; on a CPU it would take its time from the steps."""
    AUGMENT: Bool = True
    """Random flips and quarter turns of training clips, alike for frames and spikes."""
    INSTANTS: Bool = False
    """Each training sample asks for the sharp frames of one instant of the exposure, drawn from
    those that the store keeps (`simulate --instants`, `align --instants`), the middle among them.
    `restore --frames-per-exposure` and `evaluate --instants` then ask the network for each instant;
    without it, they move its frame of the middle. Needs MODEL.SPIKE_MOTION. Validation is of the
    middle."""
    SPIKE_AUGMENT: SpikeAugmentConfig = SpikeAugmentConfig()
    """Other cameras."""

    @property
    def stores(self) -> tuple[StoreConfig, ...]:
        """The stores of ROOT, with all that can be said of one."""
        several = (self.ROOT,) if isinstance(self.ROOT, str) else self.ROOT
        return tuple(StoreConfig(ROOT=one) if isinstance(one, str) else one for one in several)

    @model_validator(mode="before")
    @classmethod
    def _one_number_of_bins(cls, data: Any) -> Any:
        if isinstance(data, dict) and ("K" in data) != ("NUM_VOXEL_BINS" in data):
            return {"K": data.get("NUM_VOXEL_BINS"), "NUM_VOXEL_BINS": data.get("K"), **data}
        return data

    def misfits(self) -> Iterator[str]:
        """Yield why values do not fit each other."""
        if not self.ROOT:
            yield "ROOT: expected a store, or a list of some, got an empty list"
        weights = [store.WEIGHT for store in self.stores]
        if None in weights and any(weights):
            yield (
                "ROOT: expected a WEIGHT for all stores or for none (then by their clips), got "
                f"{', '.join('none' if weight is None else f'{weight:g}' for weight in weights)}"
            )
        if self.K != self.NUM_VOXEL_BINS:
            yield (
                f"expected K and NUM_VOXEL_BINS equal, got {self.K} and {self.NUM_VOXEL_BINS}; set "
                "both, or only one of them"
            )
