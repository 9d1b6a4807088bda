"""The tables of a report, as rows of plain values for the template."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

from ..align.manifest import Manifest, Verification
from ..host.reporter import duration
from ..sequences.stored import StoreSequence
from ..train.run.runs import differing
from .charts import PARTS, seconds_of
from .material import ReportMaterial, Run
from .pictures import model_name

UNKNOWN = "—"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, and by what it is sorted."""

    text: str
    value: float | str
    best: bool = False


MOST_ROWS = 400
"""Of a table: a page of thousands says less. What is left out is said."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; `footer` stays below when the rows are sorted."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footer: tuple[Cell, ...] = ()
    left_out: int = 0
    """Rows that are not shown."""


def facts(run: Run) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) of what matters most about a run.

    Raises:
        CheckpointError: this release can't read its checkpoint.
    """
    found: list[tuple[str, str, str]] = []
    methods = (run.evaluation or {}).get("methods", {})
    if run.evaluation is not None and "model" in methods:
        model = methods["model"]
        found.append(
            (
                "PSNR",
                f"{model['psnr']:.2f} dB",
                f"SSIM {model['ssim']:.3f}, {run.evaluation['split']} split",
            )
        )
        if "blur" in methods:
            interval = run.evaluation["psnr_gain_over_blur_interval"].get("model")
            remark = (
                f"95 %: {interval[0]:+.2f} to {interval[1]:+.2f}" if interval else "one sequence"
            )
            gain = model["psnr"] - methods["blur"]["psnr"]
            found.append(("over the blurred frame", f"{gain:+.2f} dB", remark))
        others = {name: scores for name, scores in methods.items() if name not in ("model", "blur")}
        if others:
            best = max(others, key=lambda name: others[name]["psnr"])
            gain = model["psnr"] - others[best]["psnr"]
            found.append(
                (
                    "over the best baseline",
                    f"{gain:+.2f} dB",
                    f"{best.upper()}, {'without spikes' if best == 'rgb' else 'no learning'}",
                )
            )
    validations = run.lines("val")
    if validations:
        best = max(validations, key=lambda line: line["psnr"])
        found.append(("best validation", f"{best['psnr']:.2f} dB", f"at step {best['step']}"))
    if run.metrics:
        seconds = sum(seconds_of(run).values())
        device = run.starts[-1]["device"] if run.starts else "device unknown"
        found.append(("training", duration(seconds), f"{run.metrics[-1]['step']} steps, {device}"))
    if run.weights_sha256 is not None:
        from ..trained.model_file import weights_file
        from ..weights.checkpoint import describe_checkpoint

        parameters = describe_checkpoint(weights_file(run.folder))[0]["parameters"]
        found.append(("parameters", f"{parameters / 1e6:.2f} M", "best checkpoint"))
    return found


def results(sources: ReportMaterial) -> Table | None:
    """Return PSNR and SSIM by sequence and method; of several runs, each has a column."""
    runs = [run for run in sources.runs if run.evaluation is not None]
    if not runs:
        return None
    first = runs[0].evaluation or {}
    columns: list[tuple[str, dict[str, Any], str]] = [
        (_title(name), first, name) for name in first["methods"] if name != "model"
    ]
    columns += [
        (model_name(run, sources.runs), run.evaluation, "model")
        for run in runs
        # Of other data, figures do not compare.
        if run.evaluation is not None
        and "model" in run.evaluation["methods"]
        and run.evaluation["data_sha256"] == first["data_sha256"]
    ]
    rows = [
        (
            Cell(seq, seq),
            Cell(str(first["sequence_windows"][seq]), first["sequence_windows"][seq]),
            *_scores([found["sequences"][seq][name] for _, found, name in columns]),
        )
        for seq in first["sequences"]
    ]
    footer = (
        Cell("mean over windows", ""),
        Cell(str(first["windows"]), first["windows"]),
        *_scores([found["methods"][name] for _, found, name in columns]),
    )
    headings = ("sequence", "windows", *(title for title, _, _ in columns))
    return Table(headings, tuple(rows[:MOST_ROWS]), footer, max(len(rows) - MOST_ROWS, 0))


