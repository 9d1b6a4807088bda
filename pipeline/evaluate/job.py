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
from dataclasses import replace
from typing import TYPE_CHECKING

from ..host.files import sha256_file
from ..host.reporter import Progress
from ..methods.contract import Method, restored_frames
from ..methods.tfp_tfi_sdm import SHORT_BINS, BlurMethod, SdmMethod, TfiMethod, TfpMethod
from ..sequences.contract import WindowSequence, has_spikes
from ..sequences.lag import exposure_lag
from ..sequences.provenance import blur_kinds, describe_data
from .lpips import Backbone, Lpips
from .metrics import Score, psnr, score
from .motion import MotionMeter
from .protocols import protocol_split, require_protocol
from .scores import Evaluation, EvaluationError, WindowScores

if TYPE_CHECKING:
    from ..methods.network import ModelMethod

METHODS = ("blur", "tfp", "tfi", "sdm", "path", "rgb", "model")

_TRAINED = {
    "model": "a trained one; give --run DIR or --model small",
    "rgb": "a model trained without spikes (MODEL.USE_SPIKE=false); give --control RUN",
}


def evaluate(
    store: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    control: str | os.PathLike[str] | None = None,
    split: str | None = None,
    methods: Sequence[str] | None = None,
    protocol: str | None = None,
    lpips: Backbone | None = None,
    motion: bool = False,
    tile: int | None = None,
    flips: bool = False,
    device: str | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate methods on one split of a store.

    Args:
        store: a Zarr store with sharp frames.
        run: a run folder or an exported model, for `model`.
        control: a run folder or an exported model that sees no spikes, for `rgb`.
        split: train, val or test; None: the protocol's, else test.
        methods: names; None: all that can be; tfi needs a store with the spikes themselves.
        protocol: one of `evaluate.protocols.PROTOCOLS`; other data than its are refused.
        lpips: backbone of LPIPS; None: not measured.
        motion: measure by motion, too, and how steady the frames are.
        tile: as in `ModelMethod`.
        flips: as in `ModelMethod`.
        device: a torch device for the model; None: the GPU where there is one.
        on_progress: told after each window of each method.

    Raises:
        EvaluationError: an unknown method, `model` without a run, no sharp frames.
        SpikeDeblurError: no such split (says which there are), a store or run that is not whole,
            another protocol's data, no weights for LPIPS, no OpenCV for motion.
    """
    from ..sequences.stored import open_store
    from ..trained.model_file import source_name

    given = {"model": run, "rgb": control}
    names = checked_methods(methods, given={name for name, source in given.items() if source})
    perceptual = Lpips(lpips, device) if lpips is not None else None
    meter = MotionMeter() if motion else None
    split = split or (protocol_split(protocol) if protocol else "test")
    sequences = open_store(store, split)
    if protocol is not None:
        require_protocol(protocol, split, sequences)
    without = [sequence.seq for sequence in sequences if not sequence.has_sharp]
    if without:
        raise EvaluationError(
            f"{store}: {', '.join(without[:5])}{' and more' if len(without) > 5 else ''}: no "
            "sharp frames to compare with; `spikedeblur restore` needs none"
        )
    kinds = blur_kinds(sequences)
    if len(kinds) > 1:
        raise EvaluationError(
            f"{store}: {' and '.join(kinds)} are mixed in the split {split}, and results on them "
            "do not compare; keep them in separate stores"
        )
    without = [sequence.seq for sequence in sequences if not has_spikes(sequence)]
    if methods is None and without:
        names = tuple(name for name in names if name != "tfi")
    elif "tfi" in names and without:
        raise EvaluationError(
            f"{store}: tfi needs the instants of single spikes, and {without[0]} is stored as "
            "counts in bins; use tfp, or voxelize again with --kind packed"
        )
    trained = {
        name: _opened(source, tile, flips, device)
        for name, source in given.items()
        if name in names and source is not None
    }
    if "rgb" in trained and trained["rgb"].config.MODEL.USE_SPIKE:
        raise EvaluationError(
            f"{control}: expected a model trained without spikes (MODEL.USE_SPIKE=false) as "
            "--control, found one with; give it as --run"
        )
    evaluation = evaluate_sequences(
        sequences,
        names,
        trained=trained,
        lpips=perceptual,
        meter=meter,
        on_progress=on_progress,
    )
    return replace(
        evaluation,
        store=os.fspath(store),
        split=split,
        protocol=protocol,
        lpips_backbone=lpips,
        flips=flips and bool(trained),
        run=source_name(run) if run is not None and "model" in trained else None,
        control=source_name(control) if control is not None and "rgb" in trained else None,
        checkpoint_sha256=_checkpoint_hash(run if "model" in trained else None),
    )


def checked_methods(methods: Sequence[str] | None, *, given: set[str]) -> tuple[str, ...]:
    """Return the methods to evaluate, each once.

    Args:
        methods: names; None: all but those that need a model that is not given.
        given: which of `model` and `rgb` there is a trained model for.

    Raises:
        EvaluationError: an unknown one, or one that needs a model that is not given.
    """
    if methods is None:
        return tuple(name for name in METHODS if name not in _TRAINED or name in given)
    names = tuple(dict.fromkeys(methods))
    for name in names:
        if name not in METHODS:
            raise EvaluationError(f"expected methods among {', '.join(METHODS)}, got {name!r}")
        if name in _TRAINED and name not in given:
            raise EvaluationError(f"the method {name} needs {_TRAINED[name]}")
    if not names:
        raise EvaluationError(f"expected methods among {', '.join(METHODS)}, got none")
    return names


def _opened(
    run: str | os.PathLike[str], tile: int | None, flips: bool, device: str | None
) -> ModelMethod:
    from ..methods.network import ModelMethod

    return ModelMethod.from_run(run, tile=tile, flips=flips, device=device)


def evaluate_sequences(
    sequences: Sequence[WindowSequence],
    methods: Sequence[str],
    *,
    trained: Mapping[str, ModelMethod] | None = None,
    lpips: Lpips | None = None,
    meter: MotionMeter | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate checked methods on sequences that are already open; see `evaluate`.

    Args:
        sequences: with sharp frames.
        methods: names, as `checked_methods` gives them.
        trained: the networks of `model` and `rgb`.
        lpips: measured too, where given.
        meter: told all windows, where given.
        on_progress: told after each window.
    """
    trained = trained or {}
    n_windows = sum(sequence.length for sequence in sequences)
    widths = [width for width in SHORT_BINS if width <= min(s.bins for s in sequences)]
    searches = [name for name in ("tfp", "sdm") if name in methods]
    steps = n_windows * (1 + len(searches) * len(widths))
    done = 0

    def step(note: str) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, steps, note)

    ready: dict[str, Method] = {"blur": BlurMethod()}
    if "tfp" in methods:
        ready["tfp"] = tfp = TfpMethod(_best_width(TfpMethod, sequences, widths, step))
    if "tfi" in methods:
        ready["tfi"] = TfiMethod()
    if "sdm" in methods:
        ready["sdm"] = sdm = SdmMethod(_best_width(SdmMethod, sequences, widths, step))
    if "path" in methods:
        from ..methods.path import PathMethod

        ready["path"] = PathMethod()
    ready |= trained

    windows = []
    for sequence in sequences:
        if meter is not None:
            meter.begin_sequence()
        restoring = {name: restored_frames(ready[name], sequence) for name in methods}
        for window in range(sequence.length):
            sharp = sequence.sharp(window, window + 1)[0]
            frames = {name: next(frames)[1] for name, frames in restoring.items()}
            scores = {name: score(frame, sharp) for name, frame in frames.items()}
            if lpips is not None:
                scores = {
                    name: replace(found, lpips=lpips(frames[name], sharp))
                    for name, found in scores.items()
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
        tfp_bins=tfp.short_bins if "tfp" in methods else None,
        sdm_bins=sdm.short_bins if "sdm" in methods else None,
        tile=max((side for side in tiles if side is not None), default=None),
        gain_estimated=tuple(s.seq for s in sequences if s.gain is None and searches),
        lags={s.seq: exposure_lag(s) if s.windows_are_raw else None for s in sequences},
        motion=meter.scores() if meter is not None else {},
    )


def _best_width(
    method: Callable[[int], Method],
    sequences: Sequence[WindowSequence],
    widths: Sequence[int],
    step: Callable[[str], None],
) -> int:
    """Return the width with the highest mean PSNR over all windows; of equals the smaller."""
    means = []
    for width in widths:
        values = []
        for sequence in sequences:
            for window, frame in restored_frames(method(width), sequence):
                values.append(psnr(frame, sequence.sharp(window, window + 1)[0]))
                step(f"window of {width} bins on {sequence.seq}")
        means.append(statistics.fmean(values))
    return widths[means.index(max(means))]


def _means(methods: Iterable[str], windows: Sequence[WindowScores]) -> dict[str, Score]:
    found = {name: [window.scores[name] for window in windows] for name in methods}
    return {
        name: Score(
            statistics.fmean(one.psnr for one in scores),
            statistics.fmean(one.ssim for one in scores),
            _mean_where_measured([one.lpips for one in scores]),
        )
        for name, scores in found.items()
    }


def _mean_where_measured(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return statistics.fmean(measured) if measured else None


def _checkpoint_hash(run: str | os.PathLike[str] | None) -> str | None:
    if run is None:
        return None
    from ..trained.model_file import weights_file

    return sha256_file(weights_file(run))
