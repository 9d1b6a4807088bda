"""Figures, the choice of the short window, what is written, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikedeblur.configs import load_config
from spikedeblur.configs.schema import Config
from spikedeblur.model import build_model
from spikedeblur.model.motion_deblur import sharp_along_motion
from spikedeblur.pipeline.evaluate import job
from spikedeblur.pipeline.evaluate import picture as pictures
from spikedeblur.pipeline.evaluate import scores as product
from spikedeblur.pipeline.evaluate.metrics import psnr, ssim
from spikedeblur.pipeline.host.overwrite import OverwriteError
from spikedeblur.pipeline.host.reporter import Reporter
from spikedeblur.pipeline.methods import exposures, network
from spikedeblur.pipeline.methods.contract import MethodError, restored_frames
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.methods.tfp_tfi_sdm import SHORT_BINS, SdmMethod
from spikedeblur.pipeline.spikes import spike_to_voxel


@dataclass
class Windows:
    """A sequence held in memory."""

    seq: str
    blur_frames: np.ndarray
    sharp_frames: np.ndarray
    counts: np.ndarray
    samples: np.ndarray
    frame_index: np.ndarray
    gain: float | None
    windows_are_raw: bool = True
    is_remote: bool = False
    has_spikes: bool = False
    has_sharp: bool = True

    length = property(lambda self: len(self.blur_frames))
    t0 = property(lambda self: self.frame_index / 1000)
    t1 = property(lambda self: self.frame_index / 1000 + 0.032)
    bins = property(lambda self: self.counts.shape[1])
    frame_shape = property(lambda self: self.blur_frames.shape[1:3])
    voxel_shape = property(lambda self: self.counts.shape[2:])

    def voxels(self, start: int, stop: int, rows: Any = None, columns: Any = None) -> np.ndarray:
        return self.counts[start:stop, :, slice(*(rows or (None,))), slice(*(columns or (None,)))]

    def blur(self, start: int, stop: int, rows: Any = None, columns: Any = None) -> np.ndarray:
        return self.blur_frames[start:stop, slice(*(rows or (None,))), slice(*(columns or (None,)))]

    def sharp(self, start: int, stop: int, rows: Any = None, columns: Any = None) -> np.ndarray:
        return self.sharp_frames[start:stop]


class SpikeShift(torch.nn.Module):
    """A stand-in for the network that shows what reaches it: rgb plus the mean voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Size, torch.Size]] = []

    def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
        self.seen.append((rgb.shape, voxels.shape))
        mean = voxels.mean(2)  # (B, T, h, w)
        mean = mean.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return rgb + 0.1 * mean[:, :, None]


@pytest.fixture(scope="module")
def sequences(moving_scene) -> list[Windows]:
    spikes = moving_scene.spikes.astype(np.uint8)
    spans = [moving_scene.span(i) for i in range(3)]
    counts = np.stack([spike_to_voxel(spikes[a:b], 32).astype(np.uint8) for a, b in spans])

    def part(seq: str, which: slice) -> Windows:
        return Windows(
            seq,
            moving_scene.blur[which],
            moving_scene.sharp[which],
            counts[which],
            np.array([b - a for a, b in spans])[which],
            np.array(moving_scene.centres)[which],
            moving_scene.gain,
        )

    return [part("test/a/one", slice(0, 1)), part("test/a/two", slice(1, 3))]


def model_method(model: torch.nn.Module, clip_len: int = 2, **keywords: Any) -> ModelMethod:
    config = Config.model_validate({"DATA": {"CLIP_LEN": clip_len}})
    return ModelMethod(model, config, device="cpu", **keywords)


