"""Options about the spike camera; `spike_options` takes them together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..completion import offered, presets
from ..help_page import SPIKES
from .times import duration

if TYPE_CHECKING:
    from ...pipeline.spikes.between import Between
    from ...pipeline.spikes.settings import SpikeOptions


def _geometry(spec: str | None) -> str | None:
    if spec is not None:
        from ...pipeline.spikes.geometry import SpikeGeometryError
        from ...pipeline.spikes.presets import parse_geometry
        from ..mistakes import did_you_mean

        try:
            parse_geometry(spec)
        except SpikeGeometryError as error:
            what = str(error).removeprefix("geometry ")
            if near := did_you_mean(spec, presets()):
                what = f"{what.partition(';')[0]}; {near}"
            raise typer.BadParameter(what) from error
    return spec


Geometry = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        callback=_geometry,
        autocompletion=offered(presets),
        help="Preset, HxW,bottom-up or HxW,top-down; then, each after a comma, what applies of "
        "padded, msb-first, bayer=RGGB, drop=A:B and columns=A:B.",
        show_default="side file",
        rich_help_panel=SPIKES,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="HZ",
        help="Spike samples a second.",
        show_default="side file or preset",
        rich_help_panel=SPIKES,
    ),
]
Gain = Annotated[
    float | None,
    typer.Option(
        metavar="GAIN",
        help="Spikes a sample at unit luminance.",
        show_default="side file or preset",
        rich_help_panel=SPIKES,
    ),
]
First = Annotated[
    float | None,
    duration(
        "When the first spike sample was taken.",
        show_default="side file, else 0",
        rich_help_panel=SPIKES,
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON or YAML: homography from spike to frame pixels.",
        show_default="what align found, else both cameras see the same",
        rich_help_panel=SPIKES,
    ),
]


def sensor_option(default: str) -> Any:
    """Return the option --sensor; `default`: which sensor is taken where it is left out."""
    return typer.Option(
        metavar="FILE",
        help="File that `calibrate` wrote: corrects gain, dark rate, hot and dead spike pixels.",
        show_default=f"{default}, else pixels are taken as equal",
        rich_help_panel=SPIKES,
    )


Sensor = Annotated[Path | None, sensor_option("side file")]


def spike_options(
    geometry: str | None = None,
    rate: float | None = None,
    gain: float | None = None,
    first: float | None = None,
    calibration: Path | None = None,
    readout: float | None = None,
    sensor: Path | None = None,
    part: Between | None = None,
) -> SpikeOptions:
    """Return what the user said about the spike camera, and how the frames' rows see it."""
    from ...pipeline.spikes.settings import SpikeOptions

    return SpikeOptions(
        geometry=geometry,
        rate=rate,
        gain=gain,
        first=first,
        calibration=calibration,
        readout=readout,
        sensor=sensor,
        between=part,
    )
