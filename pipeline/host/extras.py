"""Packages that an extra of spikedeblur brings, imported only where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import SpikeDeblurError


@contextmanager
def from_extra(
    extra: str, what: str, error: type[SpikeDeblurError], instead: str = ""
) -> Iterator[None]:
    """Say which extra brings a package whose import fails.

    Args:
        extra: name of the extra.
        what: what needs the package, and the package's name, for the message.
        error: class of the error.
        instead: what to do without the package, for the end of the message.

    Raises:
        SpikeDeblurError: the package is not installed; of class `error`.
    """
    try:
        yield
    except ImportError as problem:
        raise error(f"{what}, found none; pip install 'spikedeblur[{extra}]'{instead}") from problem
