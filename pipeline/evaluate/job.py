"""The evaluate stage: how near each method comes to the sharp frames of a split.

Every method is run on the same windows, and what is compared is what would be saved: whole
frames of 8 bits (see `metrics`). The mean of a split is over its windows, not its sequences.
tfp and sdm get the width of short window that serves each best on the very split that is
evaluated: a baseline should be as strong as it can be.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..frames.images import to_8_bits
from ..frames.listing import shorten
from ..host.files import StrPath, sha256_file
from ..host.reporter import SILENT, Reporter
from ..methods.contract import Method, restored_frames
from ..methods.make_method import UNTRAINED, ModelOptions, make_method
from ..methods.tfp_tfi_sdm import SHORT_BINS
from ..sequences.contract import WindowSequence
from ..sequences.corrected import correct_sequences
from ..sequences.lag import exposure_lag
from ..sequences.provenance import blur_kinds, describe_data, findings
from .lpips import Backbone, Lpips
from .metrics import Score, psnr, ssim
from .motion import MotionMeter
from .protocols import protocol_split, require_protocol
from .scores import Evaluation, EvaluationError, WindowScores

if TYPE_CHECKING:
    from ..methods.network import ModelMethod

_TRAINED = {
    "rgb": "a model trained without spikes (MODEL.USE_SPIKE=false); give --control RUN",
    "model": "a trained one; give --run DIR or --model small",
}
"""The methods with a trained model, and what each needs."""

METHODS = (*UNTRAINED, *_TRAINED)
"""Names of the methods that can be evaluated, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluating(ModelOptions):
    """How models are run, and what is measured beside PSNR and SSIM."""

    lpips: Backbone | None = None
    """Backbone of LPIPS; None: not measured."""
    motion: bool = False
    """Whether PSNR by motion and the steadiness of the frames are measured."""
    verify: bool = True
    """Whether files of a store in a folder are compared with their checksums."""
    sensor: StrPath | None = None
    """File that says how the spike pixels differ; None: they are taken as equal."""