def test_means_are_over_windows_and_match_the_metrics(sequences) -> None:
    result = job.evaluate_sequences(sequences, ("blur", "tfp", "sdm"))
    every = [(s, i) for s in sequences for i in range(s.length)]
    blur = [psnr(s.blur_frames[i], s.sharp_frames[i]) for s, i in every]
    assert result.methods["blur"].psnr == pytest.approx(np.mean(blur))
    assert result.sequences["test/a/two"]["blur"].psnr == pytest.approx(np.mean(blur[1:]))
    similar = [ssim(s.blur_frames[i], s.sharp_frames[i]) for s, i in every]
    assert result.methods["blur"].ssim == pytest.approx(np.mean(similar))
    assert [w.frame_index for w in result.windows] == [16, 31, 46]
    assert result.methods["sdm"].psnr > result.methods["blur"].psnr + 3


def test_short_window_is_the_best_by_mean_psnr(sequences) -> None:
    result = job.evaluate_sequences(sequences, ("sdm",))
    means = {
        width: np.mean(
            [
                psnr(frame, s.sharp_frames[i])
                for s in sequences
                for i, frame in restored_frames(SdmMethod(width), s)
            ]
        )
        for width in SHORT_BINS
    }
    assert result.sdm_bins == max(means, key=lambda width: means[width])
    assert result.methods["sdm"].psnr == pytest.approx(means[result.sdm_bins])
    assert result.tfp_bins is None


def test_json_holds_figures_and_origin(sequences, tmp_path: Path) -> None:
    result = replace(
        job.evaluate_sequences(sequences, ("blur", "sdm")), store="my.zarr", split="test"
    )
    path = tmp_path / "out" / "evaluation.json"
    product.write_evaluation(path, result)
    found = json.loads(path.read_text())
    assert found["methods"].keys() == {"blur", "sdm"}
    assert found["methods"]["blur"].keys() == {"psnr", "ssim"}
    assert found["sequences"]["test/a/one"]["sdm"].keys() == {"psnr", "ssim"}
    assert (found["store"], found["run"], found["split"]) == ("my.zarr", None, "test")
    assert found["sdm_bins"] in SHORT_BINS
    assert found["windows"] == 3
    assert found["sequence_windows"] == {"test/a/one": 1, "test/a/two": 2}
    assert found["version"]


def test_intervals_draw_sequences_and_not_windows(sequences) -> None:
    found = job.evaluate_sequences(sequences, ("blur", "sdm"))
    low, high = found.interval("sdm")
    means = [scores["sdm"].psnr for scores in found.sequences.values()]
    assert min(means) <= low < found.methods["sdm"].psnr < high <= max(means)
    assert found.interval("sdm") == (low, high)
    gain = found.interval("sdm", "blur")
    assert gain[0] <= found.methods["sdm"].psnr - found.methods["blur"].psnr <= gain[1]
    assert job.evaluate_sequences(sequences[:1], ("blur",)).interval("blur") is None
    assert len(found.to_json()["frames"]) == len(found.windows)
    assert found.to_json()["psnr_interval"]["sdm"] == (low, high)


def test_spikes_that_come_late_are_reported(sequences) -> None:
    assert job.evaluate_sequences(sequences, ("blur",)).misaligned == {}
    late = [replace(one, counts=np.roll(one.counts, 4, axis=1)) for one in sequences]
    found = job.evaluate_sequences(late, ("blur",)).misaligned
    assert found == {one.seq: pytest.approx(4 / 32, abs=0.02) for one in sequences}


def test_identical_frames_still_give_valid_json(sequences, tmp_path: Path) -> None:
    one = sequences[0]
    same = Windows(
        one.seq, one.sharp_frames, one.sharp_frames, one.counts, one.samples, one.frame_index, 0.5
    )
    product.write_evaluation(tmp_path / "e.json", job.evaluate_sequences([same], ("blur",)))
    assert json.loads((tmp_path / "e.json").read_text())["methods"]["blur"]["psnr"] == 100.0


