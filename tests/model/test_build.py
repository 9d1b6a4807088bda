import pytest
import torch

from spikedeblur.configs import load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import CharbonnierLoss, build_model, normalize_counts, parameter_table
from spikedeblur.model.motion_deblur import MAPS
from spikedeblur.third_party.VRT import Recompute

BASELINE = "configs/deblur/vrt_spike_baseline.yaml"
QUICKSTART = "configs/deblur/quickstart.yaml"


def train_one_step(config, device, crop, frames, batch=1):
    """One step as training takes it, from raw counts; returns the model's parameter table."""
    torch.manual_seed(0)
    model = build_model(config).to(device).train()
    rgb, sharp = torch.rand(2, batch, frames, 3, crop, crop, device=device)
    counts = torch.randint(
        0, 9, (batch, frames, config.DATA.K, crop // 2, crop // 2), device=device
    )
    voxels = normalize_counts(
        counts.to(torch.uint8), torch.full((batch, frames), 257), 0.5, config.DATA.NORM
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):  # the last layer moves first, then what is before it
        optimizer.zero_grad()
        loss = CharbonnierLoss()(model(rgb, voxels), sharp)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert not torch.equal(model(rgb, voxels), model(rgb, voxels.flip(2)))
    return parameter_table(model)


def show(table):
    print()
    for part, parameters in table:
        print(f"{part:24} {parameters:>12,}")
    print(f"{'total':24} {sum(n for _, n in table):>12,}")


def test_baseline_is_the_published_network_and_a_spike_branch():
    table = parameter_table(build_model(load_config(BASELINE)))
    show(table)
    vrt = sum(parameters for part, parameters in table if part.startswith("vrt."))
    assert round(vrt / 1e6, 2) == 18.32
    # By hand, C = 96 and K = 32. Encoder: 27 C K + C, then 19 convolutions of 27 C^2 + C.
    c = 96
    assert dict(table)["spike_encoder"] == (27 * 32 * c + c) + 19 * (27 * c * c + c)
    # A block: attention 4 C^2 + 4 C, feed-forward 4 C^2 + 3 C, norms 4 C (fusion: 6 C).
    assert dict(table)["spike_temporal_sa"] == 4 * (8 * c * c + 11 * c)
    assert dict(table)["cross_attn_fuse"] == 4 * (8 * c * c + 13 * c)


def test_quickstart_takes_a_step_on_cpu():
    show(train_one_step(load_config(QUICKSTART), "cpu", crop=32, frames=3, batch=2))


@pytest.mark.slow
def test_full_model_takes_a_step_on_cpu():
    show(train_one_step(load_config(BASELINE), "cpu", crop=64, frames=2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", [BASELINE, QUICKSTART])
def test_full_model_takes_a_step_on_cuda(name):
    show(train_one_step(load_config(name), "cuda", crop=64, frames=3))


def test_settings_reach_the_modules():
    config = load_config(
        QUICKSTART,
        [
            "MODEL.FUSE.ENABLED=true",
            "MODEL.FUSE.CHUNK_SIZE=7",
            "MODEL.FUSE.IDENTITY_INIT=false",
            "MODEL.SPIKE_TSA.CHUNK_SHAPE=wide",
            "MODEL.SPIKE_TSA.MLP_RATIO=3",
            "MODEL.SPIKE_TSA.HEADS=8",
            "MODEL.USE_CHECKPOINT_ATTN=true",
            "DATA.K=16",
            "DATA.NUM_VOXEL_BINS=16",
        ],
    )
    model = build_model(config)
    fuse, tsa = model.cross_attn_fuse.fuse_blocks[0], model.spike_temporal_sa.blocks[0]
    assert (fuse.chunk_size, fuse.max_chunk_bytes) == (7, 64 * 10**6)
    assert fuse.recompute == tsa.recompute == Recompute(attention=True)
    assert fuse.attn.out_proj.weight.any()
    assert (tsa.chunk_shape, tsa.attn.heads, tsa.mlp[0].out_features) == ("wide", 8, 96)
    # Bins, and folded: the blurred frame, the frame sharp along the motion, its maps.
    assert model.spike_encoder.stem[0].in_channels == 16 + 12 + 12 + 4 * MAPS
    assert model.spike_skip is not None
    assert len(model.coarse_skips) == 3


@pytest.mark.parametrize("part", ["SPIKE_TSA", "FUSE"])
def test_a_part_left_out_has_no_parameters_and_spikes_still_matter(part):
    keys = [
        "MODEL.FUSE.ENABLED=true",
        "MODEL.FUSE.IDENTITY_INIT=false",
        "MODEL.RESIDUAL_BASE=blur",
    ]
    whole = build_model(load_config(QUICKSTART, keys))
    model = build_model(load_config(QUICKSTART, [*keys, f"MODEL.{part}.ENABLED=false"])).eval()
    missing = {"SPIKE_TSA": "spike_temporal_sa", "FUSE": "cross_attn_fuse"}[part]
    names = {name.split(".")[0] for name, _ in whole.named_parameters()}
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == names - {missing}
    rgb = torch.rand(1, 2, 3, 16, 16)
    voxels = torch.randn(1, 2, 32, 8, 8)
    assert not torch.equal(model(rgb, voxels), model(rgb, -voxels))


def test_recomputing_changes_neither_output_nor_gradients():
    results = []
    for setting in (
        "MODEL.RECOMPUTE=[]",
        "MODEL.RECOMPUTE=null",
        "MODEL.RECOMPUTE=[attention, feed_forward, warping, block, stage]",
    ):
        keys = ["MODEL.USE_CHECKPOINT_ATTN=true", "MODEL.USE_CHECKPOINT_FFN=true"]
        config = load_config(QUICKSTART, [*keys, setting, "MODEL.FUSE.IDENTITY_INIT=false"])
        torch.manual_seed(0)
        model = build_model(config).double()
        rgb = torch.linspace(0, 1, 2 * 3 * 32 * 32, dtype=torch.float64).view(1, 2, 3, 32, 32)
        voxels = torch.linspace(-1, 1, 2 * 32 * 256, dtype=torch.float64).view(1, 2, 32, 16, 16)
        out = model(rgb, voxels)
        out.square().mean().backward()
        results.append([out, *(p.grad for p in model.parameters())])
    for plain, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, plain)


def test_recompute_takes_the_place_of_the_published_keys():
    model = build_model(load_config(QUICKSTART, ["MODEL.RECOMPUTE=[stage, warping]"]))
    assert model.vrt.stage1.recompute == Recompute(warping=True, stage=True)
    with pytest.raises(SpikeDeblurError, match="RECOMPUTE"):
        load_config(QUICKSTART, ["MODEL.RECOMPUTE=[flow]"])


def test_pretrained_weights_are_loaded_into_the_published_network(tmp_path):
    donor = build_model(load_config(QUICKSTART))
    torch.save({"params": donor.vrt.state_dict()}, tmp_path / "vrt.pth")
    config = load_config(QUICKSTART, [f"MODEL.PRETRAINED={tmp_path / 'vrt.pth'}"])
    model = build_model(config)
    for name, weight in donor.vrt.state_dict().items():
        assert torch.equal(model.vrt.state_dict()[name], weight)


def test_pretrained_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save({"params": {"other": torch.zeros(1)}}, tmp_path / "vrt.pth")
    with pytest.raises(SpikeDeblurError, match=r"vrt\.pth"):
        build_model(load_config(QUICKSTART, [f"MODEL.PRETRAINED={tmp_path / 'vrt.pth'}"]))