def measured(sources: ReportMaterial) -> str:
    """Return what the numbers of a cell of the results are."""
    first = next((run.evaluation for run in sources.runs if run.evaluation), {})
    scores: dict[str, float] = next(iter(first.get("methods", {}).values()), {})
    return "PSNR in dB / SSIM" + (" / LPIPS" if "lpips" in scores else "")


def motion(sources: ReportMaterial) -> Table | None:
    """Return PSNR by how far pixels move, and the warping error, of each method."""
    found = (sources.runs[0].evaluation or {}).get("motion") or {}
    if not found:
        return None
    classes = list(dict.fromkeys(name for scores in found.values() for name in scores["psnr"]))
    rows = [
        (
            Cell(_title(name), name),
            *(_number(scores["psnr"].get(moved), "{:.2f}") for moved in classes),
            _number(
                None if scores["warping_error"] is None else 1e4 * scores["warping_error"], "{:.2f}"
            ),
        )
        for name, scores in found.items()
    ]
    return Table(("method", *classes, "warping error, 1e-4"), tuple(rows))


def by_run(sources: ReportMaterial) -> Table | None:
    """Return one row a run: what it reached and what it took."""
    if len(sources.runs) < 2:
        return None
    first = next((run.evaluation for run in sources.runs if run.evaluation), None)
    rows = []
    for run in sources.runs:
        validations = run.lines("val")
        best = max(validations, key=lambda line: line["psnr"]) if validations else None
        seconds = sum(seconds_of(run).values())
        scores = run.evaluation
        model = (scores or {}).get("methods", {}).get("model")
        same = (
            scores is not None
            and first is not None
            and scores["data_sha256"] == first["data_sha256"]
        )
        remark = "" if same or scores is None else " (other data)"
        rows.append(
            (
                Cell(run.name, run.name),
                _number(run.metrics[-1]["step"] if run.metrics else None, "{:d}"),
                Cell(duration(seconds), seconds),
                _number(best["psnr"] if best else None, "{:.2f}"),
                Cell(f"{model['psnr']:.2f}{remark}", model["psnr"])
                if model
                else Cell(UNKNOWN, 0.0),
                _number(model["ssim"] if model else None, "{:.3f}"),
            )
        )
    headings = ("run", "steps", "time", "best validation, dB", "evaluation, dB", "SSIM")
    return Table(headings, tuple(rows))


def alignment(sources: ReportMaterial) -> Table | None:
    """Return how far spikes are from frames in time: in the sources, and in what was evaluated."""
    lags = (sources.runs[0].evaluation or {}).get("lag_in_exposures", {})
    measured = {} if sources.manifest is None else _measured(sources.manifest)

    # The largest first; what is not known last.
    def size(seq: str) -> float:
        known = abs(1000 * measured[seq].lag_seconds) if seq in measured else -1.0
        return max(known, abs(lags.get(seq) or 0.0))

    names = sorted(lags.keys() | measured.keys(), key=lambda seq: (-size(seq), seq))
    if not names:
        return None
    rows = []
    for seq in names[:MOST_ROWS]:
        late = lags.get(seq)
        rows.append(
            (
                Cell(seq, seq),
                *_verified(measured.get(seq)),
                _number(None if late is None else 100 * late, "{:+.1f}"),
            )
        )
    headings = (
        "sequence",
        "lag by align, ms",
        "in samples",
        "its error",
        "correlation",
        "drift, ppm",
        "lag by evaluate, % of the exposure",
    )
    return Table(headings, tuple(rows), left_out=max(len(names) - MOST_ROWS, 0))


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
            Cell(run.name, run.name),
            *(
                Cell(UNKNOWN if start.get(key) is None else str(start[key]), str(start.get(key)))
                for key in keys
            ),
        )
        for run, start in starts
    ]
    return Table(("run", *("from step" if key == "step" else key for key in keys)), tuple(rows))


