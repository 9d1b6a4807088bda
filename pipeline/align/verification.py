"""What `align` measured of a sequence's lag, as the manifest keeps it."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Record(BaseModel):
    """A part of the manifest: nothing but its fields, and each of its own type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


ReferenceKind = Literal["blur", "sharp"]
FRAMES_OF_KIND: dict[ReferenceKind, str] = {"blur": "blurred frames", "sharp": "sharp frames"}
"""What frames are called in messages, by kind."""

Unproved = Literal["flat", "still", "unlike", "edge", "rival", "unsure"]
"""Why the frames prove no lag."""
Misread = Literal["rows flipped", "columns flipped", "rotated", "transposed", "geometry", "swapped"]
"""How the spikes fit the frames better than as they were read."""
Problem = Literal[Unproved, Misread, "sharp apart", "rolling shutter", "late", "early"]
"""What the frames show to be wrong, or why they prove nothing; see docs/alignment.md."""


class Verification(Record):
    """A sequence's lag (late > 0) and drift, as measured from its frames and spikes."""

    lag_frames: float
    """Lag of the spikes, in samples."""
    lag_seconds: float
    """Lag of the spikes, in seconds."""
    correlation: float = Field(ge=-1, le=1)
    """Correlation of the frames with the TFP at that lag."""
    confident: bool
    """Whether the frames prove the lag; a flat or still scene proves nothing."""
    warning: str | None = None
    """What is wrong, in a sentence; None: nothing is."""
    by: ReferenceKind = "sharp"
    """Kind of frames that the lag was measured from."""
    problem: Problem | None = None
    """What is wrong, in a word or two; None: nothing is."""
    confidence: float = Field(default=0.0, ge=0, le=1)
    """Probability that the lag is right to within 1 % of the exposure, or one sample."""
    error_frames: float | None = Field(default=None, ge=0)
    """Standard error of the lag, in samples."""
    at_frame: float | None = None
    """Sample at which the lag holds, counted by the clock before any correction."""
    drift_ppm: float | None = None
    """True rate over the stated one minus 1, in millionths; None: can't be measured."""
    drift_error_ppm: float | None = Field(default=None, ge=0)
    """Standard error of the drift, in millionths."""
    rival: float | None = None
    """Best correlation outside the main lobe; None: there is no lag outside."""
    applied: bool = False
    """Whether the sequence's clock was corrected by this lag and drift."""
    readout: float | None = None
    """Time from a frame's first row to its last one, in seconds, that the lags of bands of rows
    show; None: none is known to be missing."""

    @property
    def is_unlike(self) -> bool:
        """Whether spikes and frames, as they were read, are not of one scene."""
        misread = self.problem in get_args(Misread)
        return self.problem == "unlike" or misread

    @property
    def is_wrong(self) -> bool:
        """Whether something is known to be wrong; where nothing could be told, nothing is."""
        proves_nothing = self.problem in ("flat", "still", "edge", "rival", "unsure")
        return self.open_problem is not None and not proves_nothing

    @property
    def open_problem(self) -> Problem | None:
        """What is still wrong: no longer a lag, once the clock is corrected by it."""
        return None if self.applied and self.problem in ("late", "early") else self.problem

    @property
    def open_warning(self) -> str | None:
        """The same in a sentence."""
        return None if self.open_problem is None else self.warning

    @model_serializer(mode="wrap")
    def _without_readout(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        content: dict[str, object] = dump(self)
        if self.readout is None:
            del content["readout"]
        return content
