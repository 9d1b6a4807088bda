from __future__ import annotations

import gc
import math

import pytest
import torch
import torch.nn.functional as F
from moving_texture import BINS, SIDE, inside, moving

from spikedeblur.model import (
    corrections,
    motion_deblur,
    path_sums,
    paths,
    picture_noise,
    spike_motion,
    told_by_spikes,
)
from spikedeblur.model.motion_deblur import MAPS, sharp_along_motion
from spikedeblur.model.paths import DEGREE, bin_times
from spikedeblur.model.spike_motion import INTEGRALS


def seen_by_both(velocity: tuple[float, float]):
    """Return a blurred coloured frame, relative voxels, and the sharp frame, of one texture."""
    light, sharp = moving(velocity)
    x = (torch.arange(SIDE) + 0.5) / SIDE
    tint = torch.stack([0.6 + 0.4 * x, torch.full_like(x, 0.8), 1.0 - 0.4 * x])[:, None]
    blur, mean = light.mean(1, keepdim=True) * tint, light.mean(1, keepdim=True)
    return blur, (light - mean) / (mean + 0.05), sharp * tint


def surely(paths: torch.Tensor):
    """Return what gives these paths in place of `motion`, free of noise."""
    return lambda light: (paths, torch.zeros_like(paths[:, :, 0]))


def straight(velocity: tuple[float, float], side: int) -> torch.Tensor:
    """Paths of one velocity, in pixels an exposure: P_1(2 t) = 2 t."""
    paths = torch.zeros(1, DEGREE, 2, side, side)
    paths[:, 0] = torch.tensor(velocity)[:, None, None] / 2
    return paths


def test_a_frame_is_sharp_along_its_motion():
    blur, voxels, sharp = seen_by_both((9.0, -5.0))
    found, maps = sharp_along_motion(blur, voxels)
    assert maps.shape == (1, MAPS, SIDE, SIDE)
    assert error(found, sharp) < 0.12 * error(blur, sharp)