def provenance(sources: ReportMaterial) -> list[tuple[str, str]]:
    """Return (what, where from or hash) of everything that went in."""
    rows: list[tuple[str, str]] = []
    for run in sources.runs:
        data = run.data
        of_run = f"{run.name}: " if len(sources.runs) > 1 else ""
        if data:
            rows.append(
                (
                    f"{of_run}training split",
                    f"{run.config.get('DATA.ROOT')}, {data['sequences']} sequences, "
                    f"{data['windows']} windows, SHA-256 {data['sha256']}",
                )
            )
            rows += [(f"{of_run}its manifest", f"SHA-256 {d}") for d in data["manifests_sha256"]]
        if run.weights_sha256:
            rows.append((f"{of_run}best checkpoint", f"SHA-256 {run.weights_sha256}"))
        found = run.evaluation
        if found:
            rows.append(
                (
                    f"{of_run}evaluated split",
                    f"{found['store']}, {found['split']}, {found['windows']} windows, "
                    f"{_conditions(found)}SHA-256 {found['data_sha256']}; by spikedeblur "
                    f"{found['version']}",
                )
            )
            if found["checkpoint_sha256"]:
                rows.append((f"{of_run}evaluated weights", f"SHA-256 {found['checkpoint_sha256']}"))
    if sources.store is not None and sources.sequences:
        rows.append(
            ("pictures", f"{sources.store}, {sources.split}, SHA-256 {sources.data_sha256}")
        )
        record = sources.sequences[0]
        if isinstance(record, StoreSequence):
            known = record.record
            gain = "not known" if known.gain is None else f"{known.gain:g} spikes a sample"
            rows.append(
                (
                    "spike camera",
                    f"{known.geometry}, {known.rate:g} Hz, gain {gain}; kind {known.kind}, "
                    f"{known.bins} bins; of {known.seq}",
                )
            )
    if sources.manifest is not None:
        found_in = sources.manifest
        exposure = found_in.exposure_frames
        light = {True: "linear light", False: "gamma space", None: "not known"}
        rows.append(
            (
                "sources",
                f"layout {found_in.layout}, {len(found_in.sequences)} sequences, {found_in.fps:g} "
                f"frames a second, {exposure if exposure else 'varying'} frames an exposure, "
                f"averaged in {light[found_in.linear_light]}",
            )
        )
    return rows


def differences(runs: Several[Run]) -> Table | None:
    """Return the keys of the configurations that are not the same in all runs."""
    if len(runs) < 2:
        return None
    keys = differing([run.config for run in runs])
    rows = [
        (
            Cell(key, key),
            *(Cell(str(run.config.get(key)), str(run.config.get(key))) for run in runs),
        )
        for key in keys
    ]
    return Table(("key", *(run.name for run in runs)), tuple(rows))


def _title(method: str) -> str:
    return method if method in ("blur", "model", "sharp") else method.upper()


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
    """Return under what an evaluation was made, where it is not the usual."""
    said = {
        "frames of {}": evaluation.get("blur_kind"),
        "protocol {}": evaluation.get("protocol"),
        "without spikes: {}": evaluation.get("control"),
        "mirrored copies too": evaluation.get("flips") or None,
    }
    return "".join(f"{words.format(value)}, " for words, value in said.items() if value)


def _verified(found: Verification | None) -> tuple[Cell, ...]:
    """Return lag in ms and in samples, its error, correlation and drift."""
    if found is None:
        return (Cell(UNKNOWN, -1e300),) * 5
    return (
        _number(1000 * found.lag_seconds, "{:+.3f}"),
        _number(found.lag_frames, "{:+.1f}"),
        _number(found.error_frames, "{:.2f}"),
        _number(found.correlation, "{:.3f}"),
        _number(found.drift_ppm, "{:+.0f}"),
    )


def _measured(manifest: Manifest) -> dict[str, Verification]:
    """Return what was measured of the sequences whose lag the images prove."""
    return {
        sequence.seq: found
        for sequence in manifest.sequences
        if (found := sequence.verification) is not None and found.confident
    }


def _number(value: float | None, form: str) -> Cell:
    # Below everything that is known.
    return Cell(UNKNOWN, -1e300) if value is None else Cell(form.format(value), float(value))
