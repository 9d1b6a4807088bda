"""The shipped model on spikes that others made from real video, which it never saw."""

from __future__ import annotations

import pytest
from real_recordings import (
    FOLDER,
    NAMES,
    as_seen,
    exposed,
    matched_psnr,
    read_recording,
    restored,
    window_of,
)

from spikedeblur.pipeline.methods.make_method import ModelOptions
from spikedeblur.pipeline.weights.find import find_model

NEEDED = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real recordings in {FOLDER.name}/")


@NEEDED
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("exposure", "over_blur", "over_tfp"),
    [(301, 10.0, 1.5), (97, 10.0, 5.0), (65, 10.0, 6.0)],
)
def test_the_shipped_model_beats_its_base_blur_and_short_windows(
    name, exposure, over_blur, over_tfp
):
    truth, spikes = read_recording(name)
    method = ModelOptions(device="cpu").open(find_model("small"))
    window = window_of(spikes, exposure)
    ours = matched_psnr(restored(method, window), truth)
    path = method.exposures(window).sharp(0)[0].mean(1)[0]  # kept from restoring
    base = matched_psnr(as_seen(path.numpy(), window.voxel_shape), truth)
    blur = matched_psnr(exposed(spikes, exposure), truth)
    half = [max(1, round(bins * exposure / 32 / 2)) for bins in range(1, 8)]
    shorts = [matched_psnr(exposed(spikes, 2 * h), truth) for h in half]
    print(
        f"{name} {exposure}: blur {blur:.2f}, best TFP {max(shorts):.2f}, path {base:.2f}, "
        f"model {ours:.2f}"
    )
    assert ours > base
    assert ours > blur + over_blur
    assert ours > max(shorts) + over_tfp
