"""`--from` and `--to`: what lies between is what a recording of just that would give."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from guarded import run_guarded

from spikedeblur.cli import main
from spikedeblur.pipeline.align.manifest import read_manifest
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.sequences.stored import open_store
from spikedeblur.pipeline.spikes import (
    SideFile,
    parse_geometry,
    read_side_file,
    read_spikes,
    write_side_file,
)
from spikedeblur.pipeline.spikes.between import Between, Cut, both
from spikedeblur.pipeline.spikes.clock import SpikeClock, SpikeWindowError
from spikedeblur.pipeline.spikes.dat import SpikeFile, pack_spikes
from spikedeblur.pipeline.spikes.parts import open_stream
from spikedeblur.pipeline.spikes.settings import SpikeOptions
from spikedeblur.pipeline.view.recordings import ViewError, open_clips, picture

GEOMETRY = parse_geometry("48x48,bottom-up")
FRAME = 48 * 48 // 8
RATE = 8000.0
HOURS = 2**40 // FRAME
"""Samples of a file of 1 TB."""
BEFORE = 28_800_000
"""Samples before the scene: an hour."""
PART = ("--from", "0s", "--to", "50ms")
"""Two of three exposures of 32 ms, which begin at 0, 15 and 30 ms."""
HELD = BEFORE, BEFORE + 400


@dataclass(frozen=True)
class Recorded:
    root: Path
    blur: Path
    dat: Path
    cut: Path
    """The samples between alone, in a file of their own."""


@pytest.fixture
def recorded(moving_scene, tmp_path: Path) -> Recorded:
    """A recording of days, of which all but a moment is a hole in its file."""
    root = tmp_path / "data"
    blur = root / "test_blurry_33/Type1/clip"
    for centre, frame in zip(moving_scene.centres, moving_scene.blur, strict=True):
        write_png(blur / f"{centre:04d}.png", frame)
    dat = root / "test_spike_2xds/Type1/clip/spike.dat"
    dat.parent.mkdir(parents=True)
    with dat.open("wb") as file:
        file.truncate(HOURS * FRAME)
        file.seek(BEFORE * FRAME)
        file.write(pack_spikes(moving_scene.spikes, GEOMETRY))
    facts = {"geometry": GEOMETRY.describe(), "rate": RATE, "gain": moving_scene.gain}
    write_side_file(dat, SideFile(**facts, first=-BEFORE / RATE))
    cut = tmp_path / "cut.dat"
    cut.write_bytes(pack_spikes(moving_scene.spikes[:400], GEOMETRY).tobytes())
    write_side_file(cut, SideFile(**facts))
    return Recorded(root, blur, dat, cut)


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def pngs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def restoring(blur: Path, dat: Path, out: Path, *more: object) -> list[object]:
    words = ("restore", "--method", "path", "--exposure", 33, "--fps", 1000)
    return [*words, "--blur", blur, "--spikes", dat, "--out", out, *more]


@pytest.mark.skipif(sys.platform != "linux", reason="takes rights from memory")
def test_every_command_reads_nothing_outside(recorded: Recorded, tmp_path: Path) -> None:
    manifest, store = tmp_path / "a.json", tmp_path / "s.zarr"
    commands = [
        restoring(recorded.blur, recorded.dat, tmp_path / "out", *PART, "--json"),
        ["convert", recorded.dat, tmp_path / "part.dat", *PART],
        *(
            ["align", recorded.root, "--layout", "x4k1000fps", "--log", tmp_path / "a.txt", *PART],
            ["voxelize", manifest, store, "--workers", 1],
            ["restore", "--method", "sdm", "--manifest", manifest, "--out", tmp_path / "all"],
            ["check", manifest],
        ),
    ]
    outcomes = run_guarded(commands, HELD[0] * FRAME, HELD[1] * FRAME)
    for command, (code, _, said) in zip(commands, outcomes, strict=True):
        assert code == 0, (command, said)
    summary = json.loads(outcomes[0][1])
    assert (summary["frames"], summary["left_out"]) == (2, 1)
    assert (tmp_path / "part.dat").read_bytes() == recorded.cut.read_bytes()
    assert [sequence.length for sequence in open_store(store)] == [2]


def test_restoring_a_part_equals_restoring_a_recording_of_it(
    recorded: Recorded, tmp_path: Path
) -> None:
    alone = tmp_path / "two"
    alone.mkdir()
    for name in ("0016.png", "0031.png"):
        os.link(recorded.blur / name, alone / name)
    run(*restoring(alone, recorded.cut, tmp_path / "of cut"))
    run(*restoring(recorded.blur, recorded.dat, tmp_path / "of part", *PART))
    assert pngs(tmp_path / "of part") == pngs(tmp_path / "of cut")
    inputs = json.loads((tmp_path / "of part/restore.json").read_text())["inputs"]
    assert inputs["spikes_sha256"] == hashlib.sha256(recorded.cut.read_bytes()).hexdigest()
    assert inputs["spikes_samples"] == list(HELD)


def test_a_converted_part_keeps_its_times(recorded: Recorded, tmp_path: Path) -> None:
    run("convert", recorded.dat, tmp_path / "part.dat", "--from", "12.5ms", "--to", "50ms")
    side = read_side_file(tmp_path / "part.dat")
    assert side is not None
    assert side.first == pytest.approx(0.0125, abs=1e-9)
    expected = read_spikes(recorded.cut, GEOMETRY)[100:]
    np.testing.assert_array_equal(read_spikes(tmp_path / "part.dat", GEOMETRY), expected)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_parts_of_arrays_are_converted(tmp_path: Path, suffix: str) -> None:
    spikes = (np.random.default_rng(2).random((90, 16, 16)) < 0.3).astype(np.uint8)
    source = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(source, spikes)
    elif suffix == ".npz":
        np.savez_compressed(source, spikes=spikes)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(source, "w") as file:
            file["spikes"] = spikes
    out = tmp_path / "a.dat"
    run("convert", source, out, "--rate", 1000, "--from", "10ms", "--to", "40ms")
    np.testing.assert_array_equal(
        read_spikes(out, parse_geometry("16x16,bottom-up")), spikes[10:40]
    )


def test_a_part_can_be_voxelized_and_aligned_alike(recorded: Recorded, tmp_path: Path) -> None:
    """The whole of a short recording is aligned here, of which the other tests' part is cut."""
    with recorded.dat.open("r+b") as file:
        file.truncate((BEFORE + 513) * FRAME)
    # Holes read as zeros, quickly; a smaller one is enough where all of the file is read.
    content = recorded.dat.read_bytes()[(BEFORE - 8000) * FRAME :]
    recorded.dat.write_bytes(content)
    side = read_side_file(recorded.dat)
    assert side is not None
    write_side_file(recorded.dat, side.model_copy(update={"first": -1.0}))
    align = ["align", recorded.root, "--layout", "x4k1000fps"]
    run(*align, "--log", tmp_path / "whole.txt")
    run(*align, "--log", tmp_path / "part.txt", *PART)
    stores = tmp_path / "by voxelize", tmp_path / "by align"
    run("voxelize", tmp_path / "whole.json", stores[0], "--workers", 1, *PART)
    run("voxelize", tmp_path / "part.json", stores[1], "--workers", 1)
    of_part, of_whole = (read_manifest(tmp_path / f"{n}.json") for n in ("part", "whole"))
    assert of_part.sequences[0].windows == of_whole.sequences[0].windows[:2]
    (one,), (other,) = (open_store(store) for store in stores)
    assert one.record.complete.sources == other.record.complete.sources
    (mark,) = (m for path, m in one.record.complete.sources.items() if path.endswith(".dat"))
    assert mark.part == (8000 * FRAME, 8400 * FRAME)
    assert mark.sha256 == hashlib.sha256(recorded.cut.read_bytes()).hexdigest()
    for a, b in zip(one.spikes(0), other.spikes(0), strict=True):
        np.testing.assert_array_equal(a, b)
    run("check", stores[0], "--manifest", tmp_path / "whole.json")


