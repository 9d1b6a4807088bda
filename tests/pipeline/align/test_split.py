from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from aligning import run_align
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spikedeblur.cli import main
from spikedeblur.pipeline.align import read_manifest, write_manifest
from spikedeblur.pipeline.align.manifest import AlignedSequence, FileRecord, Manifest, Window
from spikedeblur.pipeline.align.split import (
    SIMILAR_BITS,
    SplitError,
    deal,
    hash_picture,
    split,
)
from spikedeblur.pipeline.host.overwrite import OverwriteError
from spikedeblur.pipeline.host.reporter import Reporter


def sequence(seq: str, windows: int = 3, **keys: object) -> AlignedSequence:
    name = f"{seq}/f.png"
    return AlignedSequence(
        seq=seq,
        geometry="32x40,bottom-up",
        rate=4000.0,
        windows=tuple(
            Window(
                frame_index=i, t0=i, t1=i + 0.5, spike_count=0, spikes=name, first=0.0, blur=name
            )
            for i in range(windows)
        ),
        files={name: FileRecord(size=1, mtime_ns=1)},
        **keys,
    )


def manifest_of(*sequences: AlignedSequence) -> Manifest:
    ordered = tuple(sorted(sequences, key=lambda s: s.seq))
    return Manifest(layout="unified", root="data", fps=1000.0, sequences=ordered)


def x_train(scenes: int, clips: int) -> Manifest:
    names = [f"train/{s:03d}/occ{c:03d}" for s in range(scenes) for c in range(clips)]
    return manifest_of(*(sequence(name) for name in [*names, "test/Type1/TEST01"]))


names = st.sampled_from(["train", "val", "test"])


@settings(max_examples=60, deadline=None)
@given(
    clips=st.sets(st.tuples(names, st.integers(0, 6), st.integers(0, 3)), min_size=4, max_size=30),
    val=st.sampled_from([0.05, 0.1, 0.3, 0.6]),
    test=st.sampled_from([0.0, 0.1]),
    by=st.sampled_from(["scene", "clip"]),
    seed=st.integers(0, 5),
)
def test_no_scene_is_divided_and_test_stays_test(clips, val, test, by, seed):
    manifest = manifest_of(*(sequence(f"{s}/{g}/{c}") for s, g, c in clips))
    try:
        dealt, shared = deal(manifest, val=val, test=test, by=by, seed=seed)
    except SplitError:
        return
    splits: dict[str, set[str]] = {}
    for one in dealt.sequences:
        name = one.scene_name if by == "scene" else one.seq
        splits.setdefault(name, set()).add(one.split)
        if one.folder_split == "test":
            assert one.split == "test"
    for name, found in splits.items():
        assert len(found) == 1 or (name in shared and found == {"train", "test"})
        assert not (name in shared and "val" in found)
    assert {s.split for s in dealt.sequences} >= {"train", "val"}
    assert [s.seq for s in dealt.sequences] == [s.seq for s in manifest.sequences]
    again, _ = deal(dealt, val=val, test=test, by=by, seed=seed)
    assert again == dealt


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25])
def test_val_gets_about_its_share_of_the_exposures(share):
    dealt, _ = deal(x_train(40, 5), val=share, test=0, by="scene", seed=3)
    count = sum(len(s.windows) for s in dealt.sequences if s.split == "val")
    assert count / (40 * 5 * 3) == pytest.approx(share, abs=0.5 / 40)


def test_another_seed_deals_otherwise():
    manifest = x_train(40, 2)
    dealt = [deal(manifest, val=0.2, test=0, by="scene", seed=seed)[0] for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


def test_a_share_for_test_is_added_to_it():
    dealt, _ = deal(x_train(40, 2), val=0.1, test=0.2, by="scene", seed=0)
    scenes = {s.scene_name for s in dealt.sequences if s.split == "test"}
    assert len(scenes) == 1 + 8
    assert not scenes & {s.scene_name for s in dealt.sequences if s.split != "test"}


def test_a_large_share_for_test_leaves_a_scene_to_each_split():
    three = manifest_of(*(sequence(f"train/{name}/0") for name in "abc"))
    for seed in range(5):
        dealt, _ = deal(three, val=0.05, test=0.9, by="scene", seed=seed)
        assert sorted(s.split for s in dealt.sequences) == ["test", "train", "val"]


def test_sequences_cut_from_one_recording_are_one_scene():
    parts = [sequence(f"train/GOPR0372_07_{i:02d}", scene="GOPR0372") for i in range(5)]
    others = [sequence(f"train/GOPR0{i}_07_00", scene=f"GOPR0{i}") for i in range(400, 404)]
    for seed in range(8):
        dealt, _ = deal(manifest_of(*parts, *others), val=0.3, test=0, by="scene", seed=seed)
        assert len({s.split for s in dealt.sequences if s.scene == "GOPR0372"}) == 1


def test_scenes_of_the_test_set_are_never_validated_on():
    shared = sequence("train/GOPR0384_11_01", scene="GOPR0384")
    held = sequence("test/GOPR0384_11_00", scene="GOPR0384")
    other = [sequence(f"train/GOPR0{i}_07_00", scene=f"GOPR0{i}") for i in (400, 401)]
    dealt, found = deal(manifest_of(shared, held, *other), val=0.9, test=0, by="scene", seed=0)
    assert found == ("GOPR0384",)
    by_seq = {s.seq: s.split for s in dealt.sequences}
    assert (by_seq[shared.seq], by_seq[held.seq]) == ("train", "test")


def test_too_few_scenes_are_an_error_that_offers_clips():
    manifest = manifest_of(*(sequence(f"train/scenes/{i:05d}") for i in range(4)))
    with pytest.raises(SplitError, match=r"at least 2 scenes.*found 1 \(scenes\).*--by clip"):
        deal(manifest, val=0.1, test=0, by="scene", seed=0)
    dealt, _ = deal(manifest, val=0.1, test=0, by="clip", seed=0)
    assert sorted(s.split for s in dealt.sequences) == ["train", "train", "train", "val"]
    with pytest.raises(SplitError, match="leave some to train"):
        deal(manifest, val=0.5, test=0.5, by="clip", seed=0)
    two = manifest_of(sequence("train/a/0"), sequence("train/b/0"))
    with pytest.raises(SplitError, match="at least 3 scenes"):
        deal(two, val=0.1, test=0.1, by="scene", seed=0)


def picture(path: Path, plane: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * np.clip(plane, 0, 1)).astype(np.uint8)).save(path)