def test_json_replaces_only_its_own(sequences, tmp_path: Path) -> None:
    result = job.evaluate_sequences(sequences[:1], ("blur",))
    path = tmp_path / "e.json"
    product.write_evaluation(path, result)
    product.write_evaluation(path, result)
    for foreign in ('{"methods": {}}', "[1]", "not json"):
        path.write_text(foreign)
        with pytest.raises(OverwriteError, match="expected an evaluation"):
            product.write_evaluation(path, result)
        assert path.read_text() == foreign
    product.write_evaluation(path, result, overwrite=True)
    assert json.loads(path.read_text())["format"] == product.EVALUATION.name
    with pytest.raises(OverwriteError, match="folder"):
        product.require_own_json(tmp_path, overwrite=True)


def test_wrong_methods_are_refused() -> None:
    def checked(methods: list[str] | None, *, run: str | None = None) -> tuple[str, ...]:
        return job.checked_methods(methods, run=run, control=None)

    assert checked(None, run="run") == ("blur", "tfp", "tfi", "sdm", "path", "model")
    assert checked(["sdm", "sdm"]) == ("sdm",)
    with pytest.raises(product.EvaluationError, match="--run"):
        checked(["model"])
    with pytest.raises(product.EvaluationError, match="--control"):
        checked(["rgb"], run="run")
    with pytest.raises(product.EvaluationError, match="'sdn'"):
        checked(["sdn"])
    with pytest.raises(product.EvaluationError, match="'none'"):
        checked([])


def test_model_sees_whole_frames_and_normalised_counts(sequences) -> None:
    network = SpikeShift()
    two = sequences[1]
    frames = dict(restored_frames(model_method(network), two))
    assert network.seen == [((1, 2, 3, 96, 96), (1, 2, 32, 48, 48))]
    added = 0.1 * np.log1p(two.counts.astype(np.float32)).mean(axis=1)
    expected = two.blur_frames / 255 + added.repeat(2, 1).repeat(2, 2)[..., None]
    for i, frame in frames.items():
        np.testing.assert_allclose(frame / 255, np.clip(expected[i], 0, 1), atol=0.51 / 255)


def test_tiles_see_the_same_places_of_frame_and_spikes(sequences) -> None:
    # The stand-in works pixel by pixel, so tiles must give what whole frames give.
    whole = dict(restored_frames(model_method(SpikeShift()), sequences[1]))
    network = SpikeShift()
    tiled = dict(restored_frames(model_method(network, tile=32), sequences[1]))
    assert len(network.seen) > 4
    for i, frame in whole.items():
        assert np.abs(frame.astype(int) - tiled[i]).max() <= 1
    one = dict(restored_frames(model_method(SpikeShift(), tile=96), sequences[1]))
    assert all(np.array_equal(one[i], whole[i]) for i in whole)


def test_tiles_go_through_the_network_together_where_memory_allows(sequences, monkeypatch) -> None:
    def together(first: Any, device: torch.device) -> int:
        first()
        return 3

    alone, several = SpikeShift(), SpikeShift()
    expected = list(restored_frames(model_method(alone, tile=32), sequences[1]))
    monkeypatch.setattr(network, "tiles_at_once", together)
    found = list(restored_frames(model_method(several, tile=32), sequences[1]))
    for (_, frame), (_, other) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(frame, other)
    numbers = [rgb[0] for rgb, _ in several.seen]
    assert (numbers[:3], max(numbers)) == ([1, 3, 3], 3)
    assert sum(numbers) == len(alone.seen)


def test_mirrored_copies_are_restored_and_mirrored_back(sequences) -> None:
    """The stand-in works pixel by pixel, so the mean of its copies is what one gives."""
    plain = dict(restored_frames(model_method(SpikeShift()), sequences[1]))
    network = SpikeShift()
    mirrored = dict(restored_frames(model_method(network, flips=True), sequences[1]))
    assert len(network.seen) == 4
    for i, frame in plain.items():
        assert np.abs(frame.astype(int) - mirrored[i]).max() <= 1

    class Leftmost(torch.nn.Module):
        def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
            return rgb[..., :1].expand_as(rgb)

    one = sequences[0].blur_frames[0].astype(float)
    sides = (one[:, :1] + one[:, -1:]) / 2
    frame = next(f for _, f in restored_frames(model_method(Leftmost(), flips=True), sequences[0]))
    np.testing.assert_allclose(frame, np.broadcast_to(sides, one.shape), atol=0.51)


