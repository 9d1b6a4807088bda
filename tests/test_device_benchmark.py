"""The script for a real GPU, tried on a CPU with tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from tests.benchmarks import device


def options(**changes: object) -> Namespace:
    tiny = {"device": "cpu", "config": "configs/deblur/quickstart.yaml", "set": list(device.TINY)}
    tiny |= {"crops": [16], "frames": [1], "repeats": 1, "quick": True}
    return Namespace(**tiny | changes)


def test_the_network_is_measured_as_written_and_compiled() -> None:
    product, forward, step = device.network("off", options())
    assert product["TFLOP/s"] > 0
    assert [forward["what"], step["what"]] == ["forward", "training step"]
    for row in (forward, step):
        assert row["ms"] > 0
        # The share is that of the product of the same run.
        assert row["of peak"] == pytest.approx(row["TFLOP/s"] / product["TFLOP/s"])
    _, compiled = device.network("bf16 compiled", options())
    assert compiled["first s"] > 0
    torch._dynamo.reset()


def test_a_part_that_needs_too_much_memory_says_so_and_the_next_is_measured(monkeypatch) -> None:
    real, asked = device.memory_taken, []

    def once(run, where):
        asked.append(run)
        if len(asked) == 1:
            raise torch.OutOfMemoryError("no room")
        return real(run, where)

    monkeypatch.setattr(device, "memory_taken", once)
    _, forward, step = device.network("off", options())
    assert "no room" in forward["failed"]
    assert step["ms"] > 0


@pytest.mark.slow
def test_each_part_has_its_own_limit_and_what_was_measured_is_written(
    repository: Path, tmp_path: Path
) -> None:
    part = device.measured("path", ["--quick", "--device", "cpu"], limit=0.2)
    assert part["failed"] == "ended after 0 s"
    command = [sys.executable, "-m", "tests.benchmarks.device", "--quick", "--device", "cpu"]
    command += ["--parts", "path", "bf16", "--json", str(tmp_path / "x" / "device.json")]
    printed = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "x" / "device.json").read_text())
    assert found["device"] == "cpu"
    assert [part["part"] for part in found["parts"]] == ["path", "bf16"]
    assert all(part["rows"] and not part["failed"] for part in found["parts"])
    assert "training step" in printed.stdout
