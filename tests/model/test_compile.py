"""The network under torch.compile; what the compiler makes of the graph is its own affair."""

from __future__ import annotations

import pytest
import torch

from spikedeblur.configs import load_config
from spikedeblur.model import build_model

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
