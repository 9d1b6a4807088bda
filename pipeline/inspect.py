"""What a file or folder is, in a few facts: spikes, and every product of the pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..configs.schema.data import roots_of
from ..errors import SpikeDeblurError
from .host.files import StrPath
from .host.reporter import counted
from .spikes.dat import SPIKE_SUFFIXES
from .spikes.guess import LIKELY, guess_sizes
from .spikes.infer import likelier_order
from .spikes.mosaic import likely_orders, place_rates
from .spikes.parts import is_in_parts, is_stream, open_stream, stream_files
from .spikes.presets import NOT_PUBLISHED, PRESETS, parse_geometry
from .spikes.settings import first_known
from .spikes.sidefile import read_side_file
from .storage.locate import local_path

_MOST_GUESSES = 5
_MOST_VALIDATIONS = 20
_SAMPLED_FRAMES = 256
_CONFIG_SUFFIXES = (".yaml", ".yml")

Rows = list[tuple[str, ...]]


class InspectError(SpikeDeblurError):
    """A path is missing, or is nothing that spikedeblur knows."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file or folder is."""

    path: str
    kind: str
    """`spikes`, `sensor`, `manifest`, `log`, `store`, `run`, `checkpoint`, `model` or `config`."""
    facts: dict[str, Any]
    """Plain values by name, in the order in which they are printed."""
    table: Rows = field(default_factory=list)
    """Rows of the detailed part; the first is the heading. Empty where there is none."""
    geometry: str | None = None
    """SPEC of the likeliest geometry of spikes that have none; None: they have, or nothing shows
    it."""


def inspect(path: StrPath, geometry: str | None = None) -> Facts:
    """Recognise `path` by its name, a folder by what is in it, and describe it.

    Args:
        path: a `.dat`, a folder or pattern of the parts of one, a sensor's file, a manifest,
            alignment log, store, run folder, checkpoint, exported model or configuration; or the
            URL of a store.
        geometry: SPEC of a `.dat` without side file.

    Raises:
        InspectError: missing, or nothing of these.
    """
    found = local_path(path)
    if found is None:
        if Path(path).suffix.lower() in {*SPIKE_SUFFIXES, *_BY_SUFFIX}:
            raise InspectError(
                f"{path}: expected a store, the only thing that is looked into in a bucket; copy "
                "the file here first"
            )
        return _store(path)
    path = found
    # load_config also finds the package's configurations, which are no paths here.
    if not path.exists() and is_in_parts(path):
        return _spikes(path, geometry)
    if not path.exists() and path.suffix.lower() not in _CONFIG_SUFFIXES:
        raise InspectError(f"{path}: expected a file or folder, found none; check the path")
    suffix = path.suffix.lower()
    if path.is_dir():
        readers = {name: read for name, read in _BY_CONTENT.items() if (path / name).is_file()}
        if not readers and is_stream(path):
            return _spikes(path, geometry)
        if not readers:
            raise InspectError(
                f"{path}: expected a store (zarr.json), a run folder (config.yaml) or the parts of "
                "a recording (.dat), found none of them; name a file or folder in it"
            )
        return next(iter(readers.values()))(path)
    if suffix in SPIKE_SUFFIXES:
        return _spikes(path, geometry)
    if suffix not in _BY_SUFFIX:
        raise InspectError(
            f"{path}: expected a .dat or .bin, manifest (.json), alignment log (.txt), store, "
            "run folder, checkpoint (.pt), model (.safetensors) or configuration (.yaml), got "
            f"{path.suffix or 'no suffix'}; name one of these"
        )
    return _BY_SUFFIX[suffix](path)


