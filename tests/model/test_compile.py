"""The network under torch.compile; what the compiler makes of the graph is its own affair."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spikedeblur.configs import load_config
from spikedeblur.model import VRTWithSpike, build_model
from spikedeblur.pipeline.train.step import keep_compiled
from spikedeblur.third_party.VRT import compile_blocks
from spikedeblur.third_party.VRT.attention import Block
from spikedeblur.third_party.VRT.compiling import CompilableBlock

SMALL = (
    "DATA.K=8",
    "DATA.NUM_VOXEL_BINS=8",
    "MODEL.VRT.pa_frames=2",
    "MODEL.VRT.deformable_groups=2",
    "MODEL.VRT.embed_dims=[8, 8, 8, 8, 8, 8, 8, 8]",
    "MODEL.VRT.num_heads=[2, 2, 2, 2, 2, 2, 2, 2]",
    "MODEL.VRT.depths=[2, 2, 2, 2, 2, 2, 2, 2]",
    "MODEL.CHANNELS_PER_SCALE=[8, 8, 8, 8]",
)


class Graphs:
    """A compiler that counts its graphs, and runs them as they are."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.number += 1
        return graph.forward


@pytest.fixture
def graphs() -> Iterator[Graphs]:
    limits = torch._dynamo.config.patch(cache_size_limit=8)
    torch._dynamo.reset()
    with limits:
        yield Graphs()
    torch._dynamo.reset()


def blocks_of(number: int, **changes: Any) -> list[Block]:
    torch.manual_seed(0)
    kind: dict[str, Any] = {"window": (2, 4, 4), "shifted": False, "mutual": True}
    kind |= {"heads": 2, "mlp_ratio": 2.0, "qkv_bias": True} | changes
    return [Block(8, drop_path=0.1 * (i + 1), **kind).train() for i in range(number)]


def through(blocks: list[Block], shape: tuple[int, ...] = (2, 2, 8, 8)) -> torch.Tensor:
    torch.manual_seed(1)
    x = torch.rand(*shape, 8, dtype=torch.float64, requires_grad=True)
    for block in blocks:
        x = block.double()(x)
    return x


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_known_shape_is_one_graph(training):
    config = load_config("configs/deblur/quickstart.yaml", SMALL)
    model = build_model(config).train(training)
    inputs = torch.rand(1, 3, 3, 32, 32), torch.rand(1, 3, 8, 16, 16)
    with torch.set_grad_enabled(training):
        with torch.no_grad():
            model(*inputs)  # plans its windows
        found = torch._dynamo.explain(model)(*inputs)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


def test_blocks_of_a_kind_share_a_graph_and_give_what_they_gave(graphs: Graphs):
    blocks = [*blocks_of(3), *blocks_of(2, shifted=True)]
    expected = through(blocks)
    compile_blocks(torch.nn.ModuleList(blocks), graphs)
    torch.testing.assert_close(through(blocks), expected)
    assert graphs.number == 2
    through(blocks)
    assert graphs.number == 2


def test_a_clip_of_another_length_is_compiled_once_and_others_stay(graphs: Graphs):
    blocks = blocks_of(2)
    compile_blocks(torch.nn.ModuleList(blocks), graphs)
    for shape, compiled in (
        ((1, 3, 8, 8), 1),
        ((1, 2, 8, 8), 2),
        ((1, 3, 8, 8), 2),
        ((1, 2, 8, 8), 2),
    ):
        through(blocks, shape)
        assert graphs.number == compiled


def test_validation_runs_what_is_written(graphs: Graphs):
    blocks = blocks_of(1)
    compile_blocks(torch.nn.ModuleList(blocks), graphs)
    blocks[0].eval()
    through(blocks)
    assert graphs.number == 0


def test_more_kinds_than_torch_allows_by_itself_are_all_compiled(graphs: Graphs):
    sizes = range(4, 13)  # 9 shapes; torch stops at 8
    blocks = blocks_of(1)
    compile_blocks(torch.nn.ModuleList(blocks), graphs)
    for side in sizes:
        through(blocks, (1, 2, side, 8))
    assert graphs.number == len(sizes)


def deep(config_overrides: tuple[str, ...]) -> VRTWithSpike:
    on = ("MODEL.VRT.depths=[4, 4, 4, 4, 4, 4, 4, 4]", "MODEL.VRT.drop_path_rate=0.2")
    config = load_config("configs/deblur/quickstart.yaml", (*SMALL, *on, *config_overrides))
    torch.manual_seed(0)
    model = build_model(config).train()
    torch.nn.init.normal_(model.vrt.conv_last.weight, std=0.02)
    return model.double()


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", ["[]", "[attention, feed_forward]", "[block]"])
def test_a_network_is_compiled_by_kinds_without_breaks(graphs: Graphs, recomputed: str):
    model = deep((f"MODEL.RECOMPUTE={recomputed}",))
    inputs = torch.rand(1, 3, 3, 64, 64).double(), torch.rand(1, 3, 8, 32, 32).double()

    def step() -> tuple[torch.Tensor, ...]:
        torch.manual_seed(3)
        model.zero_grad()
        out = model(*inputs)
        out.square().sum().backward()
        gradients = (p.grad.clone() for p in model.parameters() if p.grad is not None)
        return (out.detach(), *gradients)

    expected = step()
    compile_blocks(model, graphs)
    blocks = sum(isinstance(module, CompilableBlock) for module in model.modules())
    torch._dynamo.utils.counters.clear()
    for one, other in zip(step(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert graphs.number < blocks
    assert not torch._dynamo.utils.counters["graph_break"]
    compiled = graphs.number
    step()
    assert graphs.number == compiled


def test_what_is_compiled_is_kept_for_the_next_start(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    keep_compiled()
    from torch._inductor.codecache import cache_dir

    assert Path(cache_dir()) == tmp_path / "spikedeblur" / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "elsewhere"))
    keep_compiled()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "elsewhere")
