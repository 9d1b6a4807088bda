"""The evaluate stage: how near each method comes to the sharp frames of a split.

Every method is run on the same windows, and what is compared is what would be saved: whole
frames of 8 bits (see `metrics`). The mean of a split is over its windows, not its sequences.
tfp and sdm get the width of short window that serves each best on the very split that is
evaluated: a baseline should be as strong as it can be.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..frames.listing import shorten
from ..host.files import StrPath, sha256_file
from ..host.reporter import SILENT, Parts, Reporter
from ..methods.contract import restored_frames
from ..methods.make_method import UNTRAINED, ModelOptions, make_method
from ..methods.parts import GUESSES, parts_of
from ..methods.shared import SharedExposures
from ..methods.tfp_tfi_sdm import SHORT_BINS
from ..sequences.contract import WindowSequence
from ..sequences.corrected import correct_sequences, sensors_of
from ..sequences.kept import KeptSequence
from ..sequences.lag import median_lag, window_lag
from ..sequences.linear_frames import FrameCurve, is_decoded, shown_in_8_bits, with_linear_frames
from ..sequences.provenance import blur_kinds, describe_data, findings
from .instants import chosen_instants, score_instants
from .lpips import Backbone, Lpips
from .metrics import Score, psnr, ssims
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
    instants: int | None = None
    """Number of instants of each exposure that are scored; None: only the middle."""
    sensor: StrPath | None = None
    """File that says how the spike pixels differ; None: as the store records."""
    curve: FrameCurve | None = None
    """What the numbers of the frames are; None: as the spikes tell."""


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
        reporter: receives progress in windows, and the time left.

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
    for sequence in sequences if how.instants is not None else ():
        chosen_instants(sequence, how.instants or 1)  # refuses before anything is restored
    evaluation = evaluate_sequences(
        sequences,
        names,
        trained=trained,
        lpips=lpips,
        meter=meter,
        curve=how.curve,
        reporter=reporter,
    )
    instants = None
    if how.instants is not None:
        ready = {name: trained.get(name) or make_method(name) for name in names}
        told: dict[bool, FrameCurve] = {True: "srgb", False: "linear"}
        light = [
            seen
            for sequence in sequences
            for seen in with_linear_frames([sequence], told[sequence.seq in evaluation.srgb])
        ]
        instants = score_instants(light, ready, how.instants, reporter).to_json()
    return replace(
        evaluation,
        instants=instants,
        store=os.fspath(store),
        split=split,
        protocol=protocol,
        lpips_backbone=how.lpips,
        flips=how.flips and bool(trained),
        sensor_sha256=sensors_of(sequences) if sensor is None else sensor.sha256,
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
    curve: FrameCurve | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Evaluate checked methods on sequences that are already open; see `evaluate`.

    Args:
        sequences: sequences with sharp frames.
        methods: names, as `checked_methods` returns them.
        trained: the networks of `model` and `rgb`.
        lpips: measures LPIPS; None: not measured.
        meter: measures by motion; None: not measured.
        curve: what the numbers of the frames are; None: as the spikes tell.
        reporter: receives progress in windows, and the time left.
    """
    trained = trained or {}
    widths = [width for width in SHORT_BINS if width <= min(s.bins for s in sequences)]
    searched = [
        name for name in methods if name not in trained and UNTRAINED[name].has_short_window
    ]
    ready = {name: trained.get(name) or make_method(name) for name in methods}
    length = sum(s.length for s in sequences)
    work = Parts(reporter, length, GUESSES | _GUESSES)
    shared = SharedExposures()
    for method in ready.values():
        if method.shared is not None:
            method.shared = shared
    parts = Counter({"widths": length if searched else 0, "scores": length})
    for sequence in sequences:
        parts.update(parts_of(ready.values(), sequence))
    work.expect(parts)
    shared.heard = work.did
    light = with_linear_frames(sequences, curve)
    best = _best_widths(searched, light, widths, work)
    ready.update({name: make_method(name, width) for name, width in best.items()})
    windows, lags = [], {}
    for sequence in map(KeptSequence, light):
        if meter is not None:
            meter.begin_sequence()
        restoring = {name: restored_frames(ready[name], sequence) for name in methods}
        found = []
        for window in range(sequence.length):
            sharp = shown_in_8_bits(sequence, sequence.sharp(window, window + 1)[0])
            frames = {name: next(restored)[1] for name, restored in restoring.items()}
            similar = ssims(list(frames.values()), sharp)
            scores = {
                name: Score(psnr(frame, sharp), likeness, lpips(frame, sharp) if lpips else None)
                for (name, frame), likeness in zip(frames.items(), similar, strict=True)
            }
            if meter is not None:
                t0, t1 = float(sequence.t0[window]), float(sequence.t1[window])
                meter.add(sharp, frames, (t0 + t1) / 2, t1 - t0)
            windows.append(WindowScores(sequence.seq, int(sequence.frame_index[window]), scores))
            if sequence.windows_are_raw:
                found.append(window_lag(sequence, window))
            work.did("scores", sequence.seq, finished=1)
        lags[sequence.seq] = median_lag(found)
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
        srgb=tuple(s.seq for s in light if is_decoded(s)),
        findings=findings(sequences),
        lags=lags,
        motion=meter.scores() if meter is not None else {},
    )


_GUESSES = {"widths": 0.05, "scores": 0.05}
"""Time to choose short windows on a window, and to score it, as `methods.parts.GUESSES`."""


def _best_widths(
    names: Sequence[str],
    sequences: Sequence[WindowSequence],
    widths: Sequence[int],
    work: Parts,
) -> dict[str, int]:
    """Return each method's width of the highest mean PSNR over all windows, the least of equals.

    All widths are tried on a window before the next one is read. Frames of the width chosen are
    restored once more for the other scores, which takes less than to score those of all widths.
    """
    if not names:
        return {}
    methods = {
        (name, width): make_method(name, width) for name, width in itertools.product(names, widths)
    }
    values: dict[tuple[str, int], list[float]] = {key: [] for key in methods}
    for sequence in map(KeptSequence, sequences):
        restoring = {key: restored_frames(method, sequence) for key, method in methods.items()}
        for window in range(sequence.length):
            sharp = shown_in_8_bits(sequence, sequence.sharp(window, window + 1)[0])
            for key, restored in restoring.items():
                values[key].append(psnr(next(restored)[1], sharp))
            work.did("widths", f"choosing short windows on {sequence.seq}")
    means = {key: statistics.fmean(each) for key, each in values.items()}
    return {name: max(widths, key=lambda width: means[name, width]) for name in names}


def _means(methods: Iterable[str], windows: Sequence[WindowScores]) -> dict[str, Score]:
    return {name: _mean([window.scores[name] for window in windows]) for name in methods}


def _mean(scores: Sequence[Score]) -> Score:
    perceptual = [score.lpips for score in scores if score.lpips is not None]
    return Score(
        statistics.fmean(score.psnr for score in scores),
        statistics.fmean(score.ssim for score in scores),
        statistics.fmean(perceptual) if perceptual else None,
    )
