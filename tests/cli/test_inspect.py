import json
import re
import shlex

import numpy as np
import pytest

from spikedeblur.cli import main
from spikedeblur.configs import dump_config, load_config
from spikedeblur.pipeline.spikes import SideFile, parse_geometry, write_side_file, write_spikes

QUICKSTART = "configs/deblur/quickstart.yaml"


@pytest.fixture
def dat(tmp_path):
    path = tmp_path / "spike.dat"
    spikes = np.random.default_rng(0).random((64, 180, 320)) < 0.25
    write_spikes(path, spikes, parse_geometry("s-sdm-gopro"))
    return path


def facts_of(path, capsys, *options):
    assert main(["inspect", str(path), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_spikes_with_a_side_file_are_described_from_it(dat, capsys):
    write_side_file(dat, SideFile(geometry="180x320,bottom-up", rate=1920.0, gain=0.5))
    found = facts_of(dat, capsys)
    assert found["kind"] == "spikes"
    assert found["facts"]["frames"] == 64
    assert found["facts"]["duration (s)"] == pytest.approx(64 / 1920)
    assert found["facts"]["mean luminance"] == pytest.approx(0.5, abs=0.01)


def test_spikes_have_samples_in_words_and_the_name_that_scripts_know_in_json(dat, capsys):
    write_side_file(dat, SideFile(geometry="180x320,bottom-up", rate=1920.0, gain=0.5))
    assert main(["inspect", str(dat)]) == 0
    said = capsys.readouterr().out
    assert "  samples: 64\n" in said
    assert "frame" not in said
    assert "frames" in facts_of(dat, capsys)["facts"]


def test_spikes_without_geometry_get_the_presets_that_fit(dat, capsys):
    found = facts_of(dat, capsys)
    presets = [row[0] for row in found["table"][1:]]
    assert "s-sdm-gopro" in presets
    assert "vidar" not in presets


def test_a_configuration_is_described_with_its_parameters(capsys):
    found = facts_of(QUICKSTART, capsys)
    assert found["kind"] == "config"
    total = found["facts"]["parameters"]
    assert sum(int(row[1].replace(",", "")) for row in found["table"][1:]) == total


def test_a_configuration_says_which_parts_of_the_reference_are_on(capsys):
    small = facts_of(QUICKSTART, capsys)["facts"]
    for part in ("fusion of spikes after stages 1 to 4", "mutual", "attention in stages 2"):
        assert part in small["on"]
    assert "flow and deformable alignment" in small["off"]
    assert "attention in stages 1, 7, 8" in small["off"]
    published = facts_of("configs/deblur/vrt_spike_baseline.yaml", capsys)["facts"]
    assert "flow and deformable alignment" in published["on"]
    assert "attention in stages 1, 2, 3, 4, 5, 6, 7, 8" in published["on"]
    assert "attention" not in published["off"]


def test_a_packaged_configuration_is_found_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert facts_of(QUICKSTART, capsys)["kind"] == "config"
    assert main(["inspect", "configs/deblur/quickstrat.yaml"]) == 1
    assert "none of that name in the package" in capsys.readouterr().err


def test_a_run_that_was_killed_while_it_wrote_is_described(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(dump_config(load_config(QUICKSTART)))
    found = facts_of(tmp_path, capsys)
    assert found["facts"]["weights"] == "none yet"
    assert found["facts"]["steps"].startswith("0 of ")
    assert found["table"] == []
    whole = {"kind": "train", "step": 50, "seconds": 120.0, "data_wait": 0.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(whole) + '\n{"kind": "train", "st')
    facts = facts_of(tmp_path, capsys)["facts"]
    assert facts["steps"].startswith("50 of ")
    assert facts["training time (minutes)"] == 2.0
    (tmp_path / "metrics.jsonl").write_text("nonsense\n" + json.dumps(whole) + "\n")
    assert main(["inspect", str(tmp_path)]) == 1
    assert "metrics.jsonl, line 1: expected what `train` writes" in capsys.readouterr().err


def test_a_run_is_a_table_of_its_validations_with_the_best(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(dump_config(load_config(QUICKSTART)))
    lines = [{"kind": "val", "step": 0, "psnr": 20.0, "psnr_blur": 18.0}]
    for step in range(10, 1010, 10):
        lines.append({"kind": "train", "step": step, "loss": 1 / step, "lr": 1e-3})
        lines.append({"kind": "val", "step": step, "psnr": 21.0, "psnr_blur": 18.0})
    lines[2 * 37]["psnr"] = 25.5
    lines[2 * 5]["psnr"] = None
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    heading, first, *rows = facts_of(tmp_path, capsys)["table"]
    assert heading[:3] == ["step", "dB", "over blur"]
    assert first == ["0", "20.00", "+2.00", "-", "-"]
    assert ["370 (best)", "25.50", "+7.50", "0.0027", "0.001"] in rows
    assert 18 < len(rows) < 22
    assert rows[-1][0] == "1000"


def test_what_is_nothing_of_ours_is_refused(tmp_path, capsys):
    (tmp_path / "picture.gif").write_bytes(b"GIF89a")
    assert main(["inspect", str(tmp_path / "picture.gif")]) == 1
    assert "picture.gif" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 1
    assert "zarr.json" in capsys.readouterr().err


def test_a_table_of_any_content_prints(dat, capsys):
    assert main(["inspect", str(dat)]) == 0
    assert "s-sdm-gopro" in capsys.readouterr().out


def test_spikes_without_a_side_file_end_with_a_command_that_works(tmp_path, capsys):
    y, x = np.mgrid[0:90, 0:160]
    light = 0.5 + 0.4 * np.sin(x / 7 + y / 11) * np.cos(y / 13)
    spikes = np.random.default_rng(0).random((64, 90, 160)) < light
    path = tmp_path / "scene 1.dat"
    write_spikes(path, spikes, parse_geometry("90x160,bottom-up"))
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "does not show in a size" in printed
    (command,) = re.findall("^Next: spikedeblur (.*)$", printed, re.MULTILINE)
    words = shlex.split(command)
    assert words[0] == "view"
    assert main(["inspect", *words[1:]]) == 0
    assert "height x width: 90x160" in capsys.readouterr().out


def test_presets_know_the_rate_or_say_what_is_known(tmp_path, capsys):
    path = tmp_path / "camera.dat"
    spikes = (np.random.default_rng(0).random((9, 250, 400)) < 0.3).astype(np.uint8)
    write_spikes(path, spikes, parse_geometry("vidar"))
    facts = facts_of(path, capsys, "--geometry", "vidar")["facts"]
    assert (
        facts["rate (Hz)"]
        == "20000 or 40000, as the camera was set; say which: `restore --rate HZ`"
    )
    rates = {row[0]: row[3] for row in facts_of(path, capsys)["table"][1:]}
    assert rates["vidar|reds-spike"] == "20000 or 40000, as the camera was set"
    path = tmp_path / "gopro.dat"
    write_spikes(path, np.ones((9, 360, 640), np.uint8), parse_geometry("spk-gopro"))
    facts = facts_of(path, capsys, "--geometry", "spk-gopro")["facts"]
    assert (facts["rate (Hz)"], facts["gain"]) == (1920.0, 0.5)
