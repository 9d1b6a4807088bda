"""The oracle: results of the published network under weights made from their names."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from spikedeblur.third_party.VRT import VRT

FOLDER = Path(__file__).parents[1] / "data" / "oracle"


def _load_fill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_fill", FOLDER / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fill = _load_fill()


@dataclass(frozen=True)
class OracleCase:
    """One configuration and the published network's results for it."""

    facts: dict[str, Any]
    expected: dict[str, np.ndarray]

    @property
    def config(self) -> dict[str, Any]:
        return self.facts["config"]

    def model(self, **changes: Any) -> VRT:
        """Build the network with the oracle's weights, float32, in eval mode."""
        model = VRT(**self.config, **changes)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(fill.weight(name, tuple(parameter.shape))))
        return model.eval()

    def clip(self) -> torch.Tensor:
        return torch.from_numpy(fill.clip("clip", tuple(self.facts["input"]["shape"])))

    def target(self) -> torch.Tensor:
        return torch.from_numpy(fill.clip("target", self.expected["output"].shape))


@pytest.fixture(scope="session")
def oracle_case():
    """Give `OracleCase` by name."""

    def read(name: str) -> OracleCase:
        with np.load(FOLDER / f"{name}.npz") as archive:
            expected = {key: archive[key] for key in archive.files}
        return OracleCase(json.loads((FOLDER / f"{name}.json").read_text()), expected)

    return read


SMALL = {
    "window_size": (2, 4, 4),
    "depths": (2, 2, 2, 2, 2, 2, 2, 1, 1),
    "indep_reconsts": (8,),
    "embed_dims": (8, 8, 8, 8, 8, 8, 8, 12, 12),
    "num_heads": (2,) * 9,
    "mul_attn_ratio": 0.5,
    "deformable_groups": 2,
}


@pytest.fixture
def small_vrt():
    """Build a small VRT whose layers are woken from their small or zero start, so that every
    part of it matters to the output."""

    def build(**changes: Any) -> VRT:
        torch.manual_seed(0)
        model = VRT(**{**SMALL, **changes})
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and (".conv_offset.6" in name or "module.8" in name):
                    parameter.normal_(0, 0.02)
                elif parameter.ndim == 2 and "bias" not in name:
                    parameter.normal_(0, parameter.shape[1] ** -0.5)
        return model.eval()

    return build
