import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikedeblur.model import (
    BaseChunkableAttention,
    SpikeTemporalSelfAttention,
    TemporalCrossAttnFuseBlock,
)
from spikedeblur.model.chunked import ChunkError

SIZES = {
    "batch": st.integers(1, 3),
    "frames": st.integers(1, 6),
    "rows": st.integers(1, 13),
    "columns": st.integers(1, 13),
}
CHUNKS = st.fixed_dictionaries(
    {
        "adaptive_chunk": st.booleans(),
        "max_batch_tokens": st.integers(1, 200),
        "chunk_size": st.integers(1, 9),
        "chunk_shape": st.sampled_from(["square", "wide", "tall"]),
        "max_chunk_mb": st.floats(1e-6, 0.1),
    }
)


def gradients(module, out):
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out * weight).sum(), list(module.parameters()))


@settings(max_examples=30, deadline=None)
@given(chunk_cfg=CHUNKS, seed=st.integers(0, 99), **SIZES)
def test_self_attention_does_not_depend_on_chunks(batch, frames, rows, columns, chunk_cfg, seed):
    torch.manual_seed(seed)
    whole = SpikeTemporalSelfAttention(8, heads=2).double()
    cut = SpikeTemporalSelfAttention(8, heads=2, chunk_cfg=chunk_cfg).double()
    cut.load_state_dict(whole.state_dict())
    x = torch.randn(batch, frames, 8, rows, columns, dtype=torch.float64)
    expected, found = whole(x), cut(x)
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients(cut, found), gradients(whole, expected), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=30, deadline=None)
@given(chunk_cfg=CHUNKS, seed=st.integers(0, 99), **SIZES)
def test_fusion_does_not_depend_on_chunks(batch, frames, rows, columns, chunk_cfg, seed):
    torch.manual_seed(seed)
    whole = TemporalCrossAttnFuseBlock(8, heads=2, identity_init=False).double()
    cut = TemporalCrossAttnFuseBlock(8, 2, chunk_cfg=chunk_cfg, identity_init=False).double()
    cut.load_state_dict(whole.state_dict())
    rgb, spikes = torch.randn(2, batch, frames, 8, rows, columns, dtype=torch.float64)
    expected, found = whole(rgb, spikes), cut(rgb, spikes)
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients(cut, found), gradients(whole, expected), strict=True):
        torch.testing.assert_close(a, b)


@given(
    clips=st.integers(1, 40),
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    limit=st.integers(1, 60000),
    side=st.integers(1, 100),
    shape=st.sampled_from(["square", "wide", "tall"]),
)
def test_adaptive_chunk_stays_within_the_limit(clips, rows, columns, limit, side, shape):
    base = BaseChunkableAttention(max_batch_tokens=limit, chunk_size=side, chunk_shape=shape)
    chunk = base.choose_chunk(clips, rows, columns)
    assert chunk.clips * chunk.rows * chunk.columns <= limit
    assert 1 <= chunk.clips <= clips
    assert 1 <= chunk.rows <= rows
    assert 1 <= chunk.columns <= columns
    if clips * rows * columns > limit:
        assert chunk.rows * chunk.columns <= side**2
    else:
        assert chunk == (clips, rows, columns)


def test_shapes_of_chunks():
    def chunk(shape):
        return BaseChunkableAttention(max_batch_tokens=1000, chunk_shape=shape).choose_chunk(
            1, 256, 256
        )

    assert chunk("square") == (1, 31, 32)
    assert chunk("wide") == (1, 15, 63)
    assert chunk("tall") == (1, 63, 15)


def test_reference_limits_cut_a_full_crop_into_squares_of_64():
    assert BaseChunkableAttention().choose_chunk(1, 256, 256) == (1, 64, 64)
    assert BaseChunkableAttention().choose_chunk(1, 128, 128) == (1, 128, 128)


def test_a_chunk_holds_no_more_bytes_than_the_limit():
    base = BaseChunkableAttention(max_chunk_mb=1)
    chunk = base.choose_chunk(2, 128, 128, pixel_bytes=2000)
    assert 0.8 * 10**6 < chunk.clips * chunk.rows * chunk.columns * 2000 <= 10**6
    assert base.choose_chunk(2, 128, 128, pixel_bytes=2 * 10**6) == (1, 1, 1)
    assert base.choose_chunk(2, 8, 8, pixel_bytes=2000) == (2, 8, 8)


def test_more_frames_make_smaller_chunks(caplog):
    block = SpikeTemporalSelfAttention(8, heads=2, chunk_cfg={"max_chunk_mb": 2**20 / 10**6})
    sizes = []
    with caplog.at_level(logging.DEBUG, "spikedeblur.model.chunked"), torch.no_grad():
        for frames, side in ((2, 64), (8, 65)):
            block(torch.zeros(1, frames, 8, side, side))
            sizes.append(caplog.records[-1].getMessage().split(", ")[-1])
    assert sizes == ["45x45 pixels", "22x23 pixels"]


def test_fixed_chunk_has_the_given_side():
    base = BaseChunkableAttention(adaptive_chunk=False, chunk_size=16)
    assert base.choose_chunk(9, 100, 10) == (9, 16, 10)


def test_chunk_is_logged_once_a_shape(caplog):
    block = SpikeTemporalSelfAttention(8, heads=2)
    with caplog.at_level(logging.DEBUG, "spikedeblur.model.chunked"):
        for side in (4, 4, 5, 4):
            block(torch.zeros(1, 2, 8, side, side))
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "SpikeTemporalSelfAttention: 1 clips of 4x4 pixels",
        "SpikeTemporalSelfAttention: 1 clips of 5x5 pixels",
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"chunk_size": 0}, {"max_batch_tokens": 0}, {"max_chunk_mb": 0}, {"chunk_shape": "round"}],
)
def test_impossible_chunks_are_refused(wrong):
    with pytest.raises(ChunkError, match="expected"):
        BaseChunkableAttention(**wrong)
