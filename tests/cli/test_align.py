from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from layout_trees import custom_camera

from spikedeblur.cli import main
from spikedeblur.pipeline.simulate import job
from spikedeblur.pipeline.simulate.clips import scene_clips


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rig = job.Rig(
        exposure=9,
        stride=8,
        fps=1000.0,
        spike_scale=2,
        spikes_per_frame=8,
        threshold=2.0,
        noise=0.0,
        linear_light=False,
        seed=0,
    )
    clips = scene_clips("val", 2, (48, 48), 33)
    job.simulate(root, clips, rig, workers=1)
    return root


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def spikedeblur(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder; returns exit code and output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


def test_defaults_write_log_and_manifest_and_name_the_next_command(spikedeblur, recorded, tmp_path):
    done = spikedeblur("align", recorded, "--layout", "x4k1000fps", "--exposure", 9)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/logs/align_x4k1000fps.txt").is_file()
    assert (tmp_path / "outputs/logs/align_x4k1000fps.json").is_file()
    assert "2 sequences, 8 exposures" in done.stdout
    assert "spikedeblur voxelize outputs/logs/align_x4k1000fps.json" in done.stdout


def test_json_is_all_that_is_on_stdout(spikedeblur, recorded, tmp_path):
    done = spikedeblur(
        "align", recorded, "--exposure", 9, "--log", "l.txt", "--manifest", "m.json", "--json"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["layout"], summary["sequences"], summary["windows"]) == ("x4k1000fps", 2, 8)
    assert summary["log"] == "l.txt"
    assert set(summary["verification"]) == {"val/scenes/00000", "val/scenes/00001"}
    lines = (tmp_path / "l.txt").read_text().splitlines()[1:]
    assert summary["spikes"] == sum(int(line.split(",")[3]) for line in lines)
    assert "Layout x4k1000fps, by val_blurry_9/" in done.stderr


def test_strict_fails_on_a_warning_in_one_paragraph(spikedeblur, recorded, tmp_path):
    options = ("--exposure", 9, "--rate", 7000, "--log", "l.txt")
    done = spikedeblur("align", recorded, *options, "--strict")
    assert done.returncode == 1
    assert "--rate 7000 taken over the side file's 8000" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "l.txt").exists()
    done = spikedeblur("align", recorded, *options)
    assert done.returncode == 0
    assert "warning: val/scenes/00000" in done.stderr


def test_layout_that_is_not_read_is_wrong_use(spikedeblur, recorded):
    done = spikedeblur("align", recorded, "--layout", "other")
    assert done.returncode == 2
    assert "other" in done.stderr


def test_layout_file_names_log_and_manifest(spikedeblur, tmp_path):
    tree = custom_camera(tmp_path / "data")
    done = spikedeblur("align", "data", "--layout", tree.layout)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/logs/align_my-camera.json").is_file()
    assert "layout my-camera at 100 frames a second" in done.stdout


def test_missing_folder_is_an_error_without_traceback(spikedeblur):
    done = spikedeblur("align", "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example(spikedeblur):
    done = spikedeblur("align", "--help")
    assert done.returncode == 0
    assert "Example: spikedeblur align" in " ".join(done.stdout.split())


def test_gopro_names_its_kind_of_blur(spikedeblur, tmp_path):
    name = "GOPR0384_07_00"
    blur = tmp_path / "GOPRO_Large" / "test" / name / "blur_gamma" / "000001.png"
    dat = tmp_path / "GOPRO_Large_spike_seq" / "test" / name / "spike" / "000001.dat"
    for path, content in ((blur, b"not read"), (dat, bytes(range(1, 101)) * 288 * 56)):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    done = spikedeblur("align", tmp_path, "--log", "l.txt", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "layout spk-gopro at 240 frames a second, blurred frames from blur_gamma" in done.stdout
    manifest = json.loads((tmp_path / "l.json").read_text())
    assert manifest["sequences"][0]["blur_kind"] == "blur_gamma"
    assert "Not verified (--no-verify)" in done.stdout
