"""The result of an evaluation: scores by window, sequence and method, and the file of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ...errors import SpikeDeblurError
from ..host.documents import DocumentError, read_json
from ..host.files import StrPath, write_text
from ..host.header import ProductFormat
from ..host.locks import only_writer_of
from ..host.overwrite import require_free
from ..host.validation import first_problem
from ..sequences.lag import NOTABLE
from .metrics import Score
from .motion import MotionScore

EVALUATION = ProductFormat("spikedeblur.evaluation", 1)


class EvaluationError(SpikeDeblurError):
    """A split can't be evaluated as asked for."""


@dataclass(frozen=True, slots=True)
class WindowScores:
    """All methods' scores on one window."""

    seq: str
    frame_index: int
    """Number of the blurred frame."""
    scores: dict[str, Score]
    """Score of each method, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Result of evaluating a split; `to_json` is what is written."""

    methods: dict[str, Score]
    """Each method's mean over all windows."""
    sequences: dict[str, dict[str, Score]]
    """Each method's mean over the windows of each sequence."""
    windows: tuple[WindowScores, ...]
    data_sha256: str
    """SHA-256 of the split's data, from `describe_data`."""
    blur_kind: str | None
    """Name of the way in which blurred frames were averaged; figures on GoPro's blur and blur_gamma
    do not compare."""
    tfp_bins: int | None
    """Width of TFP's short window in bins; None: not evaluated."""
    sdm_bins: int | None
    """Width of SDM's short window in bins; None: not evaluated."""
    tile: int | None
    """Side of the model's tiles in pixels; None: whole frames, or no model."""
    gain_estimated: tuple[str, ...]
    """Names of sequences without a recorded gain: tfp and sdm take it from the blurred frames."""
    srgb: tuple[str, ...]
    """Names of sequences whose frames are sRGB, and were decoded for all methods."""
    findings: dict[str, str]
    """What `align` found wrong with sequences that were voxelized all the same, by name."""
    lags: dict[str, float | None]
    """Lag of each sequence's spikes as a share of the exposure, late > 0; None: not measurable."""
    store: str = ""
    split: str = ""
    run: str | None = None
    """Run folder or exported model that is evaluated as `model`."""
    checkpoint_sha256: str | None = None
    """SHA-256 of the weights of `run`."""
    control: str | None = None
    """Run folder or exported model that is evaluated as `rgb`."""
    protocol: str | None = None
    """Name of the published table whose data these are."""
    lpips_backbone: str | None = None
    flips: bool = False
    """Whether models restored mirrored copies too."""
    sensor_sha256: str | None = None
    """SHA-256 of the maps by which the spike pixels were corrected; None: they were not."""
    motion: dict[str, MotionScore] = field(default_factory=dict)
    """Figures by motion for each method, and for `sharp` itself; empty: not measured."""
    instants: dict[str, Any] | None = None
    """Figures by instant, as `InstantScores.to_json` has them; None: not measured."""

    @property
    def misaligned(self) -> dict[str, float]:
        """The sequences whose spikes are notably early or late, with their lags."""
        return {seq: lag for seq, lag in self.lags.items() if lag and abs(lag) > NOTABLE}

    def interval(self, method: str, over: str | None = None) -> tuple[float, float] | None:
        """Return the 95 % interval of a method's mean PSNR in dB, or of its gain `over` another.

        Percentile bootstrap with 2,000 draws, always the same. Whole sequences are drawn, since
        the windows of one are too alike to be drawn one by one. None for a single sequence.
        """
        if len(self.sequences) < 2:
            return None
        values: dict[str, list[float]] = {seq: [] for seq in self.sequences}
        for window in self.windows:
            below = window.scores[over].psnr if over is not None else 0.0
            values[window.seq].append(window.scores[method].psnr - below)
        sums = np.array([[sum(gains), len(gains)] for gains in values.values()])
        drawn = np.random.default_rng(0).integers(len(sums), size=(2000, len(sums)))
        totals = sums[drawn].sum(1)  # (draws, 2)
        low, high = np.percentile(totals[:, 0] / totals[:, 1], (2.5, 97.5))
        return float(low), float(high)

    def gain_intervals(self) -> dict[str, tuple[float, float] | None]:
        """Return the `interval` of each other method's gain over blur; empty without blur."""
        others = [name for name in self.methods if name != "blur"]
        return {name: self.interval(name, "blur") for name in others if "blur" in self.methods}

    def windows_of(self, seq: str) -> int:
        """Return how many windows a sequence has."""
        return sum(window.seq == seq for window in self.windows)

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "methods": {name: mean.to_json() for name, mean in self.methods.items()},
            "sequences": {
                seq: {name: mean.to_json() for name, mean in scores.items()}
                for seq, scores in self.sequences.items()
            },
            **EVALUATION.header(),
            "store": self.store,
            "data_sha256": self.data_sha256,
            "run": self.run,
            "checkpoint_sha256": self.checkpoint_sha256,
            "control": self.control,
            "split": self.split,
            "protocol": self.protocol,
            "blur_kind": self.blur_kind,
            "windows": len(self.windows),
            "sequence_windows": {seq: self.windows_of(seq) for seq in self.sequences},
            "tfp_bins": self.tfp_bins,
            "sdm_bins": self.sdm_bins,
            "tile": self.tile,
            "flips": self.flips,
            **({} if self.sensor_sha256 is None else {"sensor_sha256": self.sensor_sha256}),
            "gain_estimated": list(self.gain_estimated),
            **({"srgb": list(self.srgb)} if self.srgb else {}),
            "psnr_interval": {name: self.interval(name) for name in self.methods},
            "psnr_gain_over_blur_interval": self.gain_intervals(),
            "lag_in_exposures": self.lags,
            "findings": self.findings,
            "motion": {name: asdict(score) for name, score in self.motion.items()},
            **({} if self.instants is None else {"instants": self.instants}),
            "frames": [
                {
                    "seq": window.seq,
                    "frame": window.frame_index,
                    **{name: score.to_json() for name, score in window.scores.items()},
                }
                for window in self.windows
            ],
            "mean_over": "windows",
            "metrics": "8-bit RGB, no border cropped; SSIM with an 11-pixel Gaussian, sigma 1.5"
            + (f"; LPIPS of {self.lpips_backbone}" if self.lpips_backbone else ""),
        }


