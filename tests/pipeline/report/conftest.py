"""A short run on a tiny store, evaluated: what a report is made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from training_sets import SMALL, make_store

from spikedeblur.configs import load_config
from spikedeblur.pipeline.evaluate import evaluate
from spikedeblur.pipeline.evaluate.scores import write_evaluation
from spikedeblur.pipeline.train.job import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `spikes.zarr` and the run `runs/fast`; not to be changed."""
    folder = tmp_path_factory.mktemp("report")
    store = make_store(folder, verify=True)
    keys = (
        *SMALL,
        f"DATA.ROOT={store}",
        f"DATA.ALIGN_LOG_PATHS=[{folder / 'align.txt'}]",
        "TRAIN.MAX_STEPS=4",
        "TRAIN.VAL_INTERVAL=2",
        "TRAIN.OPTIM.LR=1e-3",
    )
    run = folder / "runs/fast"
    train(load_config("configs/deblur/quickstart.yaml", keys), run)
    write_evaluation(run / "evaluation.json", evaluate(store, run=run, split="val"))
    return folder


@pytest.fixture
def alone(trained: Path, tmp_path: Path) -> Path:
    """That run without its checkpoints, its evaluation and its store."""
    run = tmp_path / "alone"
    shutil.copytree(
        trained / "runs/fast", run, ignore=shutil.ignore_patterns("evaluation.json", "*.pt")
    )
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(trained), "/gone"))
    return run
