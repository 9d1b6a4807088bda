"""The tables of a report, as rows of plain values for the template."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

from ...configs import check_config
from ...configs.schema.data import roots_of
from ...errors import SpikeDeblurError
from ..host.documents import parse_yaml
from ..host.reporter import counted, duration
from ..sequences.stored import StoreSequence
from ..train.run.runs import differing
from .charts import PARTS, seconds_of
from .material import ReportMaterial, Run
from .pictures import model_name
from .words import title

UNKNOWN = "—"


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and the value by which its column is sorted."""

    text: str
    value: float | str
    best: bool = False


MOST_ROWS = 400
"""Rows of a table that are shown: a page of thousands says less."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; `footer` stays below when the rows are sorted."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footer: tuple[Cell, ...] = ()
    left_out: int = 0
    """Rows that are not shown."""


def facts(run: Run) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, remark) of what matters most about a run."""
    methods = run.evaluation.get("methods", {})
    if "model" in methods:
        model = methods["model"]
        split = run.evaluation["split"]
        yield "PSNR", f"{model['psnr']:.2f} dB", f"SSIM {model['ssim']:.3f}, {split} split"
        if "blur" in methods:
            interval = run.evaluation["psnr_gain_over_blur_interval"].get("model")
            remark = (
                f"95 %: {interval[0]:+.2f} to {interval[1]:+.2f}" if interval else "one sequence"
            )
            better = model["psnr"] - methods["blur"]["psnr"]
            yield "improvement over blur", f"{better:+.2f} dB", remark
        others = [name for name in methods if name not in ("model", "blur")]
        if others:
            best = max(others, key=lambda name: methods[name]["psnr"])
            better = model["psnr"] - methods[best]["psnr"]
            how = "without spikes" if best == "rgb" else "no learning"
            yield "over the best baseline", f"{better:+.2f} dB", f"{title(best)}, {how}"
    best_line = _best_validation(run)
    if best_line is not None:
        yield "best validation", f"{best_line['psnr']:.2f} dB", f"at step {best_line['step']}"
    if run.metrics:
        seconds = sum(seconds_of(run).values())
        device = run.starts[-1].get("device") if run.starts else "device unknown"
        yield "training", duration(seconds), f"{counted(run.metrics[-1]['step'], 'step')}, {device}"
    if run.weights_sha256 is not None:
        from ..weights.checkpoint import describe_checkpoint
        from ..weights.find import weights_file

        try:
            parameters = describe_checkpoint(weights_file(run.folder))[0]["parameters"]
            yield "parameters", f"{parameters / 1e6:.2f} M", "best checkpoint"
        except SpikeDeblurError as error:  # a checkpoint of another release
            yield "checkpoint", "unreadable", str(error)


def results(material: ReportMaterial) -> Table | None:
    """Return PSNR and SSIM by sequence and method; the model of each run has a column."""
    first = _first_evaluation(material)
    if not first:
        return None
    columns = [(title(name), first, name) for name in first["methods"] if name != "model"]
    columns += [
        (model_name(run, material.runs), run.evaluation, "model")
        for run in material.runs
        # Figures of other data do not compare.
        if "model" in run.evaluation.get("methods", ())
        and run.evaluation["data_sha256"] == first["data_sha256"]
        and run.evaluation["sequences"].keys() == first["sequences"].keys()
    ]
    rows = [
        (
            _text(seq),
            _text(first["sequence_windows"][seq]),
            *_scores([evaluation["sequences"][seq][name] for _, evaluation, name in columns]),
        )
        for seq in first["sequences"]
    ]
    footer = (
        Cell("mean over windows", ""),
        _text(first["windows"]),
        *_scores([evaluation["methods"][name] for _, evaluation, name in columns]),
    )
    return _table(("sequence", "windows", *(name for name, _, _ in columns)), rows, footer)


def measured(material: ReportMaterial) -> str:
    """Return which measures a cell of the results holds."""
    first = _first_evaluation(material)
    scores: dict[str, float] = next(iter(first.get("methods", {}).values()), {})
    return "PSNR in dB / SSIM" + (" / LPIPS" if "lpips" in scores else "")