class _Scores(BaseModel):
    psnr: float
    ssim: float
    lpips: float | None = None


class _Frame(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Scores]

    seq: str
    frame: int


class _Motion(BaseModel):
    warping_error: float | None
    psnr: dict[str, float]


class _EvaluationFile(BaseModel):
    """What is read of an evaluation's file."""

    version: str
    methods: dict[str, _Scores]
    sequences: dict[str, dict[str, _Scores]]
    sequence_windows: dict[str, int]
    windows: int
    store: str
    split: str
    data_sha256: str
    checkpoint_sha256: str | None
    psnr_gain_over_blur_interval: dict[str, tuple[float, float] | None]
    lag_in_exposures: dict[str, float | None] = {}
    motion: dict[str, _Motion] = {}
    frames: tuple[_Frame, ...] = ()
    tfp_bins: int | None = None
    sdm_bins: int | None = None

    @model_validator(mode="after")
    def _require_all(self) -> _EvaluationFile:
        names = self.methods.keys()
        if any(scores.keys() != names for scores in self.sequences.values()):
            raise ValueError("sequences: expected the scores of each method of each sequence")
        if self.sequence_windows.keys() != self.sequences.keys():
            raise ValueError("sequence_windows: expected a number for each sequence")
        if any(frame.__pydantic_extra__.keys() != names for frame in self.frames):
            raise ValueError("frames: expected the scores of each method of each frame")
        return self


def read_evaluation(path: StrPath, error: type[SpikeDeblurError]) -> dict[str, Any]:
    """Return the content of an evaluation's file, once all that is read of it is there.

    Raises:
        SpikeDeblurError: the class `error`: no file, no JSON, no evaluation, or a wrong entry.
    """
    remedy = "evaluate again, or give `report` another by --evaluation"
    try:
        content: dict[str, Any] = read_json(path)
        EVALUATION.require(content, path, error, remedy)
        _EvaluationFile.model_validate(content)
    except OSError as problem:
        raise error(f"{path}: can't be read ({problem.strerror}); {remedy}") from problem
    except ValidationError as problem:
        raise error(f"{path}: {first_problem(problem)}; {remedy}") from problem
    except DocumentError as problem:
        raise error(
            f"{path}: expected JSON, found something else ({problem}); {remedy}"
        ) from problem
    return content


def write_evaluation(path: StrPath, evaluation: Evaluation, *, overwrite: bool = False) -> None:
    """Write the evaluation as JSON, atomically; a former one is replaced.

    Raises:
        OverwriteError: there is another file of that name, and `overwrite` is not set.
    """
    with only_writer_of(path):
        require_own_json(path, overwrite=overwrite)
        write_text(path, json.dumps(evaluation.to_json(), indent=2, allow_nan=False) + "\n")


def require_own_json(path: StrPath, *, overwrite: bool = False) -> None:
    """Refuse to replace a file that is no evaluation, before any work is done.

    Raises:
        OverwriteError: another file is there, and `overwrite` is not set; or a folder is.
    """

    def is_ours(path: Path) -> bool:
        return EVALUATION.heads(read_json(path))

    require_free(path, overwrite=overwrite, is_ours=is_ours, what="an evaluation")