def test_the_viewer_shows_samples_between(recorded: Recorded, moving_scene) -> None:
    (group,) = open_clips(recorded.dat, SpikeOptions(between=Between(start=0.01, end=0.05)))
    clip = group.clip(0)
    assert (clip.samples, clip.begins) == (320, pytest.approx(0.01))
    seen = picture(clip, "spikes", 7, 9, 4).values
    np.testing.assert_array_equal(seen, moving_scene.spikes[87])


def test_the_viewer_shows_the_exposures_that_other_commands_read(
    recorded: Recorded, tmp_path: Path
) -> None:
    """A rolling shutter's last rows are read later than its first one."""
    log, manifest = tmp_path / "a.txt", tmp_path / "a.json"
    align = ["align", recorded.root, "--layout", "x4k1000fps", "--log", log]
    run(*align, "--readout", "2ms", "--from", "0s", "--to", "52ms")
    run("voxelize", manifest, tmp_path / "s.zarr", "--workers", 1, "--force")

    def shown(end: float) -> int:
        part = SpikeOptions(between=Between(start=0.0, end=end))
        return sum(len(group.clips) for group in open_clips(tmp_path / "s.zarr", part))

    assert (shown(0.052), shown(0.0485)) == (2, 1)
    with pytest.raises(ViewError, match=r"such as --from 0s --to 0\.034125s"):
        shown(0.02)
    assert shown(0.034125) == 1


