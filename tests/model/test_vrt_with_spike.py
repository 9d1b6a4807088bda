import math

import pytest
import torch
import torch.nn.functional as F

from spikedeblur.configs import load_config
from spikedeblur.model import VRTWithSpike, build_model, parameter_table
from spikedeblur.model.vrt_with_spike import FAST
from spikedeblur.third_party.VRT import VRT

DIM = 8
BINS = 4


def make(trunk_scale=1, pa_frames=0, seed=0, **kwargs):
    torch.manual_seed(seed)
    backbone = VRT(
        img_size=(3, 16, 16),
        window_size=(2, 4, 4),
        depths=(2,) * 7 + (1,),
        indep_reconsts=(),
        embed_dims=(DIM,) * 8,
        num_heads=(2,) * 8,
        pa_frames=pa_frames,
        deformable_groups=4,
        drop_path_rate=0.0,
        in_chans=3 * trunk_scale**2,
    )
    model = VRTWithSpike(
        backbone,
        spike_bins=BINS,
        channels_per_scale=(DIM,) * 4,
        tsa_heads=2,
        fuse_heads=2,
        trunk_scale=trunk_scale,
        **kwargs,
    )
    return model.double()


def clip(rows=16, columns=24, voxel_rows=16, voxel_columns=24, frames=3, batch=1):
    generator = torch.Generator().manual_seed(1)
    rgb = torch.rand(batch, frames, 3, rows, columns, generator=generator, dtype=torch.float64)
    voxels = torch.rand(
        batch, frames, BINS, voxel_rows, voxel_columns, generator=generator, dtype=torch.float64
    )
    return rgb, voxels


def other_spikes_in_one_frame(voxels, frame=1):
    changed = voxels.clone()
    changed[:, frame] = changed[:, frame].flip(1) + 1
    return changed


def train(model, steps):
    rgb, voxels = clip()
    target = rgb.flip(-1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(rgb, voxels) - target).square().mean().backward()
        optimizer.step()


def without_gradient(model):
    model.zero_grad(set_to_none=True)
    rgb, voxels = clip()
    (model(rgb, voxels) - rgb.flip(-1)).square().mean().backward()
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]


@pytest.mark.parametrize("pa_frames", [0, 2])
@pytest.mark.parametrize("spike_skip", [0, 1, 4])
def test_identity_start_gives_the_backbones_output_whatever_the_spikes(pa_frames, spike_skip):
    model = make(pa_frames=pa_frames, spike_skip=spike_skip).eval()
    rgb, voxels = clip()
    with torch.no_grad():
        expected = model.vrt(rgb)
        torch.testing.assert_close(model(rgb, voxels), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            model(rgb, other_spikes_in_one_frame(voxels)), expected, rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    "options",
    [
        {"identity_init": False},
        {"identity_init": False, "spike_skip": 4, "trunk_scale": 2, "encoder_sees_blur": True},
        {"identity_init": False, "spike_skip": 4, "fusion": False},
        {"identity_init": False, "pa_frames": 2},
    ],
)
def test_without_identity_start_spikes_count_and_every_parameter_learns(options):
    model = make(**options)
    rgb, voxels = clip()
    with torch.no_grad():
        difference = model(rgb, voxels) - model(rgb, other_spikes_in_one_frame(voxels))
    assert difference.abs().max() > 1e-6
    if options.get("pa_frames"):
        train(model, 2)  # the published alignment itself starts with offsets at zero
    assert without_gradient(model) == []


@pytest.mark.parametrize("spike_skip", [0, 1, 4])
def test_two_steps_after_identity_start_spikes_count_and_every_parameter_learns(spike_skip):
    model = make(spike_skip=spike_skip)
    train(model, 2)
    rgb, voxels = clip()
    with torch.no_grad():
        difference = model(rgb, voxels) - model(rgb, other_spikes_in_one_frame(voxels))
    assert difference.abs().max() > 1e-7
    assert without_gradient(model) == []


