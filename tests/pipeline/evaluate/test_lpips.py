from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from spikedeblur.pipeline.evaluate.lpips import Lpips, PerceptualError


def test_missing_weights_say_where_they_belong(tmp_path: Path, monkeypatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(PerceptualError, match=f"{tmp_path}.*no network"):
        Lpips("squeeze", "cpu")


def test_distance_is_zero_for_equal_frames_and_grows(tmp_path: Path, monkeypatch) -> None:
    """With random weights in torchvision's place: what is computed from them is what is tested."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    target = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    target.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), target)
    lpips = Lpips("squeeze", "cpu")
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (64, 64, 3), np.uint8)
    near = np.clip(sharp.astype(int) + rng.integers(-8, 9, sharp.shape), 0, 255).astype(np.uint8)
    assert lpips(sharp, sharp) == 0
    assert 0 < lpips(near, sharp) < lpips(255 - sharp, sharp)