def test_a_tile_that_is_given_is_taken() -> None:
    assert model_method(SpikeShift(), tile=0).tile_side((720, 1280), 3) is None
    assert model_method(SpikeShift(), tile=128).tile_side((256, 256), 3) == 128


def test_a_store_of_other_bins_than_the_model_is_refused(sequences) -> None:
    one = sequences[0]
    coarse = Windows(
        one.seq,
        one.blur_frames,
        one.sharp_frames,
        one.counts[:, :16],
        one.samples,
        one.frame_index,
        1,
    )
    with pytest.raises(MethodError, match="32 bins"):
        list(restored_frames(model_method(SpikeShift()), coarse))


def test_log1p_voxels_go_to_a_log1p_model_untouched_and_to_no_other(sequences) -> None:
    one = sequences[1]
    done = Windows(
        one.seq,
        one.blur_frames,
        one.sharp_frames,
        np.log1p(one.counts.astype(np.float32)),
        one.samples,
        one.frame_index,
        one.gain,
        windows_are_raw=False,
    )
    raw = dict(restored_frames(model_method(SpikeShift()), one))
    for i, frame in restored_frames(model_method(SpikeShift()), done):
        np.testing.assert_array_equal(frame, raw[i])
    config = Config.model_validate({"DATA": {"CLIP_LEN": 2, "NORM": {"MODE": "relative"}}})
    with pytest.raises(MethodError, match="log1p"):
        list(restored_frames(ModelMethod(SpikeShift(), config, device="cpu"), done))


def test_model_is_evaluated_beside_the_baselines(sequences) -> None:
    steps: list[tuple[int, int]] = []
    reporter = Reporter()
    reporter.progress = lambda done, total, note="": steps.append((done, total))
    result = job.evaluate_sequences(
        sequences,
        ("blur", "sdm", "model"),
        trained={"model": model_method(SpikeShift())},
        reporter=reporter,
    )
    assert result.methods.keys() == {"blur", "sdm", "model"}
    assert (steps[0], steps[-1]) == ((0, 3), (3, 3))  # the total from the start
    assert steps == sorted(steps)


@pytest.mark.parametrize("tile", [0, 32])
def test_methods_together_score_as_each_alone_and_read_and_find_once(
    sequences, tile, monkeypatch
) -> None:
    reads: Counter[tuple[str, str, int]] = Counter()
    found: Counter[int] = Counter()

    class Counted(Windows):
        """A sequence that counts how often each window is read."""

        def voxels(self, start: int, stop: int, *box: Any) -> np.ndarray:
            reads.update(("voxels", self.seq, window) for window in range(start, stop))
            return super().voxels(start, stop, *box)

        def blur(self, start: int, stop: int, *box: Any) -> np.ndarray:
            reads.update(("blur", self.seq, window) for window in range(start, stop))
            return super().blur(start, stop, *box)

        def sharp(self, start: int, stop: int, *box: Any) -> np.ndarray:
            reads.update(("sharp", self.seq, window) for window in range(start, stop))
            return super().sharp(start, stop)

    def restore(blur: torch.Tensor, *rest: Any) -> Any:
        found[round(float(blur.sum()))] += 1
        return sharp_along_motion(blur, *rest)

    monkeypatch.setattr(exposures, "sharp_along_motion", restore)
    config = load_config("configs/deblur/quickstart.yaml", ["DATA.CLIP_LEN=2"])
    torch.manual_seed(0)
    built = build_model(config).eval()
    last = built.vrt.conv_last.weight
    torch.nn.init.normal_(last, std=0.01)  # a new network would give its base

    def model() -> dict[str, ModelMethod]:
        return {"model": ModelMethod(built, config, tile=tile, device="cpu")}

    names = ("blur", "tfp", "sdm", "path", "model")
    alone = {}
    for name in names:
        trained = model() if name == "model" else {}
        alone[name] = job.evaluate_sequences(sequences, (name,), trained=trained)
    found.clear()
    counted = [Counted(**vars(sequence)) for sequence in sequences]
    together = job.evaluate_sequences(counted, names, trained=model(), curve="linear")
    assert together.methods == {name: result.methods[name] for name, result in alone.items()}
    assert together.lags == alone["blur"].lags
    assert (together.tfp_bins, together.sdm_bins) == (alone["tfp"].tfp_bins, alone["sdm"].sdm_bins)
    assert together.methods["model"] != together.methods["path"]
    assert sorted(found.values()) == [1, 1, 1]  # three windows, two methods
    assert max(reads.values()) <= 2  # once to choose the width, once to score


