from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_sets import make_store


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