def motion(material: ReportMaterial) -> Table | None:
    """Return PSNR by how far pixels move, and the warping error, of each method."""
    methods = material.runs[0].evaluation.get("motion") or {}
    if not methods:
        return None
    classes = list(dict.fromkeys(name for scores in methods.values() for name in scores["psnr"]))
    rows = [
        (
            Cell(title(name), name),
            *(_number(scores["psnr"].get(moved), "{:.2f}") for moved in classes),
            _number(scores["warping_error"], "{:.2f}", 1e4),
        )
        for name, scores in methods.items()
    ]
    return _table(("method", *classes, "warping error, 1e-4"), rows)


def by_run(material: ReportMaterial) -> Table | None:
    """Return one row a run: what it reached and what it took."""
    if len(material.runs) < 2:
        return None
    first = _first_evaluation(material)
    rows = []
    for run in material.runs:
        best = _best_validation(run) or {}
        seconds = sum(seconds_of(run).values())
        model = run.evaluation.get("methods", {}).get("model", {})
        same = run.evaluation.get("data_sha256") == first.get("data_sha256")
        rows.append(
            (
                _text(run.name),
                _number(run.metrics[-1]["step"] if run.metrics else None, "{:d}"),
                Cell(duration(seconds), seconds),
                _number(best.get("psnr"), "{:.2f}"),
                _number(model.get("psnr"), "{:.2f}" if same else "{:.2f} (other data)"),
                _number(model.get("ssim"), "{:.3f}"),
            )
        )
    headings = ("run", "steps", "time", "best validation, dB", "evaluation, dB", "SSIM")
    return _table(headings, rows)


def alignment(material: ReportMaterial) -> Table | None:
    """Return how far spikes are from frames in time: in the sources, and in what was evaluated."""
    lags = material.runs[0].evaluation.get("lag_in_exposures", {})
    # What the images prove.
    verified = {
        sequence.seq: sequence.verification
        for sequence in (material.manifest.sequences if material.manifest else ())
        if sequence.verification is not None and sequence.verification.confident
    }

    # The largest first; what is not known last.
    def size(seq: str) -> float:
        known = abs(1000 * verified[seq].lag_seconds) if seq in verified else -1.0
        return max(known, abs(lags.get(seq) or 0.0))

    names = sorted(lags.keys() | verified.keys(), key=lambda seq: (-size(seq), seq))
    if not names:
        return None
    columns = (
        ("lag by align, ms", "lag_seconds", "{:+.3f}", 1000),
        ("in samples", "lag_frames", "{:+.1f}", 1),
        ("its error", "error_frames", "{:.2f}", 1),
        ("correlation", "correlation", "{:.3f}", 1),
        ("drift, ppm", "drift_ppm", "{:+.0f}", 1),
    )
    rows = [
        (
            _text(seq),
            *(
                _number(getattr(verified.get(seq), field, None), form, scale)
                for _, field, form, scale in columns
            ),
            _number(lags.get(seq), "{:+.1f}", 100),
        )
        for seq in names
    ]
    titles = [name for name, *_ in columns]
    return _table(("sequence", *titles, "lag by evaluate, % of the exposure"), rows)


def time_spent(run: Run) -> list[tuple[str, str, str]]:
    """Return (part, duration, share) of the seconds that a run recorded."""
    seconds = seconds_of(run)
    total = sum(seconds.values())
    return [
        (PARTS[part], duration(spent), f"{100 * spent / total:.1f} %")
        for part, spent in seconds.items()
    ]


def environment(runs: Several[Run]) -> Table | None:
    """Return one row for each start of each run."""
    starts = [(run, start) for run in runs for start in run.starts]
    if not starts:
        return None
    keys = list(dict.fromkeys(key for _, start in starts for key in start))
    rows = [
        (
            _text(run.name),
            *(_text(UNKNOWN if start.get(key) is None else str(start[key])) for key in keys),
        )
        for run, start in starts
    ]
    return _table(("run", *("from step" if key == "step" else key for key in keys)), rows)


