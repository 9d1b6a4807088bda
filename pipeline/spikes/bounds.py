"""Bounds of what a user or a file may say of a recording, far above any camera's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_HZ = 1e12
"""Most samples or frames a second."""
LEAST_GAIN, MOST_GAIN = 1e-6, 1e6
"""Spikes a sample at unit luminance."""
MOST_SECONDS = 1e11
"""Latest time, and earliest below 0. Clocks may count from 1970; none counts further."""
MOST_COUNT = 2**63 - 1
"""Largest whole number: what every tool reads."""

Hertz = Annotated[float, Field(ge=1 / MOST_SECONDS, le=MOST_HZ)]
Gain = Annotated[float, Field(ge=LEAST_GAIN, le=MOST_GAIN)]
Instant = Annotated[float, Field(ge=-MOST_SECONDS, le=MOST_SECONDS)]
Count = Annotated[int, Field(ge=0, le=MOST_COUNT)]
