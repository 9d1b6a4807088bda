"""`path` makes nothing worse than it came in, where there is little or nothing to gain."""

from __future__ import annotations

import pytest
from calm_scenes import KINDS

from tests.benchmarks.calm import over_input, scores
from tests.benchmarks.cameras import NEAR


@pytest.mark.parametrize("name", ["still", "1 px", "saturated", "very dark", "still, 3 % noise"])
def test_path_is_no_worse_than_blur_and_sdm(name: str, tmp_path) -> None:
    for found in scores(tmp_path, KINDS[name], ("grace_hopper.jpg",), size=96).values():
        assert over_input(found) > -NEAR
