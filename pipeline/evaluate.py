"""The evaluate stage: how near each method comes to the sharp frames of a split.

Every method is run on the same windows, and what is compared is what would be saved: whole
frames of 8 bits (see `metrics`). The mean of a split is over its windows, not its sequences.
tfp and sdm get the width of short window that serves each best on the very split that is
evaluated: a baseline should be as strong as it can be.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..errors import SpikeDeblurError
from .files import atomic_write, sha256_file, write_text
from .methods import (
    SHORT_BINS,
    BlurMethod,
    Method,
    ModelMethod,
    SdmMethod,
    TfiMethod,
    TfpMethod,
    has_spikes,
    restored_frames,
)
from .metrics import Score, psnr, score
from .progress import Progress
from .store.provenance import blur_kinds, describe_data
from .store.sequence import WindowSequence
from .store_lag import NOTABLE, exposure_lag

FORMAT = "spikedeblur.evaluation"
SCHEMA_VERSION = 1

METHODS = ("blur", "tfp", "tfi", "sdm", "model")

_SOFTWARE = "spikedeblur"


class EvaluationError(SpikeDeblurError):
    """A split can't be evaluated as asked for, or the product can't be written."""


@dataclass(frozen=True, slots=True)
class WindowScores:
    """All methods' scores on one window."""

    seq: str
    frame_index: int
    scores: dict[str, Score]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The result; `to_json` is what is written."""

    methods: dict[str, Score]
    """Mean over all windows."""
    sequences: dict[str, dict[str, Score]]
    """Mean over each sequence's windows."""
    windows: tuple[WindowScores, ...]
    store: str
    data_sha256: str
    """Of the split, as `describe_data` gives it."""
    run: str | None
    checkpoint_sha256: str | None
    split: str
    blur_kind: str | None
    """Which of the data set's blurred frames: GoPro's blur or blur_gamma do not compare."""
    tfp_bins: int | None
    """Width of TFP's short window; None: not evaluated."""
    sdm_bins: int | None
    tile: int | None
    """Side of the model's tiles in pixels; None: whole frames, or no model."""
    gain_estimated: tuple[str, ...]
    """Sequences without a recorded gain: tfp and sdm take it from the blurred frames."""
    lags: dict[str, float | None]
    """By how much of the exposure each sequence's spikes come late; None: it can't be told."""

    @property
    def misaligned(self) -> dict[str, float]:
        """The sequences whose spikes are notably early or late, with their lags."""
        return {seq: lag for seq, lag in self.lags.items() if lag and abs(lag) > NOTABLE}

    def interval(self, method: str, over: str | None = None) -> tuple[float, float] | None:
        """Return the 95 % interval of a method's mean PSNR in dB, or of its gain `over` another.

        Sequences are drawn anew with their windows, which are too alike to be drawn one by one
        (percentile bootstrap, 2,000 draws, always the same). None for a single sequence.
        """
        if len(self.sequences) < 2:
            return None
        values: dict[str, list[float]] = {seq: [] for seq in self.sequences}
        for window in self.windows:
            below = window.scores[over].psnr if over is not None else 0.0
            values[window.seq].append(window.scores[method].psnr - below)
        sums = np.array([[sum(found), len(found)] for found in values.values()])
        drawn = np.random.default_rng(0).integers(len(sums), size=(2000, len(sums)))
        totals = sums[drawn].sum(1)  # (draws, 2)
        low, high = np.percentile(totals[:, 0] / totals[:, 1], (2.5, 97.5))
        return float(low), float(high)

    def windows_of(self, seq: str) -> int:
        """Return how many windows a sequence has."""
        return sum(window.seq == seq for window in self.windows)

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "methods": {name: asdict(mean) for name, mean in self.methods.items()},
            "sequences": {
                seq: {name: asdict(mean) for name, mean in scores.items()}
                for seq, scores in self.sequences.items()
            },
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "store": self.store,
            "data_sha256": self.data_sha256,
            "run": self.run,
            "checkpoint_sha256": self.checkpoint_sha256,
            "split": self.split,
            "blur_kind": self.blur_kind,
            "windows": len(self.windows),
            "sequence_windows": {seq: self.windows_of(seq) for seq in self.sequences},
            "tfp_bins": self.tfp_bins,
            "sdm_bins": self.sdm_bins,
            "tile": self.tile,
            "gain_estimated": list(self.gain_estimated),
            "psnr_interval": {name: self.interval(name) for name in self.methods},
            "psnr_gain_over_blur_interval": {
                name: self.interval(name, "blur")
                for name in self.methods
                if "blur" in self.methods and name != "blur"
            },
            "lag_in_exposures": self.lags,
            "frames": [
                {
                    "seq": window.seq,
                    "frame": window.frame_index,
                    **{name: asdict(found) for name, found in window.scores.items()},
                }
                for window in self.windows
            ],
            "mean_over": "windows",
            "metrics": "8-bit RGB, no border cropped; SSIM with an 11-pixel Gaussian, sigma 1.5",
        }


