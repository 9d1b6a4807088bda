import pytest
import torch
from torch import nn

from spikedeblur.model.time_attention import FEW_FRAMES, FeedForward, TimeAttention


def pair(dim, heads):
    torch.manual_seed(0)
    ours = TimeAttention(dim, heads).double()
    torch_own = nn.MultiheadAttention(dim, heads, batch_first=True).double()
    nn.init.normal_(torch_own.in_proj_bias)
    nn.init.normal_(torch_own.out_proj.bias)
    ours.load_state_dict(torch_own.state_dict())  # strict: the same names and shapes
    return ours, torch_own


def per_pixel(attention, query, source):
    """The definition: one sequence of T tokens for each pixel."""
    batch, _, rows, columns, dim = query.shape
    q, s = (x.permute(0, 2, 3, 1, 4).reshape(-1, x.shape[1], dim) for x in (query, source))
    out, _ = attention(q, s, s, need_weights=False)
    return out.view(batch, rows, columns, -1, dim).permute(0, 3, 1, 2, 4)


@pytest.mark.parametrize("frames", [1, 2, FEW_FRAMES, FEW_FRAMES + 1, 7])
@pytest.mark.parametrize("cross", [False, True])
def test_equals_torch_multi_head_attention_in_values_and_gradients(frames, cross):
    ours, torch_own = pair(dim=12, heads=3)
    query = torch.randn(2, frames, 3, 2, 12, dtype=torch.float64, requires_grad=True)
    source = torch.randn(2, frames, 3, 2, 12, dtype=torch.float64) if cross else None
    out = ours(query, source)
    expected = per_pixel(torch_own, query, query if source is None else source)
    torch.testing.assert_close(out, expected)

    weight = torch.randn_like(out)
    wanted = torch.autograd.grad((expected * weight).sum(), [query, *torch_own.parameters()])
    names = [name for name, _ in torch_own.named_parameters()]
    own = dict(ours.named_parameters())
    found = torch.autograd.grad((out * weight).sum(), [query, *(own[name] for name in names)])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_source_may_have_another_number_of_frames():
    ours, torch_own = pair(dim=8, heads=2)
    query = torch.randn(1, 2, 2, 2, 8, dtype=torch.float64)
    source = torch.randn(1, 6, 2, 2, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(query, source), per_pixel(torch_own, query, source))


def test_starts_as_torch_does():
    torch.manual_seed(3)
    ours = TimeAttention(16, 4)
    torch.manual_seed(3)
    torch_own = nn.MultiheadAttention(16, 4)
    spread = torch_own.in_proj_weight.std().item()
    assert ours.in_proj_weight.std().item() == pytest.approx(spread, rel=0.1)
    assert not ours.in_proj_bias.any()
    assert not ours.out_proj.bias.any()


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    attention = TimeAttention(8, 2, dropout=0.5)
    x = torch.randn(1, 3, 4, 4, 8)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_feed_forward_has_the_stated_width_and_may_start_at_zero():
    assert FeedForward(8, 2)[0].out_features == 16
    assert not FeedForward(8, 2, identity_init=True)(torch.randn(3, 8)).any()
    assert FeedForward(8, 2)(torch.randn(3, 8)).any()
