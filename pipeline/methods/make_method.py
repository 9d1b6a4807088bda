"""The list of methods, and how each is made.

blur     the blurred frame itself: what any method must beat
tfp      luminance from a short window of spikes around the exposure's middle, on 3 channels
tfi      luminance from the interval between the spikes around the middle, on 3 channels
sdm      blur times short TFP over exposure TFP: no learning
path     blur made sharp along the motion that the spikes show: no learning, needs torch
model    a trained network, on clips of several exposures
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..host.files import StrPath
from .contract import Method
from .tfp_tfi_sdm import BlurMethod, SdmMethod, TfiMethod, TfpMethod

if TYPE_CHECKING:
    from .network import ModelMethod


@dataclass(frozen=True, kw_only=True, slots=True)
class Untrained:
    """A method without a trained model, and what commands must know before they make it."""

    make: Callable[..., Method]
    """The class; called without arguments, or with the short window's width in bins."""
    has_short_window: bool = False
    """Whether the width of a short window can be chosen."""
    needs_gain: bool = False
    """Whether a gain that is not known is taken from the blurred frames' brightness."""
    needs_spikes: bool = False
    """Whether counts in bins do not suffice."""
    needs_raw: bool = True
    """Whether it refuses counts whose log1p is done."""
    needs_torch: bool = False
    """Whether it needs torch; without pictures by models, a report shows none by it either."""


def _path() -> Method:
    from .path import PathMethod  # imports torch

    return PathMethod()


UNTRAINED = {
    "blur": Untrained(make=BlurMethod, needs_raw=False),
    "tfp": Untrained(make=TfpMethod, has_short_window=True, needs_gain=True),
    "tfi": Untrained(make=TfiMethod, needs_gain=True, needs_spikes=True),
    "sdm": Untrained(make=SdmMethod, has_short_window=True, needs_gain=True),
    "path": Untrained(make=_path, needs_torch=True),
}
"""The methods without a trained model, in the order in which they are shown."""

METHODS = (*UNTRAINED, "model")
"""Names of all methods."""


def make_method(name: str, short_bins: int | None = None) -> Method:
    """Return one of the `UNTRAINED` methods.

    Args:
        name: the method.
        short_bins: width of the short window in bins, for a method that has one; None: the
            method's default.
    """
    method = UNTRAINED[name]
    if method.has_short_window and short_bins is not None:
        return method.make(short_bins)
    return method.make()


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """How a trained network is run on frames."""

    tile: int | None = None
    """Side of the tiles in frame pixels; 0: whole frames; None: see `tiling.choose_tile`."""
    flips: bool = False
    """Whether the result is the mean over four mirrored copies: four times the time, and a little
    nearer to the truth."""
    device: str | None = None
    """A torch device; None: the GPU where there is one."""

    def open(self, run: StrPath) -> ModelMethod:
        """Return the network of a run folder or of an exported model, ready to restore.

        Raises:
            SpikeDeblurError: neither, or one without a whole checkpoint.
        """
        from ..trained.model_file import load_trained
        from .network import ModelMethod

        network, config = load_trained(run)
        return ModelMethod(network, config, tile=self.tile, flips=self.flips, device=self.device)
