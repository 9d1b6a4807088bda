"""What methods that restore the same windows share, so that it is found once. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..sequences.contract import WindowSequence

if TYPE_CHECKING:
    from ...configs.schema import NormConfig
    from .exposures import Exposures


class SharedExposures:
    """The exposures of the sequence at hand, found once for all methods that look at them.

    Methods see the same where they take the same light from the spikes, on the same device.
    """

    def __init__(self) -> None:
        self._windows: WindowSequence | None = None
        self._found: list[tuple[NormConfig, str, Exposures]] = []
        self.heard: Callable[[str, str], None] = lambda kind, note: None
        """Called as `contract.Shared` says."""

    def of(
        self, windows: WindowSequence, norm: NormConfig, *, device: str = "cpu", kept: int = 1
    ) -> Exposures:
        """Return the exposures of a sequence; those of the one before are forgotten.

        Args:
            windows: the sequence.
            norm: how spikes become relative light; see `Exposures`.
            device: a torch device.
            kept: least number of sharp frames that are kept.

        Raises:
            MethodError: the sequence's voxels are not raw.
        """
        from .exposures import Exposures

        if self._windows is not windows:
            self._windows, self._found = windows, []
        norm = norm.model_copy(update={"TRUST": 1.0})  # which only the network sees
        for seen, place, exposures in self._found:
            if (seen, place) == (norm, device):
                exposures.keep(kept)
                return exposures
        exposures = Exposures(
            windows, norm, device=device, kept=kept, heard=lambda note: self.heard("motion", note)
        )
        self._found.append((norm, device, exposures))
        return exposures