def _spikes(path: Path, geometry: str | None) -> Facts:
    side = read_side_file(path)
    spec = geometry or (side.geometry if side else None)
    files = stream_files(path)
    facts: dict[str, Any] = {"bytes": sum(file.stat().st_size for file in files)}
    if len(files) > 1:
        facts["files"] = f"{len(files)}, {files[0].name} to {files[-1].name}"
    if spec is None:
        return _headerless(path, facts)
    spikes = open_stream(path, parse_geometry(spec))
    height, width = spikes.geometry.shape
    sampled = np.unique(np.linspace(0, spikes.n_frames - 1, _SAMPLED_FRAMES).astype(int))
    fired = sum(spikes.count_spikes(i, i + 1) for i in sampled.tolist())
    preset = PRESETS.get(geometry or "")
    rate = first_known(*(known.rate for known in (side, preset) if known is not None))
    gain = first_known(*(known.gain for known in (side, preset) if known is not None))
    unknown = f"{preset.rate_note}; say which: `restore --rate HZ`" if preset else "not recorded"
    mean = fired / (len(sampled) * height * width)
    facts |= {
        "geometry": spikes.geometry.describe(),
        "encoding": "one bit a pixel" if spikes.encoding == "packed" else "one byte a pixel",
        "frames": spikes.n_frames,
        "height x width": f"{height}x{width}",
        "rate (Hz)": rate if rate is not None else unknown,
        "duration (s)": spikes.n_frames / rate if rate is not None else "unknown",
        "gain": gain if gain is not None else "not recorded",
        f"spikes a sample (over {counted(len(sampled), 'frame')})": round(mean, 6),
    }
    if spikes.geometry.bayer is None:
        count = min(spikes.n_frames, _SAMPLED_FRAMES)
        rates = place_rates(spikes.counts(1, 0, count)[0]) / count
        if orders := likely_orders(rates):
            facts["colour filters"] = (
                f"likely: each 2x2 pixels fire at {', '.join(f'{rate:.3f}' for rate in rates)}; "
                f"give --geometry {spikes.geometry.describe()},bayer={orders[0]}, or {orders[1]} "
                "if its first red or blue pixel is blue"
            )
    likelier = likelier_order(path, spikes.geometry)
    if likelier is not None:
        name = "msb-first" if likelier.geometry.msb_first else "least significant bit first"
        facts["bit order"] = (
            f"{name} is likelier (likeness {likelier.likeness:.2f} against {likelier.stated:.2f}); "
            f"give --geometry {likelier.geometry.describe()}"
        )
    if side is not None and side.sensor is not None:
        facts["sensor"] = side.sensor
    if gain is not None:
        facts["mean luminance"] = round(mean / gain, 6)
    return Facts(str(path), "spikes", facts)


def _headerless(path: Path, facts: dict[str, Any]) -> Facts:
    """Describe spikes without a geometry by the sizes that they may have."""
    guesses = guess_sizes(path)
    shown = [g for g in guesses if g.source != "size" or g.likeness >= LIKELY][:_MOST_GUESSES]
    if not shown:
        facts["geometry"] = (
            "not recorded; neither a preset, nor numbers in its name, nor factors of its size "
            "make a picture of it: give --geometry HxW,bottom-up or HxW,top-down"
        )
        return Facts(str(path), "spikes", facts)
    best = shown[0]
    if best.likeness >= LIKELY:
        facts["geometry"] = "not recorded; these sizes make a picture, the likeliest first"
        facts["order of rows"] = (
            "does not show in a size; if `view` shows the picture upside down, write "
            f"{'top-down' if best.geometry.flip_rows else 'bottom-up'}"
        )
    else:
        facts["geometry"] = "not recorded; these sizes fit, but none makes a picture of it"
    rows = [
        (g.source, g.geometry.describe(), str(g.n_frames), _rate_of(g.source), f"{g.likeness:.3f}")
        for g in shown
    ]
    heading = ("preset, or from", "geometry", "samples", "rate (Hz)", "likeness")
    suggested = best.geometry.describe() if best.likeness >= LIKELY else None
    return Facts(str(path), "spikes", facts, [heading, *rows], suggested)


def _rate_of(source: str) -> str:
    """Return what is known of the rate of presets that share a size, in Hz."""
    presets = [PRESETS[name] for name in source.split("|") if name in PRESETS]
    rates = [f"{preset.rate:g}" if preset.rate else preset.rate_note for preset in presets]
    known = dict.fromkeys(rate for rate in rates if rate != NOT_PUBLISHED)
    return "; ".join(known) or (NOT_PUBLISHED if presets else "-")


