from __future__ import annotations

from functools import partial

import pytest
import torch
from training_sets import SMALL, TinyNetwork, tiny_config

from spikedeblur.configs import load_config
from spikedeblur.errors import SpikeDeblurError
from spikedeblur.model import build_model
from spikedeblur.pipeline.train import step
from spikedeblur.pipeline.train.clock import Clock
from spikedeblur.pipeline.train.distributed import Group
from spikedeblur.pipeline.train.objective import Objective
from spikedeblur.pipeline.train.optimizer import parameter_groups
from spikedeblur.pipeline.train.precision import Precision
from spikedeblur.pipeline.train.step import Learner
from spikedeblur.third_party.VRT import compile_blocks

CPU = torch.device("cpu")


def learner(*overrides: str) -> Learner:
    flow = ("MODEL.VRT.pa_frames=2", "MODEL.VRT.deformable_groups=2", "TRAIN.AMP=off")
    # A network that starts as its base moves its last layer alone at first.
    flow = (*flow, "MODEL.FUSE.IDENTITY_INIT=false")
    config = load_config("configs/deblur/quickstart.yaml", (*SMALL, *flow, *overrides))
    torch.manual_seed(0)
    model, objective = build_model(config), Objective(config.LOSS)
    return Learner(config, Group(0, 1, CPU), model, objective, Precision.choose("off", CPU))


def batch() -> dict:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 1, 2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return {
        "blur": frames[0],
        "sharp": frames[1],
        "voxels": torch.randint(0, 5, (1, 2, 8, 16, 16), dtype=torch.uint8, generator=generator),
        "gain": torch.tensor([0.5]),
        "samples": torch.full((1, 2), 64),
        "weight": 1.0,
        "place": 0,
        "seq": ["a"],
        "frame_index": [[0, 1]],
    }


def changes(learner: Learner, done: int) -> dict[str, float]:
    """By how much each parameter changes in a step."""
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    learner.step([batch()], done, 1e-3, Clock(CPU), raw=True)
    return {
        name: float((p.detach() - before[name]).abs().max())
        for name, p in learner.model.named_parameters()
    }


def test_parts_have_their_share_of_the_rate():
    ours = learner("TRAIN.OPTIM.FLOW_LR_SCALE=0.25", "TRAIN.OPTIM.BACKBONE_LR_SCALE=0.5")
    found = changes(ours, 0)
    # Adam's first step is the learning rate itself, whatever the gradient, and decay is small.
    most = {
        part: max(change for name, change in found.items() if name.startswith(prefix))
        for part, prefix in (("flow", "vrt.spynet."), ("backbone", "vrt.stage1"), ("rest", "spike"))
    }
    assert most == {
        "flow": pytest.approx(0.25e-3, rel=0.05),
        "backbone": pytest.approx(0.5e-3, rel=0.05),
        "rest": pytest.approx(1e-3, rel=0.05),
    }


def test_flow_is_frozen_for_the_first_steps_and_then_learns():
    ours = learner("TRAIN.OPTIM.FLOW_FROZEN_STEPS=2")
    for done, moves in ((0, False), (1, False), (2, True)):
        found = changes(ours, done)
        assert (max(v for n, v in found.items() if n.startswith("vrt.spynet.")) > 0) == moves
        assert max(v for n, v in found.items() if n.startswith("spike")) > 0


def test_the_backbone_is_frozen_for_the_first_steps_and_its_flow_with_it():
    ours = learner("TRAIN.OPTIM.BACKBONE_FROZEN_STEPS=2", "TRAIN.OPTIM.FLOW_FROZEN_STEPS=1")
    for done, moves in ((0, False), (1, False), (2, True)):
        found = changes(ours, done)
        for part in ("vrt.spynet.", "vrt.stage1"):
            assert (max(v for n, v in found.items() if n.startswith(part)) > 0) == moves
        assert max(v for n, v in found.items() if n.startswith("spike")) > 0


def test_a_network_without_spikes_is_not_frozen():
    with pytest.raises(SpikeDeblurError, match="there is nothing else to train"):
        load_config(
            "configs/deblur/quickstart.yaml",
            ("MODEL.USE_SPIKE=false", "TRAIN.OPTIM.BACKBONE_FROZEN_STEPS=2"),
        )


def test_every_parameter_is_in_one_group():
    model = learner().model
    groups = parameter_groups(model, load_config("configs/deblur/quickstart.yaml").TRAIN.OPTIM)
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_dropout_of_a_batch_follows_from_its_place_in_the_step_and_not_from_who_has_it():
    config, seen = tiny_config(GRADIENT_ACCUMULATION_STEPS=1), []
    first, second = batch(), batch() | {"place": 1}
    for mine in ([first, second], [second], [first]):
        torch.manual_seed(0)
        model = TinyNetwork(bins=8, dropout=0.5)
        objective, precision = Objective(config.LOSS), Precision.choose("off", CPU)
        ours = Learner(config, Group(0, 1, CPU), model, objective, precision)
        dropped: list[torch.Tensor] = []
        model.dropout.register_forward_hook(lambda *call, kept=dropped: kept.append(call[-1]))
        ours.step(mine, 3, 0.0, Clock(CPU), raw=True)
        seen.append(dropped)
    (one, two), (two_alone,), (one_alone,) = seen
    assert torch.equal(one, one_alone)
    assert torch.equal(two, two_alone)
    assert not torch.equal(one, two)


@pytest.mark.slow
def test_a_compiled_network_learns_what_the_written_one_does(monkeypatch, tmp_path):
    compiled = []

    def counted(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # set by `Learner` otherwise
    monkeypatch.setattr(step, "compile_blocks", partial(compile_blocks, backend=counted))
    weights = []
    for compile_it in ("false", "true"):
        ours = learner(f"TRAIN.COMPILE={compile_it}")
        for done in range(2):
            ours.step([batch()], done, 1e-4, Clock(CPU), raw=True)
        weights.append(ours.model.state_dict())
    assert compiled
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-3, atol=1e-4)
    torch._dynamo.reset()