def test_control_without_spikes_has_no_spike_parameters_and_needs_no_voxels():
    model = make(use_spike=False, spike_skip=1).eval()
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"vrt"}
    rgb, voxels = clip()
    with torch.no_grad():
        assert torch.equal(model(rgb), model.vrt(rgb))
        assert torch.equal(model(rgb, voxels), model.vrt(rgb))


def test_fused_features_replace_the_stage_for_the_next_and_for_the_skips():
    """By hand: the backbone with a fusion that calls the blocks on the branch's features."""
    model = make(identity_init=False).eval()
    rgb, voxels = clip()
    spikes = model.spike_temporal_sa(model.spike_encoder(voxels))

    def fuse(scale, features):
        block = model.cross_attn_fuse.fuse_blocks[scale]
        frames, source = (x.permute(0, 2, 1, 3, 4) for x in (features, spikes[scale]))
        return block(frames, source).permute(0, 2, 1, 3, 4)

    torch.testing.assert_close(model(rgb, voxels), model.vrt(rgb, fuse))


@pytest.mark.parametrize("trunk_scale", [2, 4])
def test_folded_trunk_keeps_the_residual_on_the_full_size_frame(trunk_scale):
    model = make(trunk_scale=trunk_scale, spike_skip=1, identity_init=False).eval()
    for parameter in model.vrt.conv_last.parameters():
        torch.nn.init.zeros_(parameter)
    rgb, voxels = clip(32, 40, 32, 40)
    torch.testing.assert_close(model(rgb, voxels), rgb)


def test_late_skip_enters_before_the_last_convolution():
    model = make(spike_skip=1).eval()
    torch.nn.init.normal_(model.spike_skip.weight)
    rgb, voxels = clip()
    with torch.no_grad():
        late = model.spike_skip(model.spike_features(voxels)[0].movedim(1, -1))  # (B, T, H, W, C)
        frames = late.permute(0, 1, 4, 2, 3).flatten(0, 1)
        last = model.vrt.conv_last
        added = F.conv2d(frames, last.weight.squeeze(2), padding=1).unflatten(0, (1, 3))
        torch.testing.assert_close(model(rgb, voxels), model.vrt(rgb) + added)


def test_the_skip_takes_features_of_coarser_scales_enlarged():
    model = make(spike_skip=3).eval()
    rgb, voxels = clip()
    with torch.no_grad():
        before = model(rgb, voxels)
        torch.nn.init.normal_(model.coarse_skips[1].weight)
        features = model.spike_features(voxels)[2]  # (B, C, T, H / 4, W / 4)
        late = model.coarse_skips[1](features.movedim(1, -1)).movedim(-1, 2)  # (B, T, C, h, w)
        frames = F.interpolate(late.flatten(0, 1), rgb.shape[-2:], mode="bilinear")
        last = model.vrt.conv_last
        added = F.conv2d(frames, last.weight.squeeze(2), padding=1).unflatten(0, (1, 3))
        torch.testing.assert_close(model(rgb, voxels), before + added)


