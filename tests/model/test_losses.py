import math
import time
import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import vgg16

from spikedeblur.model import CharbonnierLoss, VGGPerceptualLoss, losses
from spikedeblur.model.losses import VGG_LAYERS, LossError


@pytest.fixture(scope="module")
def vgg_weights():
    """Seeded weights under torchvision's names, features only."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        names = {k: v.shape for k, v in vgg16().state_dict().items() if k.startswith("features.")}
    return {
        name: torch.randn(shape, generator=generator) * 0.06
        if len(shape) > 1
        else torch.zeros(shape)
        for name, shape in names.items()
    }


def test_charbonnier_of_known_differences():
    x = torch.tensor([0.0, 3.0, -4.0], dtype=torch.float64)
    expected = (0.5 + math.hypot(3, 0.5) + math.hypot(4, 0.5)) / 3
    assert CharbonnierLoss(delta=0.5)(x, torch.zeros(3)).item() == pytest.approx(expected)
    assert CharbonnierLoss()(x, x).item() == pytest.approx(1e-3)


def test_charbonnier_has_a_gradient_at_zero():
    x = torch.zeros(3, requires_grad=True)
    CharbonnierLoss()(x, torch.zeros(3)).backward()
    assert torch.equal(x.grad, torch.zeros(3))


def test_losses_refuse_to_broadcast(vgg_weights):
    with pytest.raises(LossError, match="equal shapes"):
        CharbonnierLoss()(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(LossError, match="equal shapes"):
        VGGPerceptualLoss(weights=vgg_weights)(torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("layers", [("relu3_3",), ("relu1_2", "relu2_2", "relu4_3")])
def test_perceptual_loss_is_the_l1_distance_of_torchvision_features(layers, vgg_weights):
    torch.manual_seed(0)
    x, y = torch.rand(2, 2, 3, 3, 32, 40)  # (B, T, 3, H, W) each
    with torch.device("meta"):
        net = vgg16().features
    net = net.to_empty(device="cpu").eval()
    net.load_state_dict({k.removeprefix("features."): v for k, v in vgg_weights.items()})
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    distances = []
    for layer in layers:
        cut = net[: VGG_LAYERS[layer] + 1]
        with torch.no_grad():
            a, b = (cut((clip.flatten(0, 1) - mean) / std) for clip in (x, y))
        distances.append((a - b).abs().mean())
    expected = sum(distances) / len(layers)
    found = VGGPerceptualLoss(layers, vgg_weights)(x, y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_perceptual_network_is_cut_frozen_and_in_eval_mode(vgg_weights):
    loss = VGGPerceptualLoss(weights=vgg_weights)
    assert len(loss.features) == VGG_LAYERS["relu3_3"] + 1
    assert not loss.training
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    loss(x, torch.rand(1, 3, 16, 16)).backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_perceptual_weights_come_from_a_file(suffix, vgg_weights, tmp_path):
    path = tmp_path / f"vgg{suffix}"
    content = {**vgg_weights, "classifier.0.bias": torch.zeros(2)}
    torch.save(content, path) if suffix == ".pth" else save_file(content, path)
    loss = VGGPerceptualLoss(weights=path)
    assert torch.equal(loss.features[2].weight, vgg_weights["features.2.weight"])


def test_perceptual_weights_that_do_not_fit_are_refused(vgg_weights, tmp_path):
    some = {k: v for k, v in vgg_weights.items() if k != "features.5.weight"}
    with pytest.raises(LossError, match=r"features\.5\.weight"):
        VGGPerceptualLoss(weights=some)
    torch.save(some, tmp_path / "vgg.pth")
    with pytest.raises(LossError, match=r"features\.5\.weight"):
        VGGPerceptualLoss(weights=tmp_path / "vgg.pth")
    with pytest.raises(LossError, match=r"LOSS\.VGG_PERCEPTUAL\.WEIGHTS.*missing\.pth"):
        VGGPerceptualLoss(weights=tmp_path / "missing.pth")


@pytest.mark.parametrize("layers", [("relu3_2",), ()])
def test_unknown_layers_are_refused(layers):
    with pytest.raises(LossError, match="relu3_3"):
        VGGPerceptualLoss(layers)


def test_cached_imagenet_weights_are_used_without_network(vgg_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(vgg_weights, tmp_path / "hub/checkpoints/vgg16-397923af.pth")
    monkeypatch.setattr(losses.urllib.request, "urlopen", lambda *a, **k: pytest.fail("network"))
    loss = VGGPerceptualLoss()
    assert torch.equal(loss.features[0].weight, vgg_weights["features.0.weight"])


def test_without_network_the_error_says_what_to_do_at_once(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(losses.urllib.request, "urlopen", offline)
    start = time.monotonic()
    with pytest.raises(LossError) as error:
        VGGPerceptualLoss()
    assert time.monotonic() - start < 3
    for hint in (
        "vgg16-397923af.pth",
        "https://pytorch.org/vision/stable/models/vgg.html",
        "LOSS.VGG_PERCEPTUAL.WEIGHTS=FILE",
        "LOSS.VGG_PERCEPTUAL.WEIGHT=0",
    ):
        assert hint in str(error.value)
