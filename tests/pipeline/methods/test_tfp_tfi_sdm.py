"""Clips, short windows and the methods without learning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikedeblur.configs import load_config
from spikedeblur.pipeline.evaluate.metrics import psnr
from spikedeblur.pipeline.methods.contract import (
    MethodClip,
    MethodError,
    plan_clips,
    restored_frames,
)
from spikedeblur.pipeline.methods.network import ModelMethod
from spikedeblur.pipeline.methods.path import PathMethod
from spikedeblur.pipeline.methods.tfp_tfi_sdm import (
    BlurMethod,
    SdmMethod,
    TfpMethod,
    centre_weights,
)
from spikedeblur.pipeline.spikes import samples_per_bin, spike_to_voxel


@dataclass
class Windows:
    """Windows held in memory, with as much of `WindowSequence` as methods read."""

    blur_frames: np.ndarray
    counts: np.ndarray
    samples: np.ndarray
    gain: float | None
    seq: str = "test/group/clip"
    windows_are_raw: bool = True
    is_remote: bool = False
    has_spikes: bool = False
    has_sharp: bool = False

    @property
    def length(self) -> int:
        return len(self.blur_frames)

    @property
    def t0(self) -> np.ndarray:
        return 0.015 * np.arange(self.length)

    @property
    def t1(self) -> np.ndarray:
        return self.t0 + 0.032

    @property
    def bins(self) -> int:
        return self.counts.shape[1]

    @property
    def frame_shape(self) -> tuple[int, int]:
        return self.blur_frames.shape[1:3]

    @property
    def voxel_shape(self) -> tuple[int, int]:
        return self.counts.shape[2:]

    def voxels(self, start: int, stop: int, rows: Any = None, columns: Any = None) -> np.ndarray:
        return self.counts[start:stop, :, slice(*(rows or (None,))), slice(*(columns or (None,)))]

    def blur(self, start: int, stop: int, rows: Any = None, columns: Any = None) -> np.ndarray:
        return self.blur_frames[start:stop, slice(*(rows or (None,))), slice(*(columns or (None,)))]


@pytest.fixture(scope="module")
def windows(moving_scene) -> Windows:
    spans = [moving_scene.span(i) for i in range(3)]
    spikes = moving_scene.spikes.astype(np.uint8)
    counts = [spike_to_voxel(spikes[a:b], 32).astype(np.uint8) for a, b in spans]
    samples = np.array([b - a for a, b in spans])
    return Windows(moving_scene.blur, np.stack(counts), samples, moving_scene.gain)


def mean_psnr(method, windows: Windows, sharp: np.ndarray) -> float:
    return float(np.mean([psnr(f, sharp[i]) for i, f in restored_frames(method, windows)]))


@given(windows=st.integers(1, 60), clip_len=st.integers(1, 12))
def test_clips_keep_each_window_once_where_it_is_nearest_to_a_middle(
    windows: int, clip_len: int
) -> None:
    clips = plan_clips(windows, clip_len)
    kept = [i for clip in clips for i in range(clip.keep_start, clip.keep_stop)]
    assert kept == list(range(windows))
    for clip in clips:
        assert 0 <= clip.start <= clip.keep_start < clip.keep_stop <= clip.stop <= windows
        assert clip.stop - clip.start == min(clip_len, windows)
        for i in range(clip.keep_start, clip.keep_stop):
            distances = [
                abs(2 * i - (c.start + c.stop - 1)) for c in clips if c.start <= i < c.stop
            ]
            assert abs(2 * i - (clip.start + clip.stop - 1)) == min(distances)


def test_a_sequence_shorter_than_a_clip_is_used_whole() -> None:
    assert plan_clips(1, 5) == [MethodClip(0, 1, 0, 1)]
    assert plan_clips(4, 5) == [MethodClip(0, 4, 0, 4)]


@given(samples=st.integers(32, 400), bins=st.integers(1, 32), data=st.data())
def test_short_window_is_so_many_samples_wide(samples: int, bins: int, data) -> None:
    width = data.draw(st.integers(1, bins))
    inside = centre_weights(samples, bins, width) * samples_per_bin(samples, bins)
    assert inside.sum() == pytest.approx(width * samples / bins)


@pytest.mark.parametrize(("samples", "bins"), [(32, 32), (256, 32), (33, 33), (257, 1)])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_short_window_of_equal_bins_is_centred_on_the_middle_sample(
    samples: int, bins: int, width: int
) -> None:
    width = min(width, bins)
    weights = centre_weights(samples, bins, width)
    per_bin = samples_per_bin(samples, bins)
    centres = np.cumsum(per_bin) - per_bin / 2
    assert np.average(centres, weights=weights * per_bin) == pytest.approx(samples / 2)


@pytest.mark.parametrize("samples", [33, 49, 56, 88, 257])
def test_short_window_of_unequal_bins_is_off_the_middle_by_less_than_half_a_sample(
    samples: int,
) -> None:
    per_bin = samples_per_bin(samples, 32)
    centres = np.cumsum(per_bin) - per_bin / 2
    for width in (1, 3, 5, 7, 9):
        weights = centre_weights(samples, 32, width)
        centre = np.average(centres, weights=weights * per_bin)
        assert abs(centre - samples / 2) < 0.5


def test_even_bins_are_split_evenly_about_the_middle() -> None:
    weights = centre_weights(256, 32, 1)
    np.testing.assert_allclose(weights[[15, 16]], 0.5)
    assert weights.sum() == 1
    np.testing.assert_allclose(centre_weights(256, 32, 3)[14:18], [0.5, 1, 1, 0.5])
    with pytest.raises(MethodError, match="1 to 32"):
        centre_weights(256, 32, 33)


def test_unequal_bins_of_steady_light_show_no_banding() -> None:
    per_bin = samples_per_bin(56, 32)  # 1 or 2 samples
    counts = np.broadcast_to(per_bin[None, :, None, None], (1, 32, 4, 4)).astype(np.uint8)
    blur = np.full((1, 8, 8, 3), 100, np.uint8)
    windows = Windows(blur, counts, np.array([56]), gain=2.0)
    for width in (1, 3, 5, 7, 9):
        tfp = TfpMethod(width)(windows, MethodClip(0, 1, 0, 1))
        np.testing.assert_allclose(tfp, 0.5, atol=1e-6)
        sdm = SdmMethod(width)(windows, MethodClip(0, 1, 0, 1))
        np.testing.assert_allclose(sdm, blur / 255, atol=1e-6)


def test_sdm_gains_clearly_over_blur_on_a_moving_scene(windows, moving_scene) -> None:
    blur = mean_psnr(BlurMethod(), windows, moving_scene.sharp)
    sdm = mean_psnr(SdmMethod(5), windows, moving_scene.sharp)
    print(f"blur {blur:.2f} dB, sdm {sdm:.2f} dB")
    assert sdm > blur + 3


def late(windows: Windows, bins: int) -> Windows:
    source = np.clip(np.arange(32) - bins, 0, None)
    return replace(windows, counts=windows.counts[:, source])


def test_path_gains_clearly_over_blur_where_much_leaves_the_picture(windows, moving_scene) -> None:
    blur, path = (mean_psnr(m, windows, moving_scene.sharp) for m in (BlurMethod(), PathMethod()))
    assert path > blur + 5


def test_path_puts_late_spikes_in_time(windows, moving_scene) -> None:
    right, moved = (
        mean_psnr(PathMethod(), w, moving_scene.sharp) for w in (windows, late(windows, 4))
    )
    assert moved > right - 2.5  # the last eighth of the exposure is not there any more
    assert moved > mean_psnr(SdmMethod(), late(windows, 4), moving_scene.sharp) + 3


def test_path_takes_spikes_of_any_size_and_an_unknown_gain(windows, moving_scene) -> None:
    odd = replace(windows, counts=windows.counts[:, :, :-1, :-3], gain=None)
    frame = PathMethod()(odd, MethodClip(0, 1, 0, 1))
    assert frame.shape == (1, *windows.frame_shape, 3)
    assert np.isfinite(frame).all()
    unknown = mean_psnr(PathMethod(), replace(windows, gain=None), moving_scene.sharp)
    assert unknown > mean_psnr(PathMethod(), windows, moving_scene.sharp) - 0.5


def test_path_needs_raw_counts(windows) -> None:
    with pytest.raises(MethodError, match="path need raw counts"):
        PathMethod()(replace(windows, windows_are_raw=False), MethodClip(0, 1, 0, 1))


@pytest.mark.parametrize("tile", [0, 64])
def test_a_model_is_given_late_spikes_in_time_if_it_asks(windows, tile) -> None:
    class Recorder(torch.nn.Module):
        def forward(self, rgb: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
            seen.append(voxels)
            return rgb

    clip, seen = MethodClip(0, 3, 0, 3), []
    for correct in ("true", "false"):
        keys = [f"DATA.NORM.CORRECT_LAG={correct}", "DATA.NORM.MODE=log1p"]
        config = load_config("configs/deblur/vrt_spike_baseline.yaml", [*keys, "DATA.CLIP_LEN=3"])
        method = ModelMethod(Recorder(), config, tile=tile)
        for shown in (windows, late(windows, 4)):
            seen.append(None)
            method(shown, clip)
    _, *parts = "".join("|" if x is None else "x" for x in seen).split("|")
    assert len(set(parts)) == 1  # as many tiles each
    right, moved, plain, wrong = (
        seen[i * (len(parts[0]) + 1) + 1 : (i + 1) * (len(parts[0]) + 1)] for i in range(4)
    )
    for a, b, c, d in zip(right, moved, plain, wrong, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(a[:, :, :-4], b[:, :, :-4])
        assert torch.equal(d[:, :, 4:], a[:, :, :-4])


def test_sdm_shows_the_middle_of_the_exposure(windows, moving_scene) -> None:
    shifted = Windows(
        windows.blur_frames, np.roll(windows.counts, 4, axis=1), windows.samples, windows.gain
    )
    right = mean_psnr(SdmMethod(3), windows, moving_scene.sharp)
    assert right > mean_psnr(SdmMethod(3), shifted, moving_scene.sharp) + 1


def test_tfp_is_luminance_on_three_channels(windows, moving_scene) -> None:
    weights = [0.299, 0.587, 0.114]
    gray = np.repeat((moving_scene.sharp @ weights)[..., None], 3, axis=-1).astype(np.uint8)
    frame = TfpMethod(5)(windows, MethodClip(1, 2, 1, 2))
    assert (frame[..., 0] == frame[..., 1]).all()
    assert mean_psnr(TfpMethod(5), windows, gray) > 25


def test_unknown_gain_is_taken_from_the_blurred_frame(windows) -> None:
    unknown = Windows(windows.blur_frames, windows.counts, windows.samples, None)
    for method in (TfpMethod(5), SdmMethod(5)):
        known = method(windows, MethodClip(0, 1, 0, 1))
        np.testing.assert_allclose(method(unknown, MethodClip(0, 1, 0, 1)), known, atol=0.02)


def test_voxels_with_log1p_done_are_refused_by_spike_methods(windows) -> None:
    done = Windows(
        windows.blur_frames,
        np.log1p(windows.counts.astype(np.float32)),
        windows.samples,
        windows.gain,
        windows_are_raw=False,
    )
    for method in (TfpMethod(5), SdmMethod(5)):
        with pytest.raises(MethodError, match="raw counts"):
            method(done, MethodClip(0, 1, 0, 1))


def test_values_that_are_no_numbers_are_refused_not_written(windows) -> None:
    class Broken(BlurMethod):
        name = "broken"

        def __call__(self, windows, clip):
            return np.full_like(super().__call__(windows, clip), np.nan)

    with pytest.raises(MethodError, match="no numbers in windows 0 to 0"):
        list(restored_frames(Broken(), windows))