def _manifest(path: Path) -> Facts:
    from .align.manifest import read_manifest

    manifest = read_manifest(path)
    rows: Rows = [("sequence", "windows", "spikes", "lag (samples)", "correlation")]
    for sequence in manifest.sequences:
        verified = sequence.verification
        lag = f"{verified.lag_frames:+.2f}" if verified else "-"
        correlation = f"{verified.correlation:.3f}" if verified else "-"
        spikes = sum(window.spike_count for window in sequence.windows)
        rows.append((sequence.seq, str(len(sequence.windows)), str(spikes), lag, correlation))
    facts = {
        "layout": manifest.layout,
        "root": str(manifest.root_folder(path)),
        "fps (Hz)": manifest.fps,
        "exposure (frames)": manifest.exposure_frames,
        "sequences": len(manifest.sequences),
        "windows": sum(len(sequence.windows) for sequence in manifest.sequences),
        "splits": ", ".join(sorted({sequence.split for sequence in manifest.sequences})),
    }
    sensors = {sequence.sensor.file for sequence in manifest.sequences if sequence.sensor}
    if sensors:
        facts["sensor"] = ", ".join(sorted(sensors))
    return Facts(str(path), "manifest", facts, rows)


def _log(path: Path) -> Facts:
    from .align.log import read_alignment_log

    log = read_alignment_log(path)
    windows = Counter(seq for seq, _ in log)
    lengths = [row.t1 - row.t0 for row in log.values()]
    facts: dict[str, Any] = {
        "sequences": len(windows),
        "windows": len(log),
        "spikes": sum(row.event_count for row in log.values()),
    }
    if lengths:
        facts["exposure (s)"] = f"{min(lengths):.6f} to {max(lengths):.6f}"
    rows = [(seq, str(count)) for seq, count in windows.items()]
    return Facts(str(path), "log", facts, [("sequence", "windows"), *rows])


def _zarr(path: Path) -> Facts:
    from .calibrate.sensor_file import is_sensor

    return _sensor(path) if is_sensor(path) else _store(path)


def _sensor(path: Path) -> Facts:
    from .calibrate.sensor_file import read_sensor

    record = read_sensor(path).record
    height, width = record.shape
    facts: dict[str, Any] = {"height x width": f"{height}x{width}", "version": record.version}
    for name, value in record.found.items():
        if value is not None:
            facts[name.replace("_", " ")] = float(f"{value:.4g}") if value % 1 else value
    for name, source in record.sources.items():
        facts[f"{name} recording"] = f"{source.name}, {counted(source.samples, 'sample')}"
    return Facts(str(path), "sensor", facts)


def _store(path: StrPath) -> Facts:
    from .sequences import open_store
    from .sequences.contract import sensor_of
    from .sequences.stored import splits_of
    from .storage.locate import open_storage

    sequences = open_store(path)
    storage = open_storage(path)
    rows: Rows = [("sequence", "windows", "voxels", "frames", "sharp", "gain")]
    for s in sequences:
        voxels = "x".join(map(str, (s.bins, *s.voxel_shape)))
        frames = "x".join(map(str, s.frame_shape))
        sharp = "yes" if s.has_sharp else "no"
        rows.append((s.seq, str(s.length), voxels, frames, sharp, str(s.gain)))
    facts = {
        "sequences": len(sequences),
        "windows": sum(s.length for s in sequences),
        "splits": ", ".join(sorted(set(splits_of(storage).values()))),
        "bytes": sum(storage.sizes().values()),
    }
    corrected = sum(sensor_of(s) is not None for s in sequences)
    if corrected:
        facts["sensor"] = f"in {counted(corrected, 'sequence')}"
    return Facts(str(path), "store", facts, rows)


def _run(path: Path) -> Facts:
    from .train.run.runs import read_run, summarise
    from .weights.base import base_of, describe_base
    from .weights.checkpoint import model_of, read_checkpoint
    from .weights.files import checkpoint_path
    from .weights.parts import describe_parts

    record = read_run(path)
    scores = summarise(record)
    facts: dict[str, Any] = {
        "steps": f"{scores.step} of {record.settings.get('TRAIN.MAX_STEPS') or 'all epochs'}",
        "training time (minutes)": round(scores.seconds / 60, 1),
        "data": ", ".join(roots_of(record.settings.get("DATA.ROOT"))),
    }
    if record.began_with is not None:
        facts["began with"] = record.began_with
    if (stable := checkpoint_path(path, "stable")).is_file():
        step = read_checkpoint(stable)["step"]
        facts["before the decay"] = f"stable.pt, step {step}: a longer run goes on from there"
    # A run that was stopped before its first validation has no best checkpoint yet.
    for which in ("best", "last"):
        file = checkpoint_path(path, which)
        if file.is_file():
            state = read_checkpoint(file)
            model, config = model_of(state, file)
            base = describe_base(config.MODEL, base_of(state))
            facts |= {"weights": f"{which}.pt, step {state['step']}", "base": base}
            facts |= describe_parts(config.MODEL)
            facts["parameters"] = sum(p.numel() for p in model.parameters())
            break
    else:
        facts["weights"] = "none yet"
    return Facts(str(path), "run", facts, _curve(record.metrics))


