from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml

import spikedeblur.third_party.VRT as package
from spikedeblur.third_party.VRT import (
    VRT,
    Recompute,
    VRTConfigError,
    pad_to_multiple,
    set_recompute,
)


def clip(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_base_options_give_the_published_size(oracle_case):
    options = Path(package.__file__).parent / "options" / "deblur" / "vrt_base.yaml"
    model = VRT(**yaml.safe_load(options.read_text()))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 18.32
    names = list(model.state_dict())
    assert len(names) == 1526
    assert names == list(oracle_case("deblur_006").facts["state_dict"])


@pytest.mark.parametrize(
    ("frames", "height", "width"),
    [(1, 17, 23), (2, 17, 23), (3, 17, 23), (1, 1, 1), (2, 3, 70), (5, 32, 32)],
)
@pytest.mark.parametrize("pa_frames", [0, 2])
def test_any_size_and_length_keeps_its_shape(small_vrt, frames, height, width, pa_frames):
    x = clip(1, frames, 3, height, width)
    with torch.no_grad():
        out = small_vrt(pa_frames=pa_frames)(x)
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert not torch.equal(out, x)


def test_a_larger_window_than_the_clip_works(small_vrt):
    with torch.no_grad():
        out = small_vrt(window_size=(6, 8, 8))(clip(1, 3, 3, 24, 40))
    assert out.isfinite().all()


def test_odd_sizes_equal_the_padded_clip_cropped(small_vrt):
    model = small_vrt()
    x = clip(1, 2, 3, 30, 42)
    reflected = torch.cat([x, x[..., 28:29, :], x[..., 27:28, :]], -2)
    reflected = torch.cat([reflected, reflected[..., 35:41].flip(-1)], -1)
    with torch.no_grad():
        assert torch.equal(model(x), model(reflected)[..., :30, :42])


def test_padding_repeats_the_last_pixel_where_it_cannot_reflect():
    x = torch.arange(3.0).view(1, 1, 1, 3).expand(1, 1, 8, 3)
    assert pad_to_multiple(x)[0, 0, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert pad_to_multiple(clip(1, 8, 16)).shape == (1, 8, 16)


def test_clips_of_a_batch_do_not_mix(small_vrt):
    model = small_vrt().double()
    x = clip(2, 3, 3, 24, 40).double()
    with torch.no_grad():
        apart = torch.cat([model(one[None]) for one in x])
        torch.testing.assert_close(model(x), apart, rtol=0, atol=1e-10)


def test_fuse_is_called_once_a_scale_with_the_stage_output(small_vrt):
    calls = []

    def identity(scale, features):
        calls.append((scale, tuple(features.shape)))
        return features

    model = small_vrt()
    x = clip(2, 3, 3, 16, 24)
    with torch.no_grad():
        assert torch.equal(model(x, fuse=identity), model(x))
    assert calls == [(s, (2, 8, 3, 16 >> s, 24 >> s)) for s in range(4)]


@pytest.mark.parametrize("scale", range(4))
def test_fused_features_replace_the_output_of_each_stage(small_vrt, scale):
    model = small_vrt()
    x = clip(1, 2, 3, 16, 24)
    noise = clip(8 * 2 * 16 * 24, seed=2)  # the same for all channels would be normalised away
    with torch.no_grad():
        changed = model(x, fuse=lambda s, f: f + noise[: f.numel()].view(f.shape) * (s == scale))
        assert not torch.allclose(changed, model(x), atol=1e-6)


@pytest.mark.parametrize(("scale", "stage"), [(0, "stage8"), (1, "stage7"), (2, "stage6")])
def test_fused_features_reach_the_skip_connection(small_vrt, scale, stage):
    """Zeros out of the next stages leave the skip connection as the only way."""
    model = small_vrt()
    entered = []
    below = model.stage8[0] if stage == "stage8" else getattr(model, stage)
    below.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    getattr(model, f"stage{7 - scale}").register_forward_hook(
        lambda module, args, out: torch.zeros_like(out)
    )
    with torch.no_grad():
        model(
            clip(1, 2, 3, 16, 24),
            fuse=lambda s, f: torch.full_like(f, 7.0) if s == scale else f,
        )
    assert (entered[0] == 7).all()


def test_skip_features_are_added_before_the_last_convolution(small_vrt):
    model = small_vrt().double()
    x = clip(1, 2, 3, 17, 24).double()
    skip = torch.zeros(1, 8, 2, 17, 24, dtype=torch.float64)
    with torch.no_grad():
        plain = model(x)
        assert torch.equal(model(x, skip=skip), plain)
        added = model(x, skip=skip + 1) - plain
        ones = pad_to_multiple(skip + 1).transpose(1, 2)
        expected = model.conv_last(ones) - model.conv_last(torch.zeros_like(ones))
        torch.testing.assert_close(added, expected[..., :17, :], rtol=0, atol=1e-10)


def test_fuse_and_skip_of_another_shape_are_refused(small_vrt):
    model = small_vrt(pa_frames=0)
    x = clip(1, 2, 3, 16, 16)
    with pytest.raises(ValueError, match="scale 0"):
        model(x, fuse=lambda s, f: f[:, :4])
    with pytest.raises(ValueError, match="skip"):
        model(x, skip=torch.zeros(1, 8, 2, 8, 8))
    with pytest.raises(ValueError, match=r"\(B, D, 3, H, W\)"):
        model(x[:, :, :2])
    with pytest.raises(ValueError, match="no empty side"):
        model(x[:, :0])


def test_flows_have_the_stated_shapes(small_vrt):
    model = small_vrt()
    with torch.no_grad():
        for frames in (1, 4):
            for flows in model.get_flows(clip(2, frames, 3, 40, 72)):
                sizes = [(2, frames - 1, 2, 40 >> s, 72 >> s) for s in range(4)]
                assert [tuple(flow.shape) for flow in flows] == sizes


def test_flows_of_a_reversed_clip_change_places(small_vrt):
    model = small_vrt().double()
    x = clip(1, 3, 3, 40, 40).double()
    with torch.no_grad():
        backward, forward = model.get_flows(x)
        backward_reversed, _ = model.get_flows(x.flip(1))
    torch.testing.assert_close(backward_reversed[0].flip(1), forward[0], rtol=0, atol=1e-10)
    assert not torch.allclose(forward[0], backward[0])


def test_unshuffled_clips_take_flow_from_the_area_mean(small_vrt):
    model, wide = small_vrt(), small_vrt(in_chans=12)
    wide.spynet.load_state_dict(model.spynet.state_dict())
    full = clip(1, 3, 3, 80, 96)
    small = torch.nn.functional.avg_pool2d(full[0], 2)[None]
    unshuffled = torch.nn.functional.pixel_unshuffle(full, 2)
    with torch.no_grad():
        for one, other in zip(wide.get_flows(unshuffled), model.get_flows(small), strict=True):
            for flow, same in zip(one, other, strict=True):
                torch.testing.assert_close(flow, same, rtol=0, atol=1e-4)
        assert wide(unshuffled).shape == unshuffled.shape
    assert wide.conv_first.weight.shape == (8, 108, 1, 3, 3)


def test_other_channels_out_leave_the_residual_to_the_caller(small_vrt):
    model = small_vrt(in_chans=12, out_chans=3, pa_frames=0)
    torch.nn.init.zeros_(model.conv_last.weight)
    torch.nn.init.zeros_(model.conv_last.bias)
    assert not model(clip(1, 2, 12, 8, 8)).any()


def test_without_alignment_there_are_no_parameters_for_it(small_vrt):
    model = small_vrt(pa_frames=0)
    assert not [n for n, _ in model.named_parameters() if "spynet" in n or ".pa_" in n]
    assert model.conv_first.weight.shape == (8, 3, 1, 3, 3)
    with pytest.raises(VRTConfigError, match="pa_frames=0"):
        model.get_flows(clip(1, 2, 3, 16, 16))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"upscale": 4}, "upscale 1"),
        ({"pa_frames": 4}, "pa_frames 2 .* or 0"),
        ({"in_chans": 4}, "in_chans 3 s"),
        ({"in_chans": 6}, "in_chans 3 s"),
        ({"depths": (1,) * 5}, "one length"),
        ({"num_heads": (3,) * 9}, "divisible by num_heads"),
        ({"deformable_groups": 3}, "deformable_groups"),
        ({"indep_reconsts": (3,)}, "indep_reconsts"),
        ({"window_size": (2, 0, 4)}, "window_size"),
        ({"embed_dims": (8, 8, 8, 8, 16, 8, 8, 12, 12)}, "skip"),
        ({"embed_dims": (8,) * 8 + (12,)}, "eighth"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
    ],
)
def test_impossible_sizes_are_refused(small_vrt, wrong, message):
    with pytest.raises(VRTConfigError, match=message):
        small_vrt(**wrong)