def test_eight_bins_of_many_spikes_show_the_motion():
    blur, voxels, sharp = seen_by_both((9.0, -5.0))
    eight = voxels.unflatten(1, (8, BINS // 8)).mean(2)
    found, _ = sharp_along_motion(blur, eight)
    assert error(found, sharp) < 0.3 * error(blur, sharp)


def test_eight_samples_with_hardly_a_spike_move_nothing():
    blur, voxels, _ = seen_by_both((9.0, -5.0))
    seen = torch.rand(voxels[:, :8].shape, generator=torch.Generator().manual_seed(0)) < 0.1
    chance = voxels.amax() * seen.cumsum(1) % 2  # light changes at few samples, anywhere
    found, _ = sharp_along_motion(blur, chance)
    torch.testing.assert_close(found, blur, atol=1e-3, rtol=0)


def seen_at_half_the_size(velocity: tuple[float, float]):
    """The same, of spikes whose pixels are twice as wide as the frames'."""
    light, sharp = moving(velocity)
    light, blur = light * 0.9, light.mean(1, keepdim=True).expand(1, 3, SIDE, SIDE) * 0.9
    coarse = F.avg_pool2d(light, 2)
    mean = coarse.mean(1, keepdim=True)
    return blur, (coarse - mean) / (mean + 0.05), (sharp * 0.9).expand(3, SIDE, SIDE)


def error(found: torch.Tensor, sharp: torch.Tensor) -> float:
    return float(inside(found - sharp).square().mean().sqrt())


def test_corrections_bring_the_frame_nearer(monkeypatch):
    blur, voxels, sharp = seen_at_half_the_size((9.0, -5.0))
    noise = torch.randn(voxels.shape, generator=torch.Generator().manual_seed(0))
    noisy = (voxels + 0.05 * noise).clamp(-3, 3)
    errors = []
    for times in ((0, 0), (8, 6)):
        monkeypatch.setattr(motion_deblur, "CORRECTIONS", times)
        found, _ = sharp_along_motion(blur, noisy)
        errors.append(error(found, sharp))
    assert errors[1] < 0.5 * errors[0]


def test_what_large_spike_pixels_blur_is_made_fine_along_the_motion():
    # Waves of 4 pixels along the motion: the blurred frame has nothing of them.
    at = torch.arange(SIDE) + 0.5
    light = torch.stack(
        [
            (0.5 + 0.2 * torch.sin(math.pi / 2 * (at - 16 * time))).expand(SIDE, SIDE)
            for time in bin_times(BINS)
        ]
    )[None]
    coarse = F.avg_pool2d(light, 2)
    mean = coarse.mean(1, keepdim=True)
    voxels = (coarse - mean) / (mean + 0.05)
    blur = light.mean(1, keepdim=True).expand(1, 3, SIDE, SIDE)
    sharp = (0.5 + 0.2 * torch.sin(math.pi / 2 * at)).expand(3, SIDE, SIDE)
    paths = straight((8.0, 0.0), SIDE // 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(told_by_spikes, "motion_in", surely(paths))
        # What spikes see without paths would hide how much the paths are worth.
        patch.setattr(motion_deblur, "as_seen", lambda sharp, *_: (sharp, sharp[:, :1]))
        found, _ = sharp_along_motion(blur, voxels)
        patch.setattr(motion_deblur, "CORRECTIONS", (0, 0))
        divided, _ = sharp_along_motion(blur, voxels)
    assert error(divided[0], sharp) > 0.6 * error(blur[0], sharp)
    assert error(found[0], sharp) < 0.3 * error(blur[0], sharp)


def test_noise_of_spikes_moves_nothing_that_is_still():
    blur, voxels, _ = seen_at_half_the_size((0.0, 0.0))
    noise = torch.randn(voxels.shape, generator=torch.Generator().manual_seed(0))
    found, _ = sharp_along_motion(blur, (voxels + 0.2 * noise).clamp(-3, 3))
    assert error(found, blur[0]) < 0.002


def test_bands_of_a_frame_join_without_a_seam(monkeypatch):
    blur, voxels, _ = seen_at_half_the_size((5.0, -3.0))
    blur, voxels = (torch.cat([x, x.flip(-2)] * 2, -2) for x in (blur, voxels))
    whole, maps = sharp_along_motion(blur, voxels)
    monkeypatch.setattr(motion_deblur, "_LARGEST_BAND", blur.shape[-1] * 128)
    assert len(motion_deblur._bands(blur.shape[-2:], 2, torch.zeros(1, DEGREE, 2, 1, 1))) > 2
    in_bands, maps_in_bands = sharp_along_motion(blur, voxels)
    assert (in_bands - whole).abs().max() < 4 / 255
    assert (in_bands - whole).abs().mean() < 0.02 / 255
    assert (maps_in_bands - maps).abs().max() < 0.05


def test_noise_of_the_blurred_frame_is_not_taken_for_detail(monkeypatch):
    blur, voxels, sharp = seen_at_half_the_size((9.0, -5.0))
    grain = 0.03 * torch.randn(blur.shape, generator=torch.Generator().manual_seed(0))
    found, _ = sharp_along_motion(blur + grain, voxels)
    monkeypatch.setattr(motion_deblur, "noise_variance", lambda frames: torch.zeros(1, 3, 1, 1))
    trusting, _ = sharp_along_motion(blur + grain, voxels)
    assert error(found, sharp) < 0.6 * error(trusting, sharp)
    assert error(found, sharp) < error(blur + grain, sharp)


@pytest.mark.parametrize("deviation", [0.005, 0.02, 0.05])
def test_noise_is_measured_on_a_smooth_frame(deviation):
    blur, _, _ = seen_by_both((9.0, -5.0))
    noise = torch.randn(blur.shape, generator=torch.Generator().manual_seed(0))
    found = picture_noise.noise_variance(blur + deviation * noise).sqrt()
    torch.testing.assert_close(found, torch.full((1, 3, 1, 1), deviation), rtol=0.15, atol=0)


@pytest.mark.parametrize("pixel", [1, 2, 3, 4])
def test_a_path_sees_by_three_boxes_in_a_row(pixel):
    steps = 200  # a pixel's, numerically
    box = torch.ones(1, 1, pixel * steps) / (pixel * steps)
    three = F.conv1d(F.conv1d(box, box, padding=box.numel() - 1), box, padding=box.numel() - 1)[
        0, 0
    ]
    middle = len(three) // 2
    kernel = torch.tensor(path_sums.spline(pixel))
    radius = len(kernel) // 2
    at = [middle + steps * i for i in range(-radius, radius + 1)]
    expected = torch.stack([three[i] if 0 <= i < len(three) else three.new_zeros(()) for i in at])
    torch.testing.assert_close(kernel, expected * steps, atol=0.01, rtol=0)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)


def test_sources_are_where_light_came_from():
    # Everything turns about the middle and moves away from it, at a pace that grows outwards.
    at = torch.arange(SIDE) + 0.5 - SIDE / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    place = torch.stack([x, y])[None, None]
    shift = 0.06 * place + 0.02 * torch.stack([y, -x])[None, None]
    back = path_sums.sources_of(shift, torch.ones(1, 1, SIDE, SIDE))
    source = place + back
    arrives = source + 0.06 * source + 0.02 * torch.stack([source[0, 0, 1], -source[0, 0, 0]])
    assert inside(arrives - place).abs().max() < 0.05


def test_the_visible_one_of_two_points_that_meet_is_the_source():
    shift = torch.zeros(1, 1, 2, 8, 16)
    shift[..., 0, :, :8] = 8.0  # the left half moves onto the right one, which stands still
    left_in_front = torch.ones(1, 1, 8, 16)
    left_in_front[..., 8:] = 0.1
    back = path_sums.sources_of(shift, left_in_front)
    assert (back[0, 0, 0, :, 8:15] == -8).all()
    right_in_front = 1.1 - left_in_front
    assert (path_sums.sources_of(shift, right_in_front)[0, 0, 0, :, 9:] == 0).all()


def test_sums_over_points_are_those_of_sampling():
    generator = torch.Generator().manual_seed(0)
    points = 2.2 * torch.rand(2, 3, 10, 14, 2, generator=generator) - 1.1  # some are outside
    weights = torch.rand(2, 3, 10, 14, generator=generator)
    picture = torch.rand(2, 3, 10, 14, generator=generator)
    sampled = F.grid_sample(
        picture, points.flatten(1, 2), padding_mode="border", align_corners=False
    ).unflatten(2, (3, 10))
    expected = (weights[:, None] * sampled).sum(2)
    parts = [slice(0, 4), slice(4, 10)]
    sums = path_sums.PathSums(points.movedim(-1, 2), parts)
    for rows in parts:
        sums.put(rows, points[:, :, rows], weights[:, :, rows])
    torch.testing.assert_close(sums(picture), expected)


def test_what_threads_share_has_the_bits_of_what_one_finds_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    light, way = random(2, 8, 30, 44), 8 * random(2, 4, 2, 30, 44) - 4
    change, noise = random(2, 3, 30, 44) - 0.5, 0.1 * random(2, 1, 30, 44)
    finds = {
        "followed": lambda: torch.cat(paths.follow(light, way, paths.bin_times(8))),
        "enlarged": lambda: paths.resized(light, (61, 90)),
        "enlarged colours": lambda: paths.resized(change, (60, 88)),
        "smooth": lambda: spike_motion.smooth(light),
        "less noise": lambda: picture_noise.less_noise(change, noise),
        "less even noise": lambda: picture_noise.less_noise(change, noise[..., :1, :1]),
    }
    whole = {name: find() for name, find in finds.items()}
    shared = []

    def backwards(task, parts):
        shared.append(len(parts))
        return [task(part) for part in reversed(parts)][::-1]

    monkeypatch.setattr(paths, "AT_ONCE", 1 << 11)
    token = paths.helped.set(backwards)
    try:
        for name, find in finds.items():
            assert torch.equal(find(), whole[name]), name
    finally:
        paths.helped.reset(token)
    assert len(shared) >= len(finds) - 1  # colours are enlarged together


def test_a_frame_in_strips_is_that_of_a_whole_one(monkeypatch):
    blur, voxels, _ = seen_at_half_the_size((9.0, -5.0))
    whole, maps = sharp_along_motion(blur, voxels)
    assert len(paths.strips(blur)) == 1
    monkeypatch.setattr(paths, "AT_ONCE", 1 << 12)
    assert len(paths.strips(blur)) > 2
    in_strips, maps_in_strips = sharp_along_motion(blur, voxels)
    torch.testing.assert_close(in_strips, whole, atol=1e-5, rtol=0)
    # Maps this small, enlarged one by one, have other last bits than together.
    torch.testing.assert_close(maps_in_strips, maps, atol=1e-3, rtol=0)


def test_a_frame_is_corrected_when_its_ways_are_dropped(monkeypatch):
    blur, voxels, _ = seen_at_half_the_size((9.0, -5.0))
    shape = (1, motion_deblur.INSTANTS, 2, *blur.shape[-2:])
    kept = []

    def counted(*args, **named):
        kept.append(sum(type(x) is torch.Tensor and x.shape == shape for x in gc.get_objects()))
        return plain(*args, **named)

    plain = motion_deblur.corrected
    monkeypatch.setattr(motion_deblur, "corrected", counted)
    with torch.inference_mode():
        sharp_along_motion(blur, voxels)
    assert kept == [1, 0]  # at half the size, those of the whole size are still to come


def test_large_frames_have_the_sources_of_small_ones(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    shift = 3 * torch.randn(1, 2, 2, 12, 20, generator=generator)
    visible = torch.rand(1, 2, 12, 20, generator=generator)
    small = path_sums.sources_of(shift, visible)
    monkeypatch.setattr(path_sums, "_PLACES", 1)  # numbers of more than 32 bits
    assert torch.equal(path_sums.sources_of(shift, visible), small)


def test_the_largest_value_around_is_that_of_pooling():
    maps = torch.randn(2, 3, 30, 41, generator=torch.Generator().manual_seed(0))
    side = 2 * motion_deblur._NEAR + 1
    pooled = F.max_pool2d(maps, side, 1, motion_deblur._NEAR)
    assert torch.equal(motion_deblur._largest_around(maps), pooled)


@pytest.mark.parametrize("number", [7, 8])
def test_a_median_is_the_one_in_the_middle_of_sorted_values(number):
    values = torch.randn(3, number, generator=torch.Generator().manual_seed(0))
    assert torch.equal(picture_noise.middling(values), values.sort(-1).values[:, number // 2])


def crossing(half: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A red square crosses a still, blue texture: blurred, relative voxels, sharp, its mask."""
    light, _ = moving((0.0, 0.0))
    at = torch.arange(SIDE) + 0.5 - SIDE / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    square = torch.stack(
        [((x - 24 * time).abs() < half) & (y.abs() < 12) for time in bin_times(BINS)]
    ).float()[:, None]
    red, blue = (torch.tensor(c)[:, None, None] for c in ((0.9, 0.3, 0.2), (0.2, 0.3, 0.8)))
    frames = square * red + (1 - square) * light[0, :, None] * blue  # (K, 3, H, W)
    gray = torch.einsum("kchw,c->khw", frames, torch.tensor([0.299, 0.587, 0.114]))[None]
    mean = gray.mean(1, keepdim=True)
    middle = (BINS // 2 - 1, BINS // 2)
    sharp, mask = frames[list(middle)].mean(0), square[list(middle)].mean(0)
    return frames.mean(0)[None], as_spikes_tell((gray - mean) / (mean + 0.05)), sharp, mask


def as_spikes_tell(voxels: torch.Tensor) -> torch.Tensor:
    """Return voxels that change a little from bin to bin: what never changes had no spikes."""
    return voxels + 1e-3 * torch.randn(voxels.shape, generator=torch.Generator().manual_seed(0))


def test_what_a_thing_hides_and_uncovers_has_no_ghost():
    blur, voxels, sharp, mask = crossing()
    found, _ = sharp_along_motion(blur, voxels)
    swept = ((blur[0] - sharp).abs().sum(0) > 0.05) & (mask[0] == 0)
    wrong = (found[0] - sharp).abs()
    assert wrong[:, swept].mean() < 0.5 * (blur[0] - sharp).abs()[:, swept].mean()
    thing = mask[0] == 1
    assert wrong[:, thing].mean() < 0.6 * (blur[0] - sharp).abs()[:, thing].mean()


def test_what_is_too_thin_to_follow_is_as_spikes_saw_it(monkeypatch):
    blur, voxels, sharp, mask = crossing(half=1)
    monkeypatch.setattr(told_by_spikes, "motion_in", surely(straight((0.0, 0.0), SIDE)))
    found, _ = sharp_along_motion(blur, voxels)
    thing = mask[0] > 0.5
    weights = torch.tensor([0.299, 0.587, 0.114])
    gray = [torch.einsum("chw,c->hw", x, weights)[thing] for x in (found[0], blur[0], sharp)]
    assert (gray[0] - gray[2]).abs().mean() < 0.5 * (gray[1] - gray[2]).abs().mean()


def test_parts_are_corrected_as_the_whole(monkeypatch):
    # In float64: corrections repeat rounding, which batches of other sizes do in another order.
    blur, voxels = (seen.double() for seen in seen_at_half_the_size((9.0, -5.0))[:2])
    batch = torch.cat([blur, blur.flip(-1)]), torch.cat([voxels, voxels.flip(-1)])
    whole = sharp_along_motion(*batch)
    monkeypatch.setattr(motion_deblur, "_PIXELS", 1)
    for found, expected in zip(sharp_along_motion(*batch), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_path_looked_at_too_coarsely_is_not_corrected_by_the_blurred_frame(monkeypatch):
    blur, voxels, _ = seen_by_both((0.0, 0.0))
    far = 5 * motion_deblur.INSTANTS * corrections.FINE_GAP
    monkeypatch.setattr(told_by_spikes, "motion_in", surely(straight((far, far), SIDE)))
    found, _ = sharp_along_motion(blur, voxels)
    monkeypatch.setattr(motion_deblur, "CORRECTIONS", (0, 0))
    divided, _ = sharp_along_motion(blur, voxels)
    # Spikes change each colour alike; only the blurred frame could tell them apart.
    ratio = (found + told_by_spikes.FLOOR) / (divided + told_by_spikes.FLOOR)
    torch.testing.assert_close(ratio, ratio.mean(1, keepdim=True).expand_as(ratio))


def test_what_leaves_the_picture_at_once_stays_as_it_is(monkeypatch):
    blur, voxels, _ = seen_by_both((0.0, 0.0))
    monkeypatch.setattr(told_by_spikes, "motion_in", surely(straight((1e4, 1e4), SIDE)))
    found, maps = sharp_along_motion(blur, voxels)
    torch.testing.assert_close(found, blur, atol=4e-3, rtol=0)
    assert maps[:, :INTEGRALS].abs().max() < 3e-3
    assert (maps[:, INTEGRALS] > 0.9).all()  # hidden


def test_a_still_frame_stays_as_it_is():
    blur, voxels, sharp = seen_by_both((0.0, 0.0))
    found, maps = sharp_along_motion(blur, voxels)
    torch.testing.assert_close(found[0], sharp, atol=1.5e-3, rtol=0)
    assert maps[:, :INTEGRALS].abs().max() < 3e-3


def test_noise_alone_changes_a_still_frame_little():
    blur, _, sharp = seen_by_both((0.0, 0.0))
    noise = 0.2 * torch.randn(1, BINS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found, maps = sharp_along_motion(blur, noise - noise.mean(1, keepdim=True))
    assert (found[0] - sharp).abs().mean() < 0.7 * (maps[0, 0] * sharp).abs().mean()


def test_noisy_light_is_evened_and_edges_stay():
    step = torch.zeros(1, 1, 16, 16)
    step[..., 8:] = 0.5
    noise = 0.02 * torch.randn(step.shape, generator=torch.Generator().manual_seed(0))
    light = step + 0.3 + noise
    for _ in range(8):
        light = light / (1 - 0.008 * picture_noise.unevenness(light))
    assert light[..., 2:6].std() < 0.6 * noise[..., 2:6].std()
    assert (light[..., 9] - light[..., 6]).mean() > 0.45


@pytest.mark.parametrize("bins", [1, 2, 4, 5, 7, 12, 33])
def test_any_number_of_bins_will_do(bins):
    blur, voxels, _ = seen_by_both((9.0, -5.0))
    edges = [i * BINS // bins for i in range(bins)] if bins < BINS else list(range(BINS))
    fewer = torch.stack([voxels[:, i] for i in (edges * bins)[:bins]], 1)
    found, maps = sharp_along_motion(blur, fewer)
    assert found.isfinite().all()
    assert maps.isfinite().all()


def test_dark_noise_that_no_point_explains_gives_numbers():
    # No point lands anywhere, the spikes saw no light, and noise explains what the frame has.
    dark = torch.zeros(1, 3, 16, 16)
    none = torch.zeros(1, motion_deblur.INSTANTS, 16, 16)
    own = corrections.Exposed(
        blur=dark + 0.02,
        noise=torch.ones(1, 3, 1, 1),
        shift=torch.zeros(1, motion_deblur.INSTANTS, 2, 16, 16),
        visible=none,
        share=none,
        pace=torch.zeros(1, 1, 16, 16),
    )
    seen = corrections.Seen(dark[:, :1] + 0.02, torch.zeros(1, 1, 16, 16), spike_pixel=2)
    explanation = corrections.Explanation(own, own.shift)
    for found in corrections.corrected(dark + 0.02, explanation, 2, by_spikes=seen):
        assert found.isfinite().all()


def test_a_frame_alone_is_restored_as_ever():
    # Networks were trained on this; the numbers are of the release before neighbours came in.
    found, _ = sharp_along_motion(*seen_at_half_the_size((9.0, -5.0))[:2])
    before = torch.tensor([0.5636085, 0.4590734, 0.4022921, 0.4953283])
    torch.testing.assert_close(found[0, 0, 20:60:13, 31], before, atol=2e-6, rtol=0)
