from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from spikedeblur.third_party.VRT import deformable


@pytest.mark.parametrize("size", [(3, 12, 10), (1, 9, 8), (2, 1, 8), (2, 5, 1)])
@pytest.mark.parametrize("limit", [1 << 30, 1 << 16, 1])
def test_values_and_gradients_are_torchvisions_whatever_is_sampled_at_once(
    monkeypatch, size, limit
):
    monkeypatch.setattr(deformable, "SAMPLED_BYTES", limit)
    batch, height, width = size
    channels, groups, generator = 8, 4, torch.Generator().manual_seed(0)
    shapes = {
        "x": (batch, channels, height, width),
        "offset": (batch, 18 * groups, height, width),
        "mask": (batch, 9 * groups, height, width),
        "weight": (6, channels, 3, 3),
        "bias": (6,),
    }
    given = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    given["offset"] *= 4  # many land outside
    ours = {name: value.clone().requires_grad_() for name, value in given.items()}
    theirs = {name: value.clone().requires_grad_() for name, value in given.items()}
    found = deformable.deform_conv(**ours)
    expected = deform_conv2d(
        theirs["x"],
        theirs["offset"],
        theirs["weight"],
        theirs["bias"],
        padding=(1, 1),
        mask=theirs["mask"],
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    upstream = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    found.backward(upstream)
    expected.backward(upstream)
    for name in given:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=0, atol=1e-10)


def test_without_gradients_the_result_is_the_same():
    generator = torch.Generator().manual_seed(1)
    x, offset, mask = (
        torch.randn(2, channels, 6, 7, generator=generator) for channels in (4, 36, 18)
    )
    weight = torch.randn(4, 4, 3, 3, generator=generator, requires_grad=True)
    bias = torch.zeros(4, requires_grad=True)
    kept = deformable.deform_conv(x, offset, mask, weight, bias)
    with torch.no_grad():
        torch.testing.assert_close(
            deformable.deform_conv(x, offset, mask, weight, bias), kept, rtol=0, atol=0
        )