def test_parts_in_several_files_are_read_as_in_one(tmp_path: Path) -> None:
    spikes = np.random.default_rng(4).random((600, 48, 48)) < 0.3
    packed = pack_spikes(spikes, GEOMETRY)
    for i in range(6):
        packed[i * 100 * FRAME : (i + 1) * 100 * FRAME].tofile(tmp_path / f"rec_{i}.dat")
    cut = Cut(Between(start=0.0155, end=0.042), SpikeClock(rate=RATE))
    for i in (0, 4, 5):  # outside: only their sizes count
        (tmp_path / f"rec_{i}.dat").write_bytes(b"\x55" * 100 * FRAME)
    stream = open_stream(tmp_path / "rec_*.dat", GEOMETRY, cut)
    assert stream.whole == (124, 336)
    np.testing.assert_array_equal(stream.read(124, 336), spikes[124:336])
    np.testing.assert_array_equal(
        stream.counts(3, 190, 310), spikes[190:310].reshape(3, 40, 48, 48).sum(1)
    )
    for outside in ((123, 130), (330, 337)):
        with pytest.raises(SpikeWindowError, match=r"expected samples inside 124:336"):
            stream.read(*outside)


def test_a_file_of_a_byte_a_pixel_is_known_by_its_part(tmp_path: Path) -> None:
    spikes = (np.random.default_rng(4).random((160, 48, 48)) < 0.3).astype(np.uint8)
    spikes[:, ::-1].tofile(tmp_path / "bytes.dat")
    cut = Cut(Between(start=0.004, end=0.01), SpikeClock(rate=RATE))
    file = SpikeFile.open(tmp_path / "bytes.dat", GEOMETRY, cut)
    assert (file.encoding, file.whole) == ("bytes", (32, 80))
    np.testing.assert_array_equal(file.read(40, 60), spikes[40:60])


def test_rows_that_are_exposed_later_belong_to_the_exposure() -> None:
    clock = SpikeClock(rate=1000.0, readout=0.01)
    assert Cut(Between(start=0.0, end=0.05), clock).holds(0.0, 0.039)
    assert not Cut(Between(start=0.0, end=0.05), clock).holds(0.0, 0.04)
    upwards = SpikeClock(rate=1000.0, readout=-0.01)
    assert not Cut(Between(start=0.02), upwards).holds(0.029, 0.04)
    assert Cut(Between(start=0.02), upwards).holds(0.03, 0.04)


def test_two_parts_have_in_common_what_lies_in_both() -> None:
    assert both(Between(start=1.0), Between(end=3.0)) == Between(start=1.0, end=3.0)
    assert both(None, Between(end=3.0)) == Between(end=3.0)
    with pytest.raises(SpikeWindowError, match=r"inside --to 3s, the part .*, found --from 4s;"):
        both(Between(start=4.0), Between(end=3.0))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("--from", "30"),
            2,
            r"expected a time with its unit, found '30' hint: type --from 30s for",
        ),
        (("--to", "soon"), 2, r"expected a number with a unit"),
        (("--from", "4s", "--to", "3s"), 2, r"expected a time after --from 4s, found 3s"),
        (("--from", "1h"), 2, r"expected a number with a unit"),
        (("--from", "0s", "--headroom", "2"), 2, r"frames of 8 bits end at white"),
        (("--from", "-2e6s", "--to", "-1e6s"), 1, r"wholly in --from -2000000s --to -1000000s"),
        (("--from", "40ms", "--to", "50ms"), 1, r"found none of 3, exposed from 0s to 0\.06"),
    ],
)
def test_times_that_cannot_be_are_named(
    recorded: Recorded, tmp_path: Path, words, code, said, capsys
) -> None:
    command = restoring(recorded.blur, recorded.dat, tmp_path / "out", *words)
    assert main([str(word) for word in command]) == code
    assert re.search(said, " ".join(capsys.readouterr().err.replace("│", " ").split()))
    assert not (tmp_path / "out").exists()


def test_the_times_that_are_suggested_hold_a_frame(
    recorded: Recorded, tmp_path: Path, capsys
) -> None:
    manifest = tmp_path / "a.json"
    align = ["align", recorded.root, "--layout", "x4k1000fps", "--log", tmp_path / "a.txt"]
    run(*align, "--from", "0s", "--to", "70ms")
    commands = [
        restoring(recorded.blur, recorded.dat, tmp_path / "out"),
        ["restore", "--method", "sdm", "--manifest", manifest, "--out", tmp_path / "all"],
        ["voxelize", manifest, tmp_path / "s.zarr", "--workers", 1],
        [*align[:-1], tmp_path / "b.txt"],
    ]
    for command in commands:
        words = [str(word) for word in command]
        capsys.readouterr()
        assert main([*words, "--from", "20ms", "--to", "20.2ms"]) == 1
        said = capsys.readouterr().err
        start, end = re.findall(r"around an exposure, such as --from (\S+) --to (\S+)", said)[0]
        assert main([*words, "--from", start, "--to", end]) == 0, said


def test_convert_needs_a_rate_to_find_times(tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "a.npy", np.zeros((9, 8, 8), np.uint8))
    command = ["convert", str(tmp_path / "a.npy"), str(tmp_path / "a.dat"), "--from", "1ms"]
    assert main(command) == 1
    assert "expected its rate, by which --from 0.001s is found" in capsys.readouterr().err
