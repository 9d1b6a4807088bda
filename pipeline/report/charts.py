"""The charts of a report, as Vega-Lite specifications.

Colours are the page's own CSS variables, so that one specification serves light and dark. Charts
get fixed names instead of Altair's running numbers, so that equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any

import altair as alt

from ..methods.make_method import UNTRAINED
from .material import ReportMaterial, Run
from .pictures import Playback, model_name
from .words import title

MOST_POINTS = 400
"""Most points of a training curve; longer runs show every n-th line of metrics.jsonl."""

Spec = dict[str, Any]

_SERIES = [f"var(--series-{i})" for i in range(1, 9)]

_CURVES = (
    ("psnr", "PSNR in training, dB", "linear", "~g"),
    ("loss", "Loss", "log", "~g"),
    ("lr", "Learning rate", "linear", "~g"),
    ("grad_norm", "Gradient norm", "log", "~g"),
    ("samples_per_s", "Clips a second", "linear", "~g"),
    ("tflops", "TFLOP/s", "linear", "~g"),
    ("data_wait", "Waiting for data, of the steps' time", "linear", "~%"),
    ("peak_memory", "Peak memory, bytes", "linear", ".4~s"),
)
"""Key in metrics.jsonl, title, scale and number format."""

MOST_SEQUENCES = 60
"""Most sequences in the chart of improvements; the table has all."""

PARTS = {
    "data": "waiting for data",
    "to_device": "copying to the device",
    "forward": "network and loss",
    "backward": "gradient",
    "optimizer": "update of the weights",
    "other": "the rest of a step",
    "validation": "validation",
    "saving": "saving",
}
"""Titles of the parts of training time, by their names in metrics.jsonl."""


def validation_curve(runs: Several[Run]) -> Spec | None:
    """Return the PSNR on the validation split over steps, beside that of the blurred input."""
    rows = [
        {"run": run.name, "step": line["step"], "psnr": line["psnr"], "blur": line["psnr_blur"]}
        for run in runs
        for line in run.lines("val")
        if {"psnr", "psnr_blur"} <= line.keys()
    ]
    if not rows:
        return None
    base = _chart(rows)
    lines = base.mark_line(point={"size": 45, "filled": True}).encode(
        x=_STEP,
        y=alt.Y("psnr:Q", title="validation PSNR, dB", scale=alt.Scale(zero=False)),
        color=_by_run(runs),
        tooltip=["run:N", "step:Q", _figure("psnr", "PSNR, dB"), _figure("blur", "blur, dB")],
    )
    blurred = base.mark_rule(strokeDash=[4, 4], color="var(--muted)").encode(
        y="mean(blur):Q", tooltip=[_figure("mean(blur)", "blurred input, dB")]
    )
    return _finished(blurred + lines, "PSNR of validation over the steps of the run")


def training_curves(runs: Several[Run]) -> dict[str, Spec]:
    """Return a chart for each quantity recorded in training, by its title."""
    specs = {}
    for key, name, scale, form in _CURVES:
        rows = [
            {"run": run.name, "step": line["step"], "value": line[key]}
            for run in runs
            for line in _thinned(run.lines("train"))
            if line.get(key) is not None and (scale != "log" or line[key] > 0)
        ]
        if not rows:
            continue
        near = alt.selection_point(
            name="near", on="pointerover", nearest=True, fields=["step"], empty=False
        )
        unseen = 0 if len(rows) > len(runs) else 1  # a line through one point isn't seen
        base = _chart(rows).encode(
            x=_STEP,
            y=alt.Y(
                "value:Q",
                title=None,
                scale=alt.Scale(type="log") if scale == "log" else alt.Scale(zero=False),
                axis=alt.Axis(format=form, tickCount=5, grid=scale != "log"),
            ),
            color=_by_run(runs),
        )
        points = (
            base.mark_point(size=40, filled=True)
            .encode(
                opacity=alt.when(near).then(alt.value(1)).otherwise(alt.value(unseen)),
                tooltip=["run:N", "step:Q", _figure("value", name, ".4~" + form[-1])],
            )
            .add_params(near)
        )
        chart = alt.layer(base.mark_line(), points, name=f"training_{key}")
        specs[name] = _finished(chart, f"{name}, over the steps of the run", height=150)
    return specs


def improvements(material: ReportMaterial) -> Spec | None:
    """Return each window's improvement over the blurred frame in dB, by sequence and method."""
    rows = []
    sequences = list(material.runs[0].evaluation.get("sequences", ()))[:MOST_SEQUENCES]
    for run in material.runs:
        for frame in run.evaluation.get("frames", ()):
            if "blur" not in frame or frame["seq"] not in sequences:
                continue
            of_run = run is material.runs[0]
            rows += [
                {
                    "seq": frame["seq"],
                    "frame": frame["frame"],
                    "method": model_name(run, material.runs) if name == "model" else title(name),
                    "improvement": frame[name]["psnr"] - frame["blur"]["psnr"],
                }
                for name in (*UNTRAINED, "rgb", "model")
                if name != "blur" and name in frame and (of_run or name == "model")
            ]
    if not rows:
        return None
    order = list(dict.fromkeys(str(row["method"]) for row in rows))
    ticks = _chart(rows).mark_tick(thickness=2, bandSize=14, opacity=1)
    chart = ticks.encode(
        x=alt.X("improvement:Q", title="improvement over the blurred frame, dB", axis=_FEW),
        y=alt.Y("seq:N", title=None, axis=alt.Axis(labelLimit=160)),
        color=_colour("method:N", order),
        tooltip=["seq:N", "frame:Q", "method:N", _figure("improvement", "improvement, dB")],
    )
    zero = _chart([{"x": 0}]).mark_rule(color="var(--muted)").encode(x="x:Q")
    count = len({row["seq"] for row in rows})
    return _finished(
        zero + chart,
        "Improvement of each window over the blurred frame, by method",
        height=min(max(22 * count, 90), 900),
    )