def evaluate(
    store: StrPath,
    *,
    run: StrPath | None = None,
    control: StrPath | None = None,
    split: str | None = None,
    methods: Sequence[str] | None = None,
    protocol: str | None = None,
    how: Evaluating = Evaluating(),
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Evaluate methods on one split of a store.

    Args:
        store: a Zarr store with sharp frames.
        run: a run folder or an exported model, for `model`.
        control: a run folder or an exported model that sees no spikes, for `rgb`.
        split: train, val or test; None: the protocol's, else test.
        methods: names; None: all that can be; tfi needs a store with the spikes themselves.
        protocol: one of `evaluate.protocols.PROTOCOLS`; other data than the protocol's are refused.
        how: how models are run, and what else is measured.
        reporter: receives progress in windows of each method.

    Raises:
        EvaluationError: an unknown method, `model` without a run, no sharp frames.
        SpikeDeblurError: no such split (says which there are), a store or run that is not whole,
            another protocol's data, no weights for LPIPS, no OpenCV for motion.
    """
    from ..sequences.stored import open_store
    from ..weights.find import source_name, weights_file

    names = checked_methods(methods, run=run, control=control)
    lpips = None if how.lpips is None else Lpips(how.lpips, how.device)
    meter = MotionMeter() if how.motion else None
    split = split or (protocol_split(protocol) if protocol else "test")
    sequences = open_store(store, split, verify=how.verify)
    if protocol is not None:
        require_protocol(protocol, split, sequences)
    _require_comparable(store, split, sequences)
    sensor = None if how.sensor is None else correct_sequences(sequences, how.sensor)
    counted = [sequence.seq for sequence in sequences if not sequence.has_spikes]
    need_spikes = [name for name in names if name in UNTRAINED and UNTRAINED[name].needs_spikes]
    if counted and methods is None:
        names = tuple(name for name in names if name not in need_spikes)
    elif counted and need_spikes:
        raise EvaluationError(
            f"{store}: {need_spikes[0]} needs the instants of single spikes, and {counted[0]} is "
            "stored as counts in bins; use tfp, or voxelize again with --kind packed"
        )
    # Not asked for: not opened, and not named in the product.
    run = run if "model" in names else None
    control = control if "rgb" in names else None
    sources = {"model": run, "rgb": control}
    trained = {name: how.open(source) for name, source in sources.items() if source is not None}
    if "rgb" in trained and trained["rgb"].config.MODEL.USE_SPIKE:
        raise EvaluationError(
            f"{control}: expected a model trained without spikes (MODEL.USE_SPIKE=false) as "
            "--control, found one with; give it as --run"
        )
    evaluation = evaluate_sequences(
        sequences, names, trained=trained, lpips=lpips, meter=meter, reporter=reporter
    )
    return replace(
        evaluation,
        store=os.fspath(store),
        split=split,
        protocol=protocol,
        lpips_backbone=how.lpips,
        flips=how.flips and bool(trained),
        sensor_sha256=None if sensor is None else sensor.sha256,
        run=None if run is None else source_name(run),
        control=None if control is None else source_name(control),
        checkpoint_sha256=None if run is None else sha256_file(weights_file(run)),
    )


def checked_methods(
    methods: Sequence[str] | None, *, run: StrPath | None, control: StrPath | None
) -> tuple[str, ...]:
    """Return the methods to evaluate, each once.

    Args:
        methods: names; None: all but those that need a model that is not given.
        run: the model for `model`; None: there is none.
        control: the model for `rgb`; None: there is none.

    Raises:
        EvaluationError: an unknown method, or one that needs a model that is not given.
    """
    missing = {name for name, source in (("model", run), ("rgb", control)) if source is None}
    if methods is None:
        return tuple(name for name in METHODS if name not in missing)
    for name in methods:
        if name in missing:
            raise EvaluationError(f"the method {name} needs {_TRAINED[name]}")
    if not methods or not set(methods) <= set(METHODS):
        unknown = next((name for name in methods if name not in METHODS), "none")
        raise EvaluationError(f"expected methods among {', '.join(METHODS)}, got {unknown!r}")
    return tuple(dict.fromkeys(methods))


def _require_comparable(store: StrPath, split: str, sequences: Sequence[WindowSequence]) -> None:
    """Refuse sequences without sharp frames, and different ways to average blurred frames."""
    without = [sequence.seq for sequence in sequences if not sequence.has_sharp]
    if without:
        raise EvaluationError(
            f"{store}: {shorten(without)}: no sharp frames to compare with; `spikedeblur restore` "
            "needs none"
        )
    kinds = blur_kinds(sequences)
    if len(kinds) > 1:
        raise EvaluationError(
            f"{store}: {' and '.join(kinds)} are mixed in the split {split}, and results on them "
            "do not compare; keep them in separate stores"
        )


def evaluate_sequences(
    sequences: Sequence[WindowSequence],
    methods: Sequence[str],
    *,
    trained: Mapping[str, ModelMethod] | None = None,
    lpips: Lpips | None = None,
    meter: MotionMeter | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Evaluate checked methods on sequences that are already open; see `evaluate`.

    Args:
        sequences: sequences with sharp frames.
        methods: names, as `checked_methods` returns them.
        trained: the networks of `model` and `rgb`.
        lpips: measures LPIPS; None: not measured.
        meter: measures by motion; None: not measured.
        reporter: receives progress in windows of each method.
    """
    trained = trained or {}
    widths = [width for width in SHORT_BINS if width <= min(s.bins for s in sequences)]
    searched = [
        name for name in methods if name not in trained and UNTRAINED[name].has_short_window
    ]
    steps = sum(s.length for s in sequences) * (1 + len(searched) * len(widths))
    done = 0

    def step(note: str) -> None:
        nonlocal done
        done += 1
        reporter.progress(done, steps, note)

    best = {name: _best_width(name, sequences, widths, step) for name in searched}
    ready: dict[str, Method] = {
        name: trained.get(name) or make_method(name, best.get(name)) for name in methods
    }
    windows = []
    for sequence in sequences:
        if meter is not None:
            meter.begin_sequence()
        restoring = {name: restored_frames(ready[name], sequence) for name in methods}
        for window in range(sequence.length):
            sharp = to_8_bits(sequence.sharp(window, window + 1)[0])
            frames = {name: next(restored)[1] for name, restored in restoring.items()}
            scores = {
                name: Score(
                    psnr(frame, sharp), ssim(frame, sharp), lpips(frame, sharp) if lpips else None
                )
                for name, frame in frames.items()
            }
            if meter is not None:
                t0, t1 = float(sequence.t0[window]), float(sequence.t1[window])
                meter.add(sharp, frames, (t0 + t1) / 2, t1 - t0)
            windows.append(WindowScores(sequence.seq, int(sequence.frame_index[window]), scores))
            step(sequence.seq)
    tiles = {
        model.tile_side(s.frame_shape, s.length) for model in trained.values() for s in sequences
    }
    return Evaluation(
        methods=_means(methods, windows),
        sequences={
            sequence.seq: _means(methods, [w for w in windows if w.seq == sequence.seq])
            for sequence in sequences
        },
        windows=tuple(windows),
        data_sha256=describe_data(sequences)["sha256"],
        blur_kind=next(iter(blur_kinds(sequences)), None),
        tfp_bins=best.get("tfp"),
        sdm_bins=best.get("sdm"),
        tile=max((side for side in tiles if side is not None), default=None),
        gain_estimated=tuple(s.seq for s in sequences if s.gain is None and best),
        findings=findings(sequences),
        lags={s.seq: exposure_lag(s) if s.windows_are_raw else None for s in sequences},
        motion=meter.scores() if meter is not None else {},
    )


def _best_width(
    name: str,
    sequences: Sequence[WindowSequence],
    widths: Sequence[int],
    step: Callable[[str], None],
) -> int:
    """Return the width with the highest mean PSNR over all windows, the smallest of equals."""
    means = []
    for width in widths:
        values = []
        for sequence in sequences:
            for window, frame in restored_frames(make_method(name, width), sequence):
                sharp = to_8_bits(sequence.sharp(window, window + 1)[0])
                values.append(psnr(frame, sharp))
                step(f"window of {width} bins on {sequence.seq}")
        means.append(statistics.fmean(values))
    return widths[means.index(max(means))]


def _means(methods: Iterable[str], windows: Sequence[WindowScores]) -> dict[str, Score]:
    return {name: _mean([window.scores[name] for window in windows]) for name in methods}


def _mean(scores: Sequence[Score]) -> Score:
    perceptual = [score.lpips for score in scores if score.lpips is not None]
    return Score(
        statistics.fmean(score.psnr for score in scores),
        statistics.fmean(score.ssim for score in scores),
        statistics.fmean(perceptual) if perceptual else None,
    )