def evaluate(
    store: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    split: str = "test",
    methods: Sequence[str] | None = None,
    tile: int | None = None,
    device: str | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate methods on one split of a store.

    Args:
        store: a Zarr store with sharp frames.
        run: a run folder or an exported model, for `model`.
        split: train, val or test.
        methods: names; None: blur, tfp, sdm, tfi where the store has the spikes themselves, and
            model where there is a run.
        tile: as in `ModelMethod`.
        device: a torch device for the model; None: the GPU where there is one.
        on_progress: told after each window of each method.

    Raises:
        EvaluationError: an unknown method, `model` without a run, no sharp frames.
        SpikeDeblurError: no such split (says which there are), a store or run that is not whole.
    """
    from .store.reader import open_store

    names = checked_methods(methods, has_run=run is not None)
    sequences = open_store(store, split)
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
    model = (
        ModelMethod.from_run(run, tile=tile, device=device) if "model" in names and run else None
    )
    return evaluate_sequences(
        sequences,
        names,
        model=model,
        store=os.fspath(store),
        run=os.fspath(run) if model is not None and run is not None else None,
        split=split,
        on_progress=on_progress,
    )


def checked_methods(methods: Sequence[str] | None, *, has_run: bool) -> tuple[str, ...]:
    """Return the methods to evaluate, each once.

    Raises:
        EvaluationError: an unknown one, or `model` without a run.
    """
    if methods is None:
        return METHODS if has_run else METHODS[:-1]
    names = tuple(dict.fromkeys(methods))
    for name in names:
        if name not in METHODS:
            raise EvaluationError(f"expected methods among {', '.join(METHODS)}, got {name!r}")
    if not names:
        raise EvaluationError(f"expected methods among {', '.join(METHODS)}, got none")
    if "model" in names and not has_run:
        raise EvaluationError(
            "the method model needs a trained one; give --run DIR or --model small"
        )
    return names


def evaluate_sequences(
    sequences: Sequence[WindowSequence],
    methods: Sequence[str],
    *,
    model: ModelMethod | None = None,
    store: str = "",
    run: str | None = None,
    split: str = "",
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate checked methods on sequences that are already open; see `evaluate`."""
    n_windows = sum(sequence.length for sequence in sequences)
    widths = [width for width in SHORT_BINS if width <= min(s.bins for s in sequences)]
    searches = [name for name in ("tfp", "sdm") if name in methods]
    steps = n_windows * (len(methods) + len(searches) * len(widths))
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
    if "model" in methods:
        assert model is not None, "checked_methods lets model pass only with a run"
        ready["model"] = model

    windows = []
    for sequence in sequences:
        scores: list[dict[str, Score]] = [{} for _ in range(sequence.length)]
        for name in methods:
            for window, frame in restored_frames(ready[name], sequence):
                scores[window][name] = score(frame, sequence.sharp(window, window + 1)[0])
                step(f"{name} on {sequence.seq}")
        windows += [
            WindowScores(sequence.seq, int(sequence.frame_index[i]), of_window)
            for i, of_window in enumerate(scores)
        ]
    tiles = {model.tile_side(s.frame_shape) for s in sequences} if model and run else {None}
    return Evaluation(
        methods=_means(methods, windows),
        sequences={
            sequence.seq: _means(methods, [w for w in windows if w.seq == sequence.seq])
            for sequence in sequences
        },
        windows=tuple(windows),
        store=store,
        data_sha256=describe_data(sequences)["sha256"],
        run=run,
        checkpoint_sha256=_checkpoint_hash(run),
        split=split,
        blur_kind=next(iter(blur_kinds(sequences)), None),
        tfp_bins=tfp.short_bins if "tfp" in methods else None,
        sdm_bins=sdm.short_bins if "sdm" in methods else None,
        tile=max((side for side in tiles if side is not None), default=None),
        gain_estimated=tuple(s.seq for s in sequences if s.gain is None and searches),
        lags={s.seq: exposure_lag(s) if s.windows_are_raw else None for s in sequences},
    )


def write_evaluation(
    path: str | os.PathLike[str], evaluation: Evaluation, *, overwrite: bool = False
) -> None:
    """Write the evaluation as JSON, atomically; a former one is replaced.

    Raises:
        EvaluationError: there is another file of that name, and `overwrite` is not set.
    """
    require_own_json(path, overwrite=overwrite)
    write_text(path, json.dumps(evaluation.to_json(), indent=2, allow_nan=False) + "\n")


def require_own_json(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse to replace a file that is no evaluation, before any work is done.

    Raises:
        EvaluationError: there is one, and `overwrite` is not set; or a folder of that name.
    """

    def is_own(path: Path) -> bool:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return False
        return isinstance(found, dict) and found.get("format") == FORMAT

    _require_own(Path(path), is_own, "an evaluation", overwrite)


def require_own_picture(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse to replace a picture that `before_after` did not write.

    Raises:
        EvaluationError: there is one, and `overwrite` is not set; or the name is not of a PNG.
    """
    from PIL import Image

    def is_own(path: Path) -> bool:
        try:
            with Image.open(path, formats=("PNG",)) as image:
                return str(image.info.get("Software", "")).startswith(_SOFTWARE)
        except (OSError, ValueError, SyntaxError):
            return False

    if Path(path).suffix.lower() != ".png":
        raise EvaluationError(f"{path}: expected a name that ends in .png")
    _require_own(Path(path), is_own, "a picture", overwrite)


def before_after(
    store: str | os.PathLike[str],
    run: str | os.PathLike[str] | None,
    split: str,
    out_png: str | os.PathLike[str],
    *,
    evaluation: Evaluation | None = None,
    tile: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> WindowScores:
    """Write blur | SDM | model | sharp side by side, with PSNR above each.

    The window shown is the one whose gain over the blurred frame, by the model (by SDM where
    there is no run), is the median of the split: neither the best nor the worst.

    Args:
        store: as in `evaluate`.
        run: as in `evaluate`; None: the picture has no model.
        split: as in `evaluate`.
        out_png: the picture; a former one is replaced.
        evaluation: of the same store, run and split, with blur, sdm and model, so that nothing
            is computed twice; None: it is made.
        tile: as in `ModelMethod`.
        device: as in `evaluate`.
        overwrite: replace any file of that name.

    Returns:
        The window shown, with its scores.

    Raises:
        EvaluationError: as `evaluate` and `require_own_picture`.
    """
    from .store.reader import open_store

    require_own_picture(out_png, overwrite=overwrite)
    names = ("blur", "sdm", "model") if run is not None else ("blur", "sdm")
    if evaluation is None or not set(names) <= evaluation.methods.keys():
        evaluation = evaluate(store, run=run, split=split, methods=names, tile=tile, device=device)
    shown = median_window(evaluation, names[-1])
    sequence = next(s for s in open_store(store, split) if s.seq == shown.seq)
    window = int(np.flatnonzero(np.asarray(sequence.frame_index) == shown.frame_index)[0])
    assert evaluation.sdm_bins is not None
    methods: list[Method] = [BlurMethod(), SdmMethod(evaluation.sdm_bins)]
    if run is not None:
        methods.append(ModelMethod.from_run(run, tile=tile, device=device))
    panels = []
    for method in methods:
        frame = next(f for i, f in restored_frames(method, sequence, lambda i: i == window))
        panels.append((f"{method.name} {shown.scores[method.name].psnr:.2f} dB", frame))
    panels.append(("sharp", sequence.sharp(window, window + 1)[0]))
    _write_picture(Path(out_png), panels)
    return shown


def median_window(evaluation: Evaluation, method: str) -> WindowScores:
    """Return the window whose PSNR gain over blur is the median (the lower of two)."""
    gains = [w.scores[method].psnr - w.scores["blur"].psnr for w in evaluation.windows]
    return evaluation.windows[gains.index(statistics.median_low(gains))]


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
    return {
        name: Score(
            statistics.fmean(window.scores[name].psnr for window in windows),
            statistics.fmean(window.scores[name].ssim for window in windows),
        )
        for name in methods
    }


def _checkpoint_hash(run: str | None) -> str | None:
    if run is None:
        return None
    from .trained import weights_file

    return sha256_file(weights_file(run))


def _require_own(path: Path, is_own: Callable[[Path], bool], what: str, overwrite: bool) -> None:
    if path.is_dir():
        raise EvaluationError(f"{path}: expected a file's name, found a folder")
    if path.exists() and not overwrite and not is_own(path):
        raise EvaluationError(
            f"{path}: there is a file that is not {what} of ours; choose another name, or give "
            "--overwrite"
        )


_CAPTION_ROWS = 18
_GAP = 4
_SMALLEST_PANEL = 160


def _write_picture(path: Path, panels: Sequence[tuple[str, npt.NDArray[np.uint8]]]) -> None:
    """Write panels side by side with captions above; small frames are enlarged by whole pixels."""
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    height, width = panels[0][1].shape[:2]
    zoom = -(-_SMALLEST_PANEL // width)
    height, width = height * zoom, width * zoom
    picture = Image.new(
        "RGB", (len(panels) * (width + _GAP) - _GAP, height + _CAPTION_ROWS), (255, 255, 255)
    )
    draw = ImageDraw.Draw(picture)
    for i, (caption, frame) in enumerate(panels):
        x = i * (width + _GAP)
        draw.text((x + 3, 3), caption, fill=(0, 0, 0))
        panel = Image.fromarray(np.ascontiguousarray(frame))
        picture.paste(panel.resize((width, height), Image.Resampling.NEAREST), (x, _CAPTION_ROWS))
    mark = PngInfo()
    mark.add_text("Software", f"{_SOFTWARE} {__version__}")
    with atomic_write(path) as aside:
        picture.save(aside, format="PNG", pnginfo=mark)
