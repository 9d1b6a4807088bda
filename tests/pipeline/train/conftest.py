from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_runs import run_fit
from training_sets import make_store, tiny_config


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three sequences in train and one in val, 3 windows each, 8 bins."""
    return make_store(tmp_path_factory.mktemp("small_store"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that nothing stopped; not to be changed."""
    run = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    summary = run_fit(run, tiny_config())
    assert summary.step == 12
    assert summary.signal is None
    return run
