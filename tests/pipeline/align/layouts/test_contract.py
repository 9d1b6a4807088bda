"""What every layout promises, asked of a tree of each in its published names."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from aligning import run_align
from layout_trees import TREES, Tree

from spikedeblur.pipeline.align import AlignmentError, read_alignment_log, read_manifest
from spikedeblur.pipeline.align.check import check_manifest
from spikedeblur.pipeline.align.layouts import LAYOUTS, Layout, detect, find_layout
from spikedeblur.pipeline.align.layouts.custom import CustomLayout


@dataclass(frozen=True)
class Built:
    root: Path
    tree: Tree

    @property
    def layout(self) -> Layout:
        return find_layout(self.tree.layout)

    def align(self, out: Path, **options):
        options = self.tree.options | options
        return run_align(self.root, self.tree.layout, out / "a.txt", **options)


@pytest.fixture(scope="module", params=TREES)
def built(request, tmp_path_factory) -> Built:
    root = tmp_path_factory.mktemp("layout") / "data"
    return Built(root, TREES[request.param](root))


@pytest.fixture
def own(built, tmp_path) -> Built:
    """A copy to damage."""
    shutil.copytree(built.root, tmp_path / "data")
    return Built(tmp_path / "data", built.tree)


def find(built: Built):
    return built.layout.find(built.root, built.tree.options.get("exposure"))


def test_every_layout_has_a_tree():
    assert {name.split(",")[0] for name in TREES} == {*LAYOUTS, "custom"}


def test_auto_recognises_it_and_says_by_what(built):
    if isinstance(built.layout, CustomLayout):
        return  # only known layouts are recognised
    layout, reason = detect(built.root)
    assert built.tree.layout == layout.NAME
    assert (built.root / reason.split(" ")[0]).exists()


def test_sequences_and_windows_are_in_order_and_paired_by_number(built):
    found = find(built)
    assert [s.seq for s in found] == sorted({seq for seq, _ in built.tree.windows})
    for sequence in found:
        assert sequence.warnings == ()
        indices = [window.frame_index for window in sequence.windows]
        assert indices == sorted(f for seq, f in built.tree.windows if seq == sequence.seq)
        for window in sequence.windows:
            assert window.blur.is_file()
            assert window.sharp.is_file()
            assert window.spikes.is_file()


def test_times_and_counts_are_those_of_the_published_timeline(built, tmp_path):
    manifest, _ = built.align(tmp_path, verify=False)
    rows = read_alignment_log(tmp_path / "a.txt")
    assert set(rows) == set(built.tree.windows)
    for key, (t0, t1, count) in built.tree.windows.items():
        assert (rows[key].t0, rows[key].t1) == pytest.approx((t0, t1), abs=1e-6)
        assert rows[key].event_count == count
    assert read_manifest(tmp_path / "a.json") == manifest
    assert manifest.layout == built.layout.NAME


def test_the_images_prove_the_timeline(built, tmp_path):
    manifest, _ = built.align(tmp_path)
    for sequence in manifest.sequences:
        assert abs(sequence.verification.lag_frames) < 2, sequence.seq


def test_sound_data_passes_the_check(built, tmp_path):
    built.align(tmp_path, verify=False)
    for sequence in check_manifest(tmp_path / "a.json").sequences:
        assert sequence.findings == ()
        assert sequence.gain_measured == pytest.approx(0.5, rel=0.05)


def test_the_same_data_give_the_same_bytes_with_any_number_of_workers(built, tmp_path):
    products = []
    for workers in (1, 4):
        out = tmp_path / str(workers)
        built.align(out, workers=workers)
        text = (out / "a.json").read_bytes()
        products.append(((out / "a.txt").read_bytes(), text))
        built.align(out, workers=3)
        assert (out / "a.json").read_bytes() == text
    assert products[0] == products[1]


def test_a_blurred_frame_without_spikes_is_named(own):
    window = find(own)[1].windows[1]
    window.spikes.unlink()
    with pytest.raises(AlignmentError, match="no spikes for") as error:
        find(own)
    message = str(error.value)
    assert str(window.blur.parent) in message
    assert window.blur.name in message or "spikes for its frames" in message


def test_an_empty_root_is_refused_with_what_it_needs(built, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AlignmentError, match="expected"):
        built.layout.find(tmp_path / "empty", built.tree.options.get("exposure"))


def test_a_cut_spike_file_is_refused_by_name(own, tmp_path):
    path = find(own)[0].windows[1].spikes
    path.write_bytes(path.read_bytes()[:-81])
    with pytest.raises(ValueError, match=path.name):
        own.align(tmp_path / "out", verify=False)
    assert not (tmp_path / "out").exists()