def test_window_of_the_picture_has_the_median_improvement(sequences) -> None:
    result = job.evaluate_sequences(sequences, ("blur", "sdm"))
    gains = sorted(w.scores["sdm"].psnr - w.scores["blur"].psnr for w in result.windows)
    shown = pictures.median_window(result, "sdm")
    assert shown.scores["sdm"].psnr - shown.scores["blur"].psnr == gains[1]


def enlarged(frame: np.ndarray, zoom: int) -> np.ndarray:
    return frame.repeat(zoom, 0).repeat(zoom, 1)


def test_picture_shows_each_method_with_a_zoomed_part_below(
    sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spikedeblur.pipeline.sequences import stored as reader

    monkeypatch.setattr(reader, "open_store", lambda store, split, **_: sequences)
    monkeypatch.setattr(reader, "has_split", lambda store, split: False)
    path = tmp_path / "before_after.png"
    shown = pictures.before_after("my.zarr", None, "test", path)
    with Image.open(path) as image:
        pixels = np.asarray(image)
    sequence = next(s for s in sequences if s.seq == shown.seq)
    window = list(sequence.frame_index).index(shown.frame_index)
    blur, sharp = sequence.blur_frames[window], sequence.sharp_frames[window]
    restored = [
        next(f for i, f in restored_frames(method, sequence) if i == window)
        for method in (SdmMethod(job.evaluate_sequences(sequences, ["sdm"]).sdm_bins), PathMethod())
    ]
    height, width, line, gap = 96, 96, 27, 4
    zoom = 4  # so that a panel is 320 pixels wide at least
    assert pixels.shape == (line + zoom * 2 * height + gap, 4 * zoom * width + 3 * gap, 3)
    assert (pixels[:line] < 128).any(), "captions above"
    # The part where blur and sharp differ most, searched place by place.
    error = ((blur.astype(float) - sharp) ** 2).sum(2)
    part = max(
        ((y, x) for y in range(65) for x in range(65)),
        key=lambda at: error[at[0] : at[0] + 32, at[1] : at[1] + 32].sum(),
    )
    y, x = (slice(side, side + 32) for side in part)
    for i, frame in enumerate((blur, *restored, sharp)):
        column = pixels[line:, i * (zoom * width + gap) :][:, : zoom * width]
        top, below = column[: zoom * height], column[zoom * height + gap :]
        np.testing.assert_array_equal(below, enlarged(frame[y, x], 3 * zoom))
        elsewhere = (top != enlarged(frame, zoom)).any(2)
        assert elsewhere.sum() == 4 * 2 * (32 * zoom - 2), "all but the line around the part"
    pictures.before_after("my.zarr", None, "test", path)
    Image.fromarray(pixels).save(path)
    with pytest.raises(OverwriteError, match="expected a picture"):
        pictures.before_after("my.zarr", None, "test", path)
    with pytest.raises(product.EvaluationError, match=r"\.png"):
        pictures.require_own_picture(tmp_path / "picture.jpg")
