"""Patterns of layout files: what fits them, what is left over, and how long that takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layout_files import CONTENT, changed, run, write
from layout_trees import custom_frames

from spikedeblur.pipeline.align import AlignmentError, AlignOptions, align
from spikedeblur.pipeline.align.layouts import find_layout
from spikedeblur.pipeline.align.layouts.patterns import collect, require_pattern
from spikedeblur.pipeline.host.reporter import Reporter


def test_patterns_that_nothing_fits_show_what_is_there(tmp_path):
    (tmp_path / "data" / "c").mkdir(parents=True)
    (tmp_path / "data" / "c" / "0001.jpg").touch()
    layout = find_layout(write(tmp_path, CONTENT))
    with pytest.raises(AlignmentError, match=r"\{clip\}/blur/\{frame\}\.png.*c/0001\.jpg"):
        layout.find(tmp_path / "data", None)


def test_a_word_that_comes_twice_is_the_same_both_times(tmp_path):
    for name in ("a/a_1.png", "a/b_1.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "data/a.dat").touch()
    content = changed(blur="{clip}/{clip}_{frame}.png", spikes__files="{clip}.dat")
    (sequence,) = find_layout(write(tmp_path, content)).find(tmp_path / "data", None)
    assert [window.blur.name for window in sequence.windows] == ["a_1.png"]


words = st.from_regex(r"[a-z]{1,3}", fullmatch=True).filter(lambda word: word != "frame")
parts = st.text("abc.X_-0 (+", min_size=1, max_size=4).filter(lambda part: part.strip(". "))


@settings(max_examples=80, deadline=None)
@given(
    values=st.dictionaries(words, parts, min_size=1, max_size=3),
    between=st.lists(parts, min_size=4, max_size=4),
    number=st.integers(0, 99_999),
)
def test_what_a_pattern_spells_is_found_by_it(tmp_path_factory, values, between, number):
    literal = iter(between)
    pattern = "/".join(f"{next(literal)}={{{word}}}" for word in values) + "/{frame}.png"
    assume(not any(part.startswith(".") for part in pattern.split("/")))
    root = tmp_path_factory.mktemp("pattern")
    path = root / pattern.format(**values, frame=f"{number:05d}")
    path.parent.mkdir(parents=True)
    path.touch()
    (root / "spikes.dat").touch()
    content = changed(blur=pattern, spikes__files="spikes.dat")
    if "split" in values:
        del content["split"]
        assume(len(values) > 1)
    (sequence,) = find_layout(write(root, content)).find(root, None)
    (window,) = sequence.windows
    assert (window.blur, window.frame_index) == (path, number)
    rest = [value for word, value in values.items() if word != "split"]
    assert sequence.seq == "/".join([values.get("split", "test"), *rest])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"sharp": "nowhere/{split}/{scene}/{clip}_{frame}.png"}, "expected sharp frames nowhere"),
        ({"spikes__files": "no/{split}/{scene}/{clip}_{frame}.dat"}, "expected spikes no/"),
    ],
)
def test_a_pattern_that_fits_no_file_is_an_error(tmp_path, keys, expected):
    tree = custom_frames(tmp_path / "data")
    content = yaml.safe_load(Path(tree.layout).read_text())
    layout = find_layout(write(tmp_path, changed(content, **keys)))
    with pytest.raises(AlignmentError, match=expected):
        layout.find(tmp_path / "data", None)


def test_upper_case_endings_fit_a_pattern(tmp_path):
    tree = custom_frames(tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*.*")):
        path.rename(path.with_suffix(path.suffix.upper()))
    manifest, _ = run(tmp_path / "data", tree.layout)
    assert len(manifest.log_rows()) == len(tree.windows)


@pytest.mark.parametrize(
    "pattern",
    [
        "{a}{b}{c}{d}{e}{f}{g}{h}/{frame}.png",
        "{a}{frame}.png",
        "x{a}_{b}{c}/{frame}.png",
        "{a}_{b}_{c}_{d}_{frame}.png",
        "{a}_{b}/{c}_{d}/{e}_{f}_{frame}.png",
    ],
)
def test_words_of_a_pattern_are_told_apart_and_few_share_a_name(pattern):
    with pytest.raises(ValueError, match=r"text between two words|cut in two"):
        require_pattern(pattern)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{a}_{b}_{frame}.png", "_" * 250 + "1.pn"),
        ("{a}_{b}/{c}_{frame}.png", "/".join(["_" * 250] * 2)),
        ("{a}-{b}/{b}-{c}.dat", "/".join(["-" * 250] * 2)),
    ],
)
def test_no_name_takes_long_to_compare_with_a_pattern(pattern, name, tmp_path):
    require_pattern(pattern)
    assert collect(tmp_path, [name] * 20, pattern) == {}


class Heard(Reporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def test_what_a_layout_file_does_not_read_is_named(tmp_path):
    root = tmp_path / "data"
    tree = custom_frames(root)
    frames = sorted(path for path in root.rglob("*.png") if "street" in str(path))
    (other := frames[0].with_suffix(".webp")).touch()
    (root / "elsewhere/deeper").mkdir(parents=True)
    (root / "elsewhere/deeper/1.heic").touch()
    heard = Heard()
    log, manifest = tmp_path / "log.txt", tmp_path / "manifest.json"
    options = AlignOptions(verify=False)
    align(root, tree.layout, log=log, manifest=manifest, options=options, reporter=heard)
    assert any(f"{other}: fits no pattern" in warning for warning in heard.warnings)
    assert [note for note in heard.notes if note.endswith("not read: in elsewhere/deeper")]