def test_an_encoder_that_sees_the_frame_tells_frames_apart_without_spikes():
    silent = torch.zeros_like(clip()[1])
    for sees, spread in ((False, False), (True, True)):
        model = make(encoder_sees_blur=sees, trunk_scale=2).eval()
        rgb, _ = clip(32, 48)
        features = []
        handle = model.spike_encoder.register_forward_hook(
            lambda module, inputs, output, found=features: found.append(output[0])
        )
        with torch.no_grad():
            model(rgb, silent)
            model(rgb.flip(-1), silent)
        handle.remove()
        assert (not torch.equal(*features)) == spread


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 17), (23, 40)])
@pytest.mark.parametrize("trunk_scale", [1, 2])
@pytest.mark.parametrize("sees", [False, True])
def test_any_size_is_padded_and_cropped_back(size, trunk_scale, sees):
    model = make(
        trunk_scale=trunk_scale, spike_skip=4, identity_init=False, encoder_sees_blur=sees
    ).eval()
    half = [max(side // 2, 1) for side in size]
    rgb, voxels = clip(*size, *half, frames=2)
    with torch.no_grad():
        out = model(rgb, voxels)
    assert out.shape == rgb.shape
    assert out.isfinite().all()


def seen_voxels(model, rgb, voxels):
    """What enters the spike encoder."""
    seen = []
    hook = model.spike_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(rgb, voxels)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("trunk_scale", "voxel_size"), [(1, (32, 48)), (2, (16, 24)), (4, (8, 12))]
)
def test_spikes_of_the_trunks_size_enter_untouched(trunk_scale, voxel_size):
    # 32x48 is a multiple of 8 * 1 and 8 * 2; at 4 the end is padded, the rest untouched.
    model = make(trunk_scale=trunk_scale)
    rgb, voxels = clip(32, 48, *voxel_size)
    seen = seen_voxels(model, rgb, voxels)
    assert torch.equal(seen[..., : voxel_size[0], : voxel_size[1]], voxels)
    assert seen.shape[-2:] == (voxel_size[0], -(-voxel_size[1] // 8) * 8)


def test_spikes_of_half_size_are_enlarged_bilinearly():
    model = make()
    rgb, voxels = clip(32, 48, 16, 24)
    expected = F.interpolate(voxels.flatten(0, 1), (32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen_voxels(model, rgb, voxels), expected.unflatten(0, (1, 3)))


def test_spikes_larger_than_the_trunk_are_averaged_not_dropped():
    model = make(trunk_scale=4)
    rgb, voxels = clip(32, 32, 32, 32)
    voxels = torch.zeros_like(voxels)
    voxels[..., 13, 16] = 1.0  # one of 16 pixels that become one
    seen = seen_voxels(model, rgb, voxels)
    assert seen.sum().item() == pytest.approx(3 * BINS / 16)


def test_padding_keeps_spikes_in_register_with_frames():
    """A model that copies spikes into the frame shows where they end up."""
    model = make(trunk_scale=2)
    rgb, voxels = clip(20, 36, 10, 18)
    seen = seen_voxels(model, rgb, voxels)
    assert seen.shape[-2:] == (16, 24)  # 32 x 48 frames at half size
    assert torch.equal(seen[..., :10, :18], voxels)
    torch.testing.assert_close(seen[..., 10:16, :18], voxels[..., 3:9, :].flip(-2))  # reflected


def test_other_spatial_strides_are_resized_where_they_are_fused():
    model = make(spatial_strides=[1, 2, 2], identity_init=False).eval()
    rgb, voxels = clip()
    with torch.no_grad():
        difference = model(rgb, voxels) - model(rgb, other_spikes_in_one_frame(voxels))
    assert difference.abs().max() > 1e-6


def test_clip_of_one_frame_works():
    rgb, voxels = clip(frames=1)
    assert make(pa_frames=2)(rgb, voxels).shape == rgb.shape


def test_wrong_voxels_are_refused():
    model = make()
    rgb, voxels = clip()
    with pytest.raises(ValueError, match="got None"):
        model(rgb)
    with pytest.raises(ValueError, match="expected voxels"):
        model(rgb, voxels[:, :2])


def test_backbone_must_fit_the_trunk_scale():
    with pytest.raises(ValueError, match="in_chans 12"):
        VRTWithSpike(make().vrt, trunk_scale=2)


def test_parameter_table_adds_up():
    model = make(pa_frames=2, spike_skip=1)
    table = dict(parameter_table(model))
    assert sum(table.values()) == sum(p.numel() for p in model.parameters())
    assert list(table)[:2] == ["vrt.conv_first", "vrt.spynet"]
    assert table["spike_skip"] == DIM * DIM + DIM
    assert table["spike_encoder"] == sum(p.numel() for p in model.spike_encoder.parameters())


def both_bases(*, motion: bool = False):
    """Return two networks of the same weights that correct the blurred and the divided frame."""
    torch.manual_seed(0)
    plain, divided = (
        build_model(
            load_config(
                "configs/deblur/quickstart.yaml",
                [f"MODEL.RESIDUAL_BASE={base}", f"MODEL.SPIKE_MOTION={str(motion).lower()}"],
            )
        )
        for base in ("blur", "sdm")
    )
    divided.load_state_dict(plain.state_dict())
    return plain.eval(), divided.eval()


def test_division_has_the_spikes_own_resolution():
    plain, divided = both_bases()
    rgb = torch.rand(1, 1, 3, 30, 34)  # not a multiple of anything
    voxels = torch.zeros(1, 1, 32, 30, 34)
    voxels[..., ::2, :] = 1.0  # every other row of the frame's size is brighter
    with torch.no_grad():
        added = divided(rgb, voxels) - plain(rgb, voxels)
    torch.testing.assert_close(added[..., ::2, :], rgb[..., ::2, :], atol=1e-5, rtol=0)
    torch.testing.assert_close(added[..., 1::2, :], torch.zeros(1, 1, 3, 15, 34), atol=1e-5, rtol=0)


def test_on_the_base_of_sdm_the_blurred_frame_is_divided_first():
    plain, divided = both_bases()
    rgb = torch.rand(1, 2, 3, 32, 32)
    # A scene that is twice as bright in the short window as on average, and one that is dark.
    voxels = torch.zeros(1, 2, 32, 16, 16)
    voxels[:, 0, 13:19] = 1.0
    voxels[:, 1] = -0.5
    with torch.no_grad():
        added = divided(rgb, voxels) - plain(rgb, voxels)
    torch.testing.assert_close(added[:, 0], rgb[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(added[:, 1], -0.5 * rgb[:, 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("spike_scale", [1, 2, 4])
def test_on_the_base_of_motion_the_frame_is_made_sharp_along_it_first(spike_scale):
    plain, moved = both_bases(motion=True)
    # Light runs through the frame by 12 pixels in an exposure; counts are what each bin saw.
    side, scale = 96, spike_scale
    x = torch.arange(side) + 0.5
    times = torch.arange(32)[:, None, None] / 32 + 0.5 / 32 - 0.5

    def light(at):
        return 0.5 + sum(0.1 * torch.sin(2 * torch.pi * at / n + n) for n in (14, 19, 31, 53))

    bins = light(x[None, None] - 12 * times).expand(32, side, side)
    sharp = light(x).expand(1, 1, 3, side, side)
    rgb = bins.mean(0).expand(1, 1, 3, side, side)
    rate = torch.nn.functional.avg_pool2d(bins[None], scale)
    voxels = ((rate - rate.mean(1, keepdim=True)) / (rate.mean(1, keepdim=True) + 0.05))[None]
    with torch.no_grad():
        restored = rgb + moved(rgb, voxels) - plain(rgb, voxels)

    def error(frame):
        return float((frame - sharp)[..., 16:-16, 16:-16].abs().mean())

    assert error(restored) < 0.4 * error(rgb)


@pytest.mark.parametrize("motion", [False, True])
def test_a_new_network_is_its_base_where_that_is_no_blurred_frame(motion):
    keys = [f"MODEL.SPIKE_MOTION={str(motion).lower()}"]
    network = build_model(load_config("configs/deblur/quickstart.yaml", keys)).eval()
    rgb, voxels = torch.rand(1, 2, 3, 32, 32), torch.zeros(1, 2, 32, 16, 16)
    voxels[..., 4:] = 0.5
    with torch.no_grad():
        base = network.follow(rgb, voxels)[:, :, :3] if motion else 1.5 * rgb
        out = network(rgb, voxels)
    right = (slice(None), slice(None), slice(None), slice(None), slice(16, None))
    torch.testing.assert_close(out[right], base[right], atol=1e-6, rtol=1e-5)


def test_a_trained_network_leaves_half_of_its_base_but_learns_freely():
    keys = ["MODEL.SPIKE_MOTION=true"]
    network = build_model(load_config("configs/deblur/quickstart.yaml", keys))
    rgb, voxels = torch.rand(1, 2, 3, 32, 32), torch.zeros(1, 2, 32, 16, 16)
    with torch.no_grad():
        network.vrt.conv_last.bias.fill_(-10.0)
        followed = network.follow(rgb, voxels)
        base = followed[:, :, :3]
        assert network.train()(rgb, voxels).max() < -8
        followed[:, :, -1] = 1  # log1p of the speed
        torch.testing.assert_close(network.eval()(rgb, voxels, followed), 0.5 * base)


def test_a_trained_network_leaves_its_base_where_nothing_moves_nearby():
    network = build_model(
        load_config("configs/deblur/quickstart.yaml", ["MODEL.SPIKE_MOTION=true"])
    )
    rgb, voxels = torch.rand(1, 2, 3, 32, 64), torch.zeros(1, 2, 32, 16, 32)
    with torch.no_grad():
        network.vrt.conv_last.bias.fill_(-10.0)
        followed = network.follow(rgb, voxels)
        torch.testing.assert_close(network.eval()(rgb, voxels), followed[:, :, :3])
        followed[:, :, -1, :, :20] = 1
        out = network(rgb, voxels, followed) / followed[:, :, :3]
    assert (out[..., :28] == 0.5).all()
    assert (out[..., 28:] == 1).all()


def test_a_trained_network_corrects_the_less_the_faster_things_move_beyond_what_it_can_tell():
    network = build_model(
        load_config("configs/deblur/quickstart.yaml", ["MODEL.SPIKE_MOTION=true"])
    )
    rgb, voxels = torch.rand(1, 2, 3, 32, 32), torch.zeros(1, 2, 32, 16, 16)
    corrections = []
    with torch.no_grad():
        network.vrt.conv_last.bias.fill_(0.1)
        followed = network.follow(rgb, voxels)
        for speed in (FAST, 2 * FAST, 8 * FAST):
            followed[:, :, -1] = math.log1p(speed)
            corrections.append(network.eval()(rgb, voxels, followed) - followed[:, :, :3])
    full, half, eighth = corrections  # of one input, for the network sees no speed above FAST
    torch.testing.assert_close(half, full / 2, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(eighth, full / 8, atol=1e-6, rtol=1e-5)


def test_motion_needs_spikes_that_fit_no_more_than_the_network_does():
    _, moved = both_bases(motion=True)
    with torch.no_grad():
        out = moved(torch.rand(1, 2, 3, 30, 34), torch.randn(1, 2, 32, 11, 13))
    assert out.shape == (1, 2, 3, 30, 34)
    assert out.isfinite().all()


@pytest.mark.parametrize("motion", [False, True])
def test_less_trust_is_smaller_deviations_but_the_same_motion(motion):
    keys = [f"MODEL.SPIKE_MOTION={str(motion).lower()}", "MODEL.FUSE.IDENTITY_INIT=false"]
    whole, half = (
        build_model(
            load_config("configs/deblur/quickstart.yaml", [*keys, f"DATA.NORM.TRUST={trust}"])
        ).eval()
        for trust in (1.0, 0.5)
    )
    half.load_state_dict(whole.state_dict())
    rgb, voxels = torch.rand(1, 2, 3, 32, 32), torch.randn(1, 2, 32, 16, 16)
    with torch.no_grad():
        followed = whole.follow(rgb, voxels) if motion else None
        expected = whole(rgb, 0.5 * voxels, followed)
        torch.testing.assert_close(half(rgb, voxels), expected)
        assert not torch.equal(whole(rgb, voxels), expected)