def provenance(material: ReportMaterial) -> Iterator[tuple[str, str]]:
    """Yield (what, where from or hash) of everything that went in."""
    for run in material.runs:
        data, evaluation = run.data, run.evaluation
        of_run = f"{run.name}: " if len(material.runs) > 1 else ""
        if data:
            stores = ", ".join(roots_of(run.settings.get("DATA.ROOT")))
            yield (
                f"{of_run}training split",
                f"{stores}, {counted(data['sequences'], 'sequence')}, "
                f"{counted(data['windows'], 'window')}, SHA-256 {data['sha256']}",
            )
            for digest in data["manifests_sha256"]:
                yield f"{of_run}its manifest", f"SHA-256 {digest}"
        if run.weights_sha256:
            yield f"{of_run}best checkpoint", f"SHA-256 {run.weights_sha256}"
        if evaluation:
            yield (
                f"{of_run}evaluated split",
                f"{evaluation['store']}, {evaluation['split']}, "
                f"{counted(evaluation['windows'], 'window')}, "
                f"{_conditions(evaluation)}SHA-256 {evaluation['data_sha256']}; by spikedeblur "
                f"{evaluation['version']}",
            )
            if evaluation["checkpoint_sha256"]:
                yield f"{of_run}evaluated weights", f"SHA-256 {evaluation['checkpoint_sha256']}"
    if material.store is not None and material.sequences:
        yield "pictures", f"{material.store}, {material.split}, SHA-256 {material.data_sha256}"
        sequence = material.sequences[0]
        if isinstance(sequence, StoreSequence):
            record = sequence.record
            gain = "not known" if record.gain is None else f"{record.gain:g} spikes a sample"
            yield (
                "spike camera",
                f"{record.geometry}, {record.rate:g} Hz, gain {gain}; kind {record.kind}, "
                f"{counted(record.bins, 'bin')}; of {record.seq}",
            )
    manifest = material.manifest
    if manifest is not None:
        light = {True: "linear light", False: "gamma space", None: "not known"}
        yield (
            "sources",
            f"layout {manifest.layout}, {counted(len(manifest.sequences), 'sequence')}, "
            f"{manifest.fps:g} frames a second, {manifest.exposure_frames or 'varying'} frames an "
            f"exposure, averaged in {light[manifest.linear_light]}",
        )


def parts(run: Run) -> dict[str, str]:
    """Return which parts of the network are `on` and `off`; none where that can't be read."""
    from ..weights.parts import describe_parts

    try:
        return describe_parts(check_config(parse_yaml(run.config_text), run.name).MODEL)
    except SpikeDeblurError:  # a configuration of another release
        return {}


def differences(runs: Several[Run]) -> Table | None:
    """Return the keys of the configurations that are not the same in all runs."""
    if len(runs) < 2:
        return None
    keys = differing([run.settings for run in runs])
    rows = [(_text(key), *(_text(str(run.settings.get(key))) for run in runs)) for key in keys]
    return _table(("key", *(run.name for run in runs)), rows)


def _first_evaluation(material: ReportMaterial) -> dict[str, Any]:
    return next((run.evaluation for run in material.runs if run.evaluation), {})


def _best_validation(run: Run) -> dict[str, Any] | None:
    lines = [line for line in run.lines("val") if line.get("psnr") is not None]
    return max(lines, key=lambda line: line["psnr"], default=None)


def _scores(scores: list[dict[str, float]]) -> list[Cell]:
    most = max(score["psnr"] for score in scores)
    return [
        Cell(
            f"{s['psnr']:.2f} / {s['ssim']:.3f}" + (f" / {s['lpips']:.3f}" if "lpips" in s else ""),
            s["psnr"],
            best=s["psnr"] == most,
        )
        for s in scores
    ]


def _conditions(evaluation: dict[str, Any]) -> str:
    """Return the conditions of an evaluation that are not the usual ones."""
    unusual = {
        "frames of {}": evaluation.get("blur_kind"),
        "protocol {}": evaluation.get("protocol"),
        "without spikes: {}": evaluation.get("control"),
        "mirrored copies too": evaluation.get("flips") or None,
    }
    return "".join(f"{words.format(value)}, " for words, value in unusual.items() if value)


def _table(
    headings: tuple[str, ...], rows: Several[tuple[Cell, ...]], footer: tuple[Cell, ...] = ()
) -> Table:
    left_out = max(len(rows) - MOST_ROWS, 0)
    return Table(headings, tuple(rows[:MOST_ROWS]), footer, left_out)


def _text(value: float | str) -> Cell:
    return Cell(str(value), value)


def _number(value: float | None, form: str, scale: float = 1) -> Cell:
    if value is None:
        return Cell(UNKNOWN, -1e300)  # sorted below everything that is known
    return Cell(form.format(scale * value), float(scale * value))