def _curve(metrics: Sequence[dict[str, Any]]) -> Rows:
    """Return a table of a run's validations, at most 20 that lie evenly, with the best."""
    validations = [line for line in metrics if line["kind"] == "val"]
    if not validations:
        return []
    even = np.linspace(0, len(validations) - 1, min(len(validations), _MOST_VALIDATIONS))
    best = max(range(len(validations)), key=lambda i: validations[i].get("psnr") or 0.0)
    rows: Rows = [("step", "dB", "over blur", "training loss", "learning rate")]
    for i in sorted({*even.astype(int).tolist(), best}):
        line = validations[i]
        psnr, blur = line.get("psnr"), line.get("psnr_blur")
        steps = [m for m in metrics if m["kind"] == "train" and m["step"] <= line["step"]]
        loss, rate = (steps[-1].get("loss"), steps[-1].get("lr")) if steps else (None, None)
        rows.append(
            (
                f"{line['step']}{' (best)' if i == best else ''}",
                "-" if psnr is None else f"{psnr:.2f}",
                "-" if psnr is None or blur is None else f"{psnr - blur:+.2f}",
                "-" if loss is None else f"{loss:.4f}",
                "-" if rate is None else f"{rate:.2g}",
            )
        )
    return rows


def _checkpoint(path: Path) -> Facts:
    from .weights.checkpoint import describe_checkpoint

    return Facts(str(path), "checkpoint", *describe_checkpoint(path))


def _model(path: Path) -> Facts:
    from .trained.model_file import load_trained
    from .weights.base import base_of, describe_base
    from .weights.exported import describe_model
    from .weights.parts import describe_parts

    model, config = load_trained(path)
    facts = describe_model(path)
    base = describe_base(config.MODEL, base_of(facts))
    facts |= {"data": ", ".join(roots_of(config.DATA.ROOT)), "base": base} | describe_parts(
        config.MODEL
    )
    return _with_parameters(path, "model", facts, model)


def _config(path: Path) -> Facts:
    from ..configs import load_config
    from ..model import outline_model
    from .weights.parts import describe_parts

    config = load_config(path)
    train = config.TRAIN
    facts = {
        "data": ", ".join(roots_of(config.DATA.ROOT)),
        "clip (windows)": config.DATA.CLIP_LEN,
        "crop (pixels)": config.DATA.CROP_SIZE,
        "bins": config.DATA.K,
        "normalisation": config.DATA.NORM.MODE,
        "trunk scale": config.MODEL.TRUNK_SCALE,
        "clips a step": train.BATCH_SIZE * train.GRADIENT_ACCUMULATION_STEPS,
        "length": counted(train.EPOCHS, "epoch")
        if train.MAX_STEPS is None
        else counted(train.MAX_STEPS, "step"),
    } | describe_parts(config.MODEL)
    return _with_parameters(path, "config", facts, outline_model(config))


def _with_parameters(path: Path, kind: str, facts: dict[str, Any], model: Any) -> Facts:
    """Return the facts with the number of the model's parameters, in all and by part."""
    from ..model import parameter_table

    facts["parameters"] = sum(p.numel() for p in model.parameters())
    rows = [(name, f"{count:,}") for name, count in parameter_table(model)]
    return Facts(str(path), kind, facts, [("part", "parameters"), *rows])


_BY_CONTENT: dict[str, Callable[[Path], Facts]] = {
    "zarr.json": _zarr,
    "config.yaml": _run,
}
"""Readers of folders, by a file in them."""

_BY_SUFFIX: dict[str, Callable[[Path], Facts]] = {
    **dict.fromkeys(_CONFIG_SUFFIXES, _config),
    **dict.fromkeys((".txt", ".csv", ".log"), _log),
    **dict.fromkeys((".pt", ".pth"), _checkpoint),
    ".json": _manifest,
    ".safetensors": _model,
}
"""Readers of files, by their suffix."""
