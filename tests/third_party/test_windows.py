from __future__ import annotations

import math

import pytest
import torch

from spikedeblur.third_party.VRT.attention import relative_position_index, sine_code
from spikedeblur.third_party.VRT.windows import MASKED, fit_window, plan_windows

CPU = torch.device("cpu")
SHAPES = [
    ((1, 4, 8, 8), (2, 4, 4), (0, 0, 0)),
    ((2, 4, 8, 12), (2, 4, 4), (1, 2, 2)),
    ((2, 5, 7, 9), (2, 4, 4), (1, 2, 2)),
    ((1, 1, 5, 6), (2, 4, 4), (0, 2, 2)),
    ((3, 3, 4, 9), (3, 4, 4), (0, 0, 2)),
]


@pytest.mark.parametrize(("shape", "window", "shift"), SHAPES)
def test_cutting_and_joining_gives_the_features_back(shape, window, shift):
    x = torch.rand(*shape, 6)
    plan = plan_windows(shape, window, shift, CPU)
    assert torch.equal(plan.join(plan.cut(x)), x)


@pytest.mark.parametrize(("shape", "window", "shift"), SHAPES)
def test_windows_and_masks_are_those_of_pad_roll_and_cut(shape, window, shift):
    """Compare, window by window, with the plain definition; windows may come in any order."""
    torch.manual_seed(0)
    x = torch.rand(*shape, 2)
    plan = plan_windows(shape, window, shift, CPU)
    masks = [mask for count, mask in plan.groups for _ in range(count)]
    ours = {_key(tokens): mask for tokens, mask in zip(plan.cut(x), masks, strict=True)}

    missing = [-side % extent for side, extent in zip(shape[1:], window, strict=True)]
    ends = [0, 0, 0, missing[2], 0, missing[1], 0, missing[0]]
    rolled = torch.nn.functional.pad(x, ends).roll([-s for s in shift], (1, 2, 3))
    region = _regions(rolled.shape[1:4], window, shift)
    seen = 0
    for clip in rolled:
        for d in range(0, clip.shape[0], window[0]):
            for h in range(0, clip.shape[1], window[1]):
                for w in range(0, clip.shape[2], window[2]):
                    part = (
                        slice(d, d + window[0]),
                        slice(h, h + window[1]),
                        slice(w, w + window[2]),
                    )
                    label = region[part].flatten()
                    expected = torch.where(label[:, None] == label, 0.0, MASKED)
                    mask = ours[_key(clip[part].reshape(-1, 2))]
                    assert torch.equal(
                        torch.zeros_like(expected) if mask is None else mask, expected
                    )
                    seen += 1
    assert seen == len(ours) == sum(count for count, _ in plan.groups)


def test_gradients_of_cut_and_join_are_exact():
    plan = plan_windows((1, 3, 3, 5), (2, 2, 2), (1, 1, 1), CPU)
    x = torch.rand(1, 3, 3, 5, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(8, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: plan.cut(x) * weight, x)
    assert torch.autograd.gradcheck(lambda x: plan.join(plan.cut(x) * weight), x)


@pytest.mark.parametrize(
    ("size", "mutual", "window", "shift"),
    [
        ((6, 64, 64), False, (6, 8, 8), (0, 4, 4)),
        ((7, 8, 9), False, (6, 8, 8), (3, 0, 4)),
        ((1, 5, 3), False, (1, 5, 3), (0, 0, 0)),
    ],
)
def test_each_axis_shrinks_its_window_by_itself(size, mutual, window, shift):
    assert fit_window(size, (6, 8, 8), True, mutual) == (window, shift)


@pytest.mark.parametrize(("frames", "shift"), [(1, 0), (2, 0), (3, 1)])
def test_a_mutual_window_always_has_two_frames(frames, shift):
    assert fit_window((frames, 9, 9), (2, 8, 8), True, True) == ((2, 8, 8), (shift, 4, 4))


def test_blocks_that_do_not_shift_have_no_mask():
    assert fit_window((7, 9, 9), (6, 8, 8), False, False)[1] == (0, 0, 0)
    plan = plan_windows((1, 12, 16, 16), (6, 8, 8), (0, 0, 0), CPU)
    assert plan.groups == ((8, None),)


def test_equal_displacements_share_a_bias_and_others_do_not():
    index = relative_position_index((2, 3, 4))
    places = [(d, h, w) for d in range(2) for h in range(3) for w in range(4)]
    rows: dict[tuple[int, ...], set[int]] = {}
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            displacement = tuple(a - b for a, b in zip(query, key, strict=True))
            rows.setdefault(displacement, set()).add(int(index[i, j]))
    assert all(len(used) == 1 for used in rows.values())
    assert {next(iter(used)) for used in rows.values()} == set(range(3 * 5 * 7))


def test_sine_code_is_its_closed_form():
    code = sine_code(3, 5, 8)
    for row in range(3):
        for column in range(5):
            for half, (place, count) in enumerate([(row, 3), (column, 5)]):
                for i in range(4):
                    angle = (place + 1) / (count + 1e-6) * 2 * math.pi
                    angle /= 10000 ** (2 * (i // 2) / 4)
                    expected = math.cos(angle) if i % 2 else math.sin(angle)
                    actual = code[0, row * 5 + column, 4 * half + i].item()
                    assert actual == pytest.approx(expected, abs=1e-6)


def _key(tokens):
    return tuple(tokens.flatten().tolist())


def _regions(size, window, shift):
    region = torch.zeros(tuple(size), dtype=torch.int64)
    for axis, (extent, moved) in enumerate(zip(window, shift, strict=True)):
        if moved:
            region.narrow(axis, size[axis] - extent, extent).add_(10**axis)
            region.narrow(axis, size[axis] - moved, moved).add_(10**axis)
    return region
