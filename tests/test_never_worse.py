"""`path` and `small` make nothing worse than it came in, where there is little to gain."""

from __future__ import annotations

import pytest
from calm_scenes import KINDS, write_frames

from spikedeblur.pipeline.evaluate.job import evaluate_sequences
from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.weights.find import find_model
from tests.benchmarks.calm import ENOUGH, over_input, scores
from tests.benchmarks.cameras import NEAR, record


@pytest.mark.parametrize("name", ["still", "1 px", "saturated", "very dark", "still, 3 % noise"])
def test_path_is_no_worse_than_blur_and_sdm(name: str, tmp_path) -> None:
    for found in scores(tmp_path, KINDS[name], ("grace_hopper.jpg",), size=96).values():
        assert over_input(found) > -NEAR


@pytest.mark.slow
@pytest.mark.parametrize("name", ["still", "1 px", "still, dark, 3 % noise"])
def test_the_shipped_model_is_no_worse_than_blur_and_sdm(name: str, tmp_path) -> None:
    kind = KINDS[name]
    write_frames(tmp_path / "frames", kind, ("grace_hopper.jpg",), 96)
    trained = {"model": ModelOptions().open(find_model("small"))}
    sequences = record(tmp_path, "calm", kind.rig())
    found = evaluate_sequences(sequences, ("blur", "sdm", "model"), trained=trained).methods
    psnr = {method: min(ENOUGH, score.psnr) for method, score in found.items()}
    assert psnr["model"] > max(psnr["blur"], psnr["sdm"]) - NEAR