PARTS = ("attention", "feed_forward", "warping", "block", "stage")


def kept_bytes(model, x):
    """Return the output, and the bytes that autograd keeps of what is not a parameter."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(x)
    return out, sum(kept.values())


@pytest.mark.parametrize("parts", [*((part,) for part in PARTS), PARTS[:2], PARTS])
def test_recomputing_keeps_less_and_changes_neither_output_nor_gradient(small_vrt, parts):
    plain = small_vrt(drop_path_rate=0.5).train()
    saving = small_vrt(drop_path_rate=0.5).train()
    set_recompute(saving, Recompute(**dict.fromkeys(parts, True)))
    x = clip(2, 2, 3, 16, 16)
    outputs, kept = [], []
    for model in (plain, saving):
        torch.manual_seed(3)
        out, nbytes = kept_bytes(model, x)
        out.square().sum().backward()
        outputs.append(out)
        kept.append(nbytes)
    assert torch.equal(*outputs)
    assert kept[1] < kept[0]
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_published_names_choose_what_is_recomputed(small_vrt):
    model = small_vrt(use_checkpoint_attn=True, use_checkpoint_ffn=True)
    assert model.stage3.residual_group1.blocks[0].recompute == Recompute(True, True)
    assert small_vrt().stage8[1].recompute == Recompute()


def test_drop_path_acts_in_training_only(small_vrt):
    model = small_vrt(drop_path_rate=0.9, pa_frames=0)
    x = clip(2, 2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        assert torch.equal(model(x), small_vrt(drop_path_rate=0.0, pa_frames=0)(x))
        model.train()
        assert not torch.equal(model(x), model(x))


def test_a_gradient_reaches_every_parameter(small_vrt):
    model = small_vrt()
    model(clip(1, 3, 3, 40, 40)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_autocast_gives_nearly_the_same(small_vrt):
    model = small_vrt(pa_frames=0)  # random alignment amplifies bf16's rounding beyond comparison
    x = clip(1, 3, 3, 40, 40)
    with torch.no_grad():
        change = model(x) - x
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
    assert (out - x - change).abs().mean() < 0.1 * change.abs().mean()


@pytest.mark.slow  # bf16 by a CPU without instructions for it
def test_autocast_keeps_flows_in_float32_and_gives_gradients(small_vrt):
    model = small_vrt()
    x = clip(1, 3, 3, 40, 40)
    exact = model.get_flows(x)[0][0]
    with torch.autocast("cpu", torch.bfloat16):
        flow = model.get_flows(x)[0][0]
        out = model(x)
    assert flow.dtype == torch.float32
    assert (flow - exact).abs().mean() < 0.02 * exact.abs().mean()
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_copy_computes_the_same_and_trains_apart(small_vrt):
    model = small_vrt(pa_frames=0)
    x = clip(1, 2, 3, 16, 16)
    model(x).sum().backward()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = model(x)
        assert torch.equal(twin(x), before)
        for parameter in twin.parameters():
            parameter.add_(1)
        assert torch.equal(model(x), before)


def test_training_works_after_inference_mode(small_vrt):
    model = small_vrt(pa_frames=0)
    x = clip(1, 2, 3, 56, 8)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_gives_the_cpu_result(small_vrt):
    model = small_vrt().double()
    x = clip(1, 3, 3, 40, 40).double()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), expected, rtol=0, atol=1e-8)
