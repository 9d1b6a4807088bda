from __future__ import annotations

import json
from pathlib import Path

import pytest

from spikedeblur.pipeline.align import (
    AlignedSequence,
    FileRecord,
    Manifest,
    ManifestError,
    Window,
    read_manifest,
    write_manifest,
)
from spikedeblur.pipeline.align.manifest import Verification, format_manifest
from spikedeblur.pipeline.align.products import write_products


@pytest.fixture
def manifest() -> Manifest:
    record = FileRecord(size=3, mtime_ns=5)
    window = Window(
        frame_index=31, t0=0.015, t1=0.047, spike_count=9, spikes="s.dat", first=0.001, blur="b.png"
    )
    sequence = AlignedSequence(
        seq="val/Type1/clip",
        geometry="250x400,bottom-up",
        rate=8000.0,
        gain=0.5,
        windows=(window,),
        files={"s.dat": record, "b.png": record},
    )
    return Manifest(
        layout="x4k1000fps", root="../data", fps=1000.0, exposure_frames=33, sequences=(sequence,)
    )


def test_manifest_comes_back_with_its_clock_and_geometry(tmp_path, manifest):
    path = tmp_path / "logs" / "m.json"
    write_manifest(path, manifest)
    back = read_manifest(path)
    assert back == manifest
    (sequence,) = back.sequences
    assert sequence.split == "val"
    assert sequence.spike_geometry().shape == (250, 400)
    assert sequence.clock(sequence.windows[0]).samples(0.001, 0.002) == (0, 9)
    assert back.root_folder(path) == (tmp_path / "data").resolve()


def test_header_names_format_schema_and_version(tmp_path, manifest):
    write_manifest(tmp_path / "m.json", manifest)
    header = json.loads((tmp_path / "m.json").read_text())
    assert header["format"] == "spikedeblur.manifest"
    assert header["schema_version"] == 1
    assert header["version"] == manifest.version


def _edit(*keys, value):
    def edit(content):
        place = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return edit


WINDOW = ("sequences", 0, "windows", 0)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (_edit("format", value="other"), "spikedeblur.manifest"),
        (_edit("schema_version", value=2), "install that release"),
        (_edit("schema_version", value="1"), "schema 1"),
        (_edit("surprise", value=1), "surprise"),
        (_edit("fps", value=-1.0), "fps"),
        (_edit(*WINDOW, "t0", value=float("nan")), "finite"),
        (_edit(*WINDOW, "t0", value=9.0), "t0 <= t1"),
        (_edit(*WINDOW, "spike_count", value=-1), "spike_count"),
        (_edit(*WINDOW, "spikes", value="../s.dat"), "inside the root"),
        (_edit(*WINDOW, "blur", value="/etc/passwd"), "inside the root"),
        (_edit(*WINDOW, "blur", value="c.png"), "c.png"),
        (_edit("root", value="/etc"), "relative"),
        (_edit("sequences", 0, "geometry", value="250x400"), "row order"),
        (_edit("sequences", 0, "seq", value="../clip"), "sequence name"),
        (_edit("sequences", 0, "rate", value="fast"), "rate"),
        (_edit("sequences", 0, "files", "s.dat", "sha256", value="abc"), "sha256"),
        (_edit("sequences", value={}), "sequences"),
        (_edit("fps", value=1e308), "fps"),
        (_edit(*WINDOW, "t0", value=-1e300), "t0"),
        (_edit(*WINDOW, "frame_index", value=10**4000), "frame_index"),
        (_edit(*WINDOW, "spike_count", value=2**64), "spike_count"),
        (_edit("sequences", 0, "gain", value=1e308), "gain"),
        (_edit("sequences", 0, "gain", value=1e-308), "gain"),
        (_edit("sequences", 0, "rate", value=10**4000), "rate"),
        (_edit("sequences", 0, "x" * 10**5, value="y" * 10**6), "no such key|Extra"),
    ],
)
def test_hostile_value_is_named_with_its_file(tmp_path, manifest, edit, expected):
    path = tmp_path / "m.json"
    write_manifest(path, manifest)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=expected) as error:
        read_manifest(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", [b"", b"not json", b"[1, 2]", b"\xff\xfe", b"[" * 100_000])
def test_other_content_is_no_manifest(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"m\.json: expected"):
        read_manifest(path)


def test_missing_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(ManifestError, match="spikedeblur align"):
        read_manifest(tmp_path / "none.json")


def test_windows_and_sequences_are_sorted_and_unique(manifest):
    (sequence,) = manifest.sequences
    with pytest.raises(ValueError, match="ascending"):
        Manifest(layout="x", root=".", fps=1.0, sequences=(sequence, sequence))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("correlation", 1.5),
        ("correlation", -1.5),
        ("confidence", 1.5),
        ("confidence", -0.5),
        ("error_frames", -0.5),
        ("drift_error_ppm", -0.5),
    ],
)
def test_what_no_measure_gives_is_refused(name, value):
    measured = {"lag_frames": 1.0, "lag_seconds": 0.001, "correlation": 0.9, "confident": True}
    Verification(**measured, confidence=0.5, error_frames=0.5, drift_error_ppm=0.5)
    with pytest.raises(ValueError, match=name):
        Verification(**measured | {name: value})


@pytest.mark.parametrize("fails", ["m.json", "a.txt"])
def test_no_log_lies_beside_the_manifest_of_another_run(tmp_path, manifest, monkeypatch, fails):
    """A run that ends while it replaces them leaves the former pair, or no log."""
    log, path = tmp_path / "a.txt", tmp_path / "m.json"
    write_products(log, path, manifest)
    former = log.read_bytes(), path.read_bytes()
    seen = []
    replace = Path.replace

    def fail(self, target):
        if Path(target).name == fails:
            seen.append((log.exists(), path.read_bytes()))
            raise OSError("no")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    other = manifest.model_copy(update={"fps": 999.0})
    with pytest.raises(OSError, match="no"):
        write_products(log, path, other)
    # While the manifest takes its name there is no log, and none of the former one after it.
    assert [there for there, _ in seen] == [False]
    if fails == "m.json":
        assert (log.read_bytes(), path.read_bytes()) == former
    else:
        assert read_manifest(path).fps == 999.0
        assert not log.exists()
    assert sorted(tmp_path.iterdir()) == [p for p in (log, path) if p.exists()]


def test_a_name_that_is_no_text_is_refused_in_words(manifest):
    odd = manifest.model_copy(update={"root": "a\udcff"})
    with pytest.raises(ManifestError, match="no text in UTF-8"):
        format_manifest(odd)
