"""Names from before the move: each still gives the very same object, and warns once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRY = """
import importlib, json, sys, warnings

told = []
warnings.showwarning = lambda text, kind, file, *rest: told.append((kind.__name__, file, str(text)))
for old, name, new, times in json.load(sys.stdin):
    del told[:]
    for _ in range(2):
        exec(f"from spikedeblur.{old} import {name}" if name else f"import spikedeblur.{old}")
    if name:
        here = getattr(sys.modules[f"spikedeblur.{old}"], name)
        home, _, renamed = new.partition(":")
        there = getattr(importlib.import_module(f"spikedeblur.{home}"), renamed or name)
        assert here is there, (old, name)
    assert len(told) == times, (old, name, told)
    for kind, file, message in told:
        assert (kind, file) == ("FutureWarning", "<string>"), (old, name, told)
        assert f"spikedeblur.{old}" in message, message
        assert f"spikedeblur.{new.replace(':', '.')}" in message, message
    print(old, name)
"""


def rows(rooms: tuple[str, ...]) -> list[tuple[str, str, str, int]]:
    """Return (old module, name, new module, warnings); the name is empty where a module is gone.

    A name that is another now has the new one after the new module, behind a colon.
    """
    path = Path(__file__).parent / "data/old_names.json"
    found = [tuple(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    # Modules come first: of one that is gone, its import warns, and then none of its names.
    return sorted((r for r in found if r[0].split(".")[1] in rooms), key=lambda r: (r[1] != "", r))


QUICK = ("align", "files", "images", "locks", "machine", "progress", "spikes", "store", "video")
WITH_TORCH = (
    *("adapt", "allocator", "before_after", "clips", "convert", "evaluate", "evaluation", "memory"),
    *("methods", "metrics", "motion", "perceptual", "program", "protocols", "recording", "report"),
    *("restore", "scenes", "simulate", "store_lag", "tile_memory", "tiling", "torch_methods"),
    *("trained", "training", "view", "doctor", "inspect"),
)


def test_no_old_name_is_left_out():
    path = Path(__file__).parent / "data/old_names.json"
    rooms = {old.split(".")[1] for old, *_ in json.loads(path.read_text(encoding="utf-8"))}
    assert rooms <= {*QUICK, *WITH_TORCH}


@pytest.mark.parametrize(
    "rooms", [QUICK, pytest.param(WITH_TORCH, marks=pytest.mark.slow)], ids=["quick", "with torch"]
)
def test_old_names_give_the_same_objects_and_warn_once(rooms):
    wanted = rows(rooms)
    assert len(wanted) > 100
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", TRY],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(wanted)


def test_a_name_that_is_another_now_is_told_with_the_new_one():
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    warnings.simplefilter('always')\n"
        "    from spikedeblur.pipeline.store.place import Place, open_place\n"
        "    from spikedeblur.pipeline.align import Sequence\n"
        "from spikedeblur.pipeline.align.manifest import AlignedSequence\n"
        "from spikedeblur.pipeline.storage.base import Storage\n"
        "from spikedeblur.pipeline.storage.locate import open_storage\n"
        "assert (Place, open_place, Sequence) == (Storage, open_storage, AlignedSequence)\n"
        "for one in told:\n    print(one.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    module, *names = done.stdout.splitlines()
    assert "spikedeblur.pipeline.store.place is now" in module
    for line, old, new in zip(
        names,
        ("store.place.Place", "store.place.open_place", "align.Sequence"),
        ("storage.base.Storage", "storage.locate.open_storage", "align.manifest.AlignedSequence"),
        strict=True,
    ):
        assert line.startswith(f"spikedeblur.pipeline.{old} is now spikedeblur.pipeline.{new};")


def test_what_was_never_there_is_an_error_without_a_warning():
    code = (
        "import spikedeblur.pipeline.store as store\n"
        "assert not hasattr(store, 'no_such_name')\n"
        "try:\n    from spikedeblur.pipeline.store import no_such_module\n"
        "except ImportError as error:\n    assert 'no_such_module' in str(error), error\n"
        "else:\n    raise AssertionError\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_loads_nothing_for_old_names():
    code = (
        "import sys, spikedeblur.cli\n"
        "from spikedeblur.moved import moved_modules\n"
        "loaded = {name for name in moved_modules() if f'spikedeblur.{name}' in sys.modules}\n"
        "assert not loaded, loaded\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