def bits_between(folder: Path, a: np.ndarray, b: np.ndarray) -> int:
    for name, plane in (("a", a), ("b", b)):
        picture(folder / f"{name}.png", plane)
    hashes = [hash_picture(folder / f"{name}.png") for name in "ab"]
    return int(np.bitwise_count(hashes[0] ^ hashes[1]).sum())


def texture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.random((7, 9), np.float32))
    return np.asarray(small.resize((160, 120), Image.Resampling.BICUBIC))


def test_hashes_know_a_scene_again_and_tell_others_apart(tmp_path):
    scene = texture(0)
    rng = np.random.default_rng(1)
    changed = np.roll(0.8 * scene + 0.1, 2, axis=1) + 0.02 * rng.standard_normal(scene.shape)
    assert bits_between(tmp_path, scene, changed) <= SIMILAR_BITS
    assert min(bits_between(tmp_path, scene, texture(s)) for s in range(1, 20)) > SIMILAR_BITS + 20
    picture(tmp_path / "flat.png", np.full((120, 160), 0.5))
    assert hash_picture(tmp_path / "flat.png") is None


@pytest.fixture
def data(tmp_path) -> Path:
    """A manifest of six scenes, two of which show the same."""
    sequences = []
    for i, seed in enumerate((0, 1, 2, 3, 4, 0)):
        one = sequence(f"train/s{i}/c")
        picture(tmp_path / "data" / one.windows[0].blur, texture(seed))
        sequences.append(one)
    write_manifest(tmp_path / "m.json", manifest_of(*sequences))
    return tmp_path / "m.json"


def test_scenes_that_look_alike_across_splits_are_named(data):
    found = [split(data, val=0.3, seed=seed) for seed in range(12)]
    alike = [summary for summary in found if summary.similar]
    assert alike
    for summary in found:
        divided = {"s0", "s5"} & {seq.split("/")[1] for seq in summary.moved}
        assert bool(summary.similar) == (len(divided) == 1)
    (pair,) = alike[0].similar
    assert (pair.first, pair.second, pair.bits) == ("train/s0/c", "train/s5/c", 0)


def test_the_manifest_says_how_it_was_split_and_the_same_bytes_come_again(data):
    before = data.read_bytes()
    summary = split(data, val=0.3, seed=1)
    text = data.read_bytes()
    written = read_manifest(data)
    assert (written.split.by, written.split.val, written.split.seed) == ("scene", 0.3, 1)
    assert [s.seq for s in written.sequences if s.split == "val"] == list(summary.moved)
    split(data, val=0.3, seed=1)
    assert data.read_bytes() == text
    split(data, by="folders")
    assert data.read_bytes() == before


def test_every_picture_that_is_looked_at_is_told(data):
    told = []

    class Heard(Reporter):
        def progress(self, done, total, note=""):
            told.append((done, total))

    split(data, val=0.3, seed=1, reporter=Heard())
    assert told == [(done, 6) for done in range(7)]


def test_another_manifest_can_be_written_elsewhere(data, tmp_path):
    before = data.read_bytes()
    out = tmp_path / "deep" / "er" / "m.json"
    split(data, out=out)
    assert data.read_bytes() == before
    assert read_manifest(out).root_folder(out) == tmp_path / "data"
    out.write_text("notes")
    with pytest.raises(OverwriteError, match="--overwrite"):
        split(data, out=out)
    split(data, out=out, overwrite=True)


def test_the_command_prints_the_splits_and_warns(data, capsys):
    assert main(["split", str(data), "--val", "0.3", "--seed", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert sum(part["windows"] for part in summary["parts"].values()) == 18
    assert set(summary["parts"]) == {"train", "val"}
    assert main(["split", str(data), "--val", "0.3"]) == 0
    printed = capsys.readouterr()
    assert "spikedeblur voxelize" in printed.out
    assert main(["split", str(data), "--by", "frame"]) == 2
    assert main(["split", str(data), "--val", "0.9", "--test", "0.2"]) == 1


def test_align_keeps_the_split_and_says_what_is_new(tmp_path, make_clip):
    def run() -> tuple[Manifest, list[str]]:
        return run_align(tmp_path, "x4k1000fps", tmp_path / "o/a.txt", exposure=9, verify=False)

    for seed in range(3):
        make_clip(tmp_path, f"train/s{seed}/c", seed=seed)
    run()
    split(tmp_path / "o/a.json", val=0.3)
    text = (tmp_path / "o/a.json").read_bytes()
    _, warnings = run()
    assert (tmp_path / "o/a.json").read_bytes() == text
    assert not warnings
    make_clip(tmp_path, "train/s9/c", seed=9)
    manifest, warnings = run()
    assert [s.split for s in manifest.sequences].count("val") == 1
    assert any("train/s9/c: new since" in warning for warning in warnings)