def time_spent(runs: Several[Run]) -> Spec | None:
    """Return the seconds that each run spent on each part of training."""
    rows = [
        {"run": run.name, "part": PARTS[part], "seconds": seconds, "order": i}
        for run in runs
        for i, (part, seconds) in enumerate(seconds_of(run).items())
    ]
    if not rows:
        return None
    order = [name for name in PARTS.values() if any(row["part"] == name for row in rows)]
    bars = _chart(rows).mark_bar(height=22)
    chart = bars.encode(
        x=alt.X("seconds:Q", title="seconds", axis=_FEW),
        y=alt.Y("run:N", title=None, axis=None if len(runs) == 1 else alt.Axis()),
        color=_colour("part:N", order),
        order="order:Q",
        tooltip=["run:N", "part:N", alt.Tooltip("seconds:Q", format=".1f")],
    )
    return _finished(chart, "Seconds of training by what they went into", height=44 * len(runs))


def seconds_of(run: Run) -> dict[str, float]:
    """Return the seconds that a run recorded, by part; older runs tell data from the rest only."""
    sums: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for line in run.lines("train"):
        parts = {part: line[f"seconds_{part}"] for part in PARTS if f"seconds_{part}" in line}
        if "forward" not in parts:
            waited = line["seconds"] * line["data_wait"]
            parts |= {"data": waited, "other": line["seconds"] - waited}
        for part, seconds in parts.items():
            sums[part] += seconds
    sums["validation"] += sum(line.get("seconds", 0.0) for line in run.lines("val"))
    return {part: seconds for part, seconds in sums.items() if seconds > 0}


def raster(playback: Playback) -> Spec | None:
    """Return the spikes of one row of pixels over time; None where single spikes aren't known."""
    if playback.raster is None:
        return None
    t0, t1 = playback.raster_times
    row = {"t0": t0, "t1": t1, "x0": 0, "x1": playback.width, "url": playback.raster}
    time = alt.Scale(domain=[t0, t1], nice=False)
    columns = alt.Scale(domain=[playback.width, 0], nice=False)
    picture = _chart([row]).mark_image(aspect=False)
    chart = picture.encode(
        x=alt.X("t0:Q", title="time from the exposure's start, ms", scale=time),
        x2="t1:Q",
        y=alt.Y("x0:Q", title=f"column, in row {playback.raster_row}", scale=columns),
        y2="x1:Q",
        url="url:N",
    )
    cursor = alt.param(name="instant", value=playback.times[len(playback.times) // 2])
    line = _chart([{}]).mark_rule(color="var(--accent)", strokeWidth=2)
    instant = alt.XDatum(alt.expr("instant"), type="quantitative")
    return _finished(
        chart + line.encode(x=instant).add_params(cursor),
        f"Spikes of row {playback.raster_row} over the exposure",
        height=260,
    )


def rates(playback: Playback) -> Spec:
    """Return the histogram of the pixels' rates, in spikes a sample."""
    rows = [{"rate": rate, "pixels": pixels} for rate, pixels in playback.rates]
    bars = _chart(rows).mark_bar(color="var(--series-1)", binSpacing=1)
    chart = bars.encode(
        x=alt.X("rate:Q", title="spikes a sample", bin="binned"),
        x2="next:Q",
        y=alt.Y("pixels:Q", title="pixels"),
        tooltip=[_figure("rate", "spikes a sample from", ".3f"), "pixels:Q"],
    ).transform_calculate(next=f"datum.rate + {rows[1]['rate'] - rows[0]['rate']}")
    return _finished(chart, "Histogram of the pixels' spike rates", height=180)


def likeness(playback: Playback) -> Spec | None:
    """Return the correlation of spikes and sharp frame over the offset in time, in ms."""
    if len(playback.likeness) < 3:
        return None
    rows = [{"offset": offset, "correlation": value} for offset, value in playback.likeness]
    line = _chart(rows).mark_line(point=True, color="var(--series-1)")
    chart = line.encode(
        x=alt.X("offset:Q", title="offset from the exposure's middle, ms"),
        y=alt.Y("correlation:Q", title="correlation", scale=alt.Scale(zero=False)),
        tooltip=[_figure("offset", "offset, ms"), _figure("correlation", "correlation", ".4f")],
    )
    middle = _chart([{"x": 0}]).mark_rule(color="var(--muted)", strokeDash=[4, 4]).encode(x="x:Q")
    return _finished(middle + chart, "Likeness of spikes and sharp frame by offset", height=180)


_FEW = alt.Axis(tickCount=8, labelOverlap=True)
_STEPS = alt.Axis(tickCount=8, tickMinStep=1, labelOverlap=True)
_STEP = alt.X("step:Q", title="step", axis=_STEPS, scale=alt.Scale(nice=False))
_COLUMNS = alt.ExprRef("max(1, floor(width / 150))")
_LEGEND = alt.Legend(
    title=None, orient="top", columns=_COLUMNS, symbolType="square", labelLimit=260
)


def _chart(rows: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))


def _colour(field: str, names: list[str], legend: alt.Legend | None = _LEGEND) -> alt.Color:
    return alt.Color(field, scale=alt.Scale(domain=names, range=_SERIES), legend=legend)


def _by_run(runs: Several[Run]) -> alt.Color:
    return _colour("run:N", [run.name for run in runs], None if len(runs) == 1 else _LEGEND)


def _figure(field: str, title: str, form: str = ".2f") -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=form)


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return lines[:: -(-len(lines) // MOST_POINTS) or 1]


def _finished(chart: Any, description: str, height: int = 240) -> Spec:
    ink, muted, rule = "var(--ink)", "var(--muted)", "var(--rule)"
    return (
        chart.properties(width="container", height=height, description=description)
        .configure(
            background="transparent",
            font="system-ui, sans-serif",
            autosize={"type": "fit-x", "contains": "padding"},
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=muted,
            titleColor=muted,
            titleFontWeight="normal",
            gridColor=rule,
            domainColor=rule,
            tickColor=rule,
            labelFontSize=11,
            titleFontSize=12,
        )
        .configure_legend(labelColor=ink, labelFontSize=12)
        .to_dict()
    )
