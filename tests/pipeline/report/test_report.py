"""What is on the page, what is said to be missing, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import vl_convert
from PIL import Image

from spikedeblur.pipeline.align import align
from spikedeblur.pipeline.report import ReportError, write_report
from spikedeblur.pipeline.report.charts import training_curves
from spikedeblur.pipeline.report.words import EXPLAINED
from spikedeblur.pipeline.sequences import open_store
from spikedeblur.pipeline.simulate import simulate
from spikedeblur.pipeline.simulate.clips import scene_clips
from spikedeblur.pipeline.simulate.rig import Rig
from spikedeblur.pipeline.train.run.checkpoint import write_checkpoint
from spikedeblur.pipeline.voxelize import VoxelizeOptions, Workers, voxelize_manifest
from spikedeblur.pipeline.weights.checkpoint import read_checkpoint

WRITTEN = ("format", "schema_version", "version")
"""Keys of a checkpoint that writing it adds."""


class Page(HTMLParser):
    """A report, taken apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._within: list[str] = []
        self.charts: dict[str, dict] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input"):
            self._within.append(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag):
        self._within.pop()

    def handle_data(self, data):
        if self._within[-1:] == ["charts"]:
            self.charts = json.loads(data)
        elif self._within and self._within[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def pictures(self) -> list[np.ndarray]:
        return [decoded(a["src"]) for tag, a in self.tags if tag == "img"]


def decoded(uri: str) -> np.ndarray:
    content = base64.b64decode(uri.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def values_of(chart: dict) -> list[dict]:
    """The rows that a chart shows, wherever its specification has them."""
    found = [chart.get("data"), *(layer.get("data") for layer in chart.get("layer", ()))]
    return next(data["values"] for data in found if data)


@pytest.fixture(scope="module")
def one(trained, tmp_path_factory) -> Page:
    out = tmp_path_factory.mktemp("one") / "one.html"
    summary = write_report([trained / "runs/fast"], out)
    assert summary.notes == ()
    assert summary.windows == 3
    return Page(out)


def test_the_charts_library_is_what_vl_convert_bundles(repository) -> None:
    """It is kept as a file, since the package that bundles it takes a hundred times as much."""
    kept = (repository / "pipeline/report/templates/vega.js").read_text(encoding="utf-8")
    assert kept == vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def test_the_figures_are_those_of_the_evaluation(one, trained):
    found = json.loads((trained / "runs/fast/evaluation.json").read_text())
    for name in ("blur", "tfp", "tfi", "sdm", "path", "model"):
        mean = found["methods"][name]
        assert f"{mean['psnr']:.2f} / {mean['ssim']:.3f}" in one.words


def test_nothing_is_fetched_and_the_browser_is_told_so(one):
    for tag, attributes in one.tags:
        for name in ("src", "href"):
            link = attributes.get(name) or "#"
            assert link.startswith(("data:", "#")), (tag, link[:60])
    (policy,) = [a["content"] for t, a in one.tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_pictures_are_the_stores_to_the_bit(one, trained):
    (sequence,) = open_store(trained / "spikes.zarr", "val")
    blurred = [f.tobytes() for f in sequence.blur(0, sequence.length)]
    sharp = [f.tobytes() for f in sequence.sharp(0, sequence.length)]
    pictures = [picture.tobytes() for picture in one.pictures()]
    assert len(pictures) == 3 * 7  # windows; blur, TFP, TFI, SDM, path, model, sharp
    assert set(blurred) == set(pictures[0::7])
    assert set(sharp) == set(pictures[6::7])
    assert not set(pictures[5::7]) & {*blurred, *sharp}


def test_the_zoomed_part_is_where_the_blurred_frame_is_worst(one):
    pictures = one.pictures()
    for i, shown in enumerate(a for _, a in one.tags if "data-part" in a):
        blur, sharp = (pictures[7 * i + k].astype(float) for k in (0, 6))
        height, width = sharp.shape[0] // 3, sharp.shape[1] // 3
        error = ((blur - sharp) ** 2).sum(2)
        y, x = max(
            np.ndindex(sharp.shape[0] - height + 1, sharp.shape[1] - width + 1),
            key=lambda at: error[at[0] : at[0] + height, at[1] : at[1] + width].sum(),
        )
        found = json.loads(shown["data-part"])
        part = [x / sharp.shape[1], y / sharp.shape[0], width / sharp.shape[1]]
        assert found == pytest.approx([*part, height / sharp.shape[0]])


def test_sliders_offer_every_method_of_the_table_and_each_is_explained(one, trained):
    found = json.loads((trained / "runs/fast/evaluation.json").read_text())
    names = [name.upper() if name in ("tfp", "tfi", "sdm") else name for name in found["methods"]]
    alts = [a["alt"] for tag, a in one.tags if tag == "img"]
    assert alts == [*names, "sharp"] * 3
    rows = [a["data-panels"] for _, a in one.tags if "data-panels" in a]
    assert [[alts[i] for i in json.loads(row)] for row in rows] == [
        ["blur", "SDM", "path", "model", "sharp"]
    ]
    for name in names:
        assert f"{name} {EXPLAINED[name]}" in one.words


def test_an_improvement_is_not_called_a_gain(one):
    assert "improvement over blur" in one.words
    words = one.words.replace("gain 0.5 spikes a sample", "")  # the camera's
    assert not re.search(r"\bgains?\b", words, re.IGNORECASE)
    assert not re.search(r"\bgains?\b", json.dumps(one.charts), re.IGNORECASE)


def test_a_scene_for_the_eye_comes_first(trained, tmp_path):
    store = tmp_path / "spikes.zarr"
    shutil.copytree(trained / "spikes.zarr", store)
    simulate(tmp_path / "frames", scene_clips("show", 1, (32, 48), 65), Rig(), workers=1)
    manifest = tmp_path / "show.json"
    align(tmp_path / "frames", "x4k1000fps", log=tmp_path / "show.txt", manifest=manifest)
    voxelize_manifest(manifest, store, VoxelizeOptions(bins=8), Workers(count=1))
    out = tmp_path / "page.html"
    summary = write_report([trained / "runs/fast"], out, store=str(store), restore=False)
    assert summary.windows == 4
    page = Page(out)
    assert "For the eye, neither trained nor scored: show/scenes/00000, frame 31" in page.words
    (shown,) = open_store(store, "show")
    pictures = page.pictures()[:5]  # blur, TFP, TFI, SDM, sharp
    np.testing.assert_array_equal(pictures[0], shown.blur(1, 2)[0])
    np.testing.assert_array_equal(pictures[4], shown.sharp(1, 2)[0])


def test_a_control_that_is_gone_is_noted(trained, alone):
    found = json.loads((trained / "runs/fast/evaluation.json").read_text())
    scores = [found["methods"], *found["sequences"].values(), *found["frames"]]
    for each in scores:
        each["rgb"] = each["blur"]
    found["control"] = "/gone/control"
    (alone / "evaluation.json").write_text(json.dumps(found))
    summary = write_report([alone], store=str(trained / "spikes.zarr"))
    assert "The model /gone/control is not there: no pictures by RGB" in summary.notes


def test_every_chart_is_one_that_vega_can_draw(one):
    drawn = {a["data-chart"] for _, a in one.tags if "data-chart" in a}
    assert drawn == set(one.charts)
    assert {"validation", "improvements", "time", "raster", "rates", "likeness"} < drawn
    for name, spec in one.charts.items():
        spec = json.loads(json.dumps(spec).replace('"container"', "300"))
        assert vl_convert.vegalite_to_svg(spec).count("<path") > 3, name


def test_a_curve_of_a_single_point_shows_it():
    def drawn(*steps: int) -> int:
        lines = [{"step": step, "loss": 0.1 + step, "kind": "train"} for step in steps]
        run = SimpleNamespace(name="a", lines=lambda kind: lines)
        spec = json.dumps(training_curves([run])["Loss"]).replace('"container"', "300")
        return len(
            re.findall(
                r'aria-roledescription="point".*?opacity="1"',
                vl_convert.vegalite_to_svg(json.loads(spec)),
            )
        )

    assert (drawn(4), drawn(4, 5)) == (1, 0)


def test_the_alignment_is_the_manifests(one, trained):
    manifest = json.loads((trained / "align.json").read_text())
    proved = [s for s in manifest["sequences"] if s["verification"]["confident"]]
    assert len(proved) > 2
    for sequence in proved:
        found = sequence["verification"]
        lag = f"{1000 * found['lag_seconds']:+.3f} {found['lag_frames']:+.1f}"
        assert f"{sequence['seq']} {lag}" in one.words


def test_parts_of_the_network_are_named_on_and_off(one):
    assert "parts of the network that are on: " in one.words
    assert "flow and deformable alignment" in one.words.partition("that are off: ")[2]


def test_the_time_of_training_is_accounted_for(one, trained):
    lines = (trained / "runs/fast/metrics.jsonl").read_text().splitlines()
    steps = sum(x["seconds"] for x in map(json.loads, lines) if x["kind"] == "train")
    by_part = {row["part"]: row["seconds"] for row in values_of(one.charts["time"])}
    extra = by_part.pop("validation") + by_part.pop("saving")
    assert extra > 0
    assert sum(by_part.values()) == pytest.approx(steps)


def test_equal_inputs_give_equal_bytes(one, trained, tmp_path):
    write_report([trained / "runs/fast"], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == one.path.read_bytes()


def test_runs_are_compared_by_figures_curves_pictures_and_keys(trained, tmp_path):
    slow = tmp_path / "slow"
    shutil.copytree(trained / "runs/fast", slow)
    config = (slow / "config.yaml").read_text().replace("LR: 0.001\n", "LR: 0.0001\n")
    (slow / "config.yaml").write_text(config)
    best = slow / "checkpoints/best.pt"
    state = {k: v for k, v in read_checkpoint(best).items() if k not in WRITTEN}
    write_checkpoint(best, state | {"config": config})
    assert write_report([trained / "runs/fast", slow], tmp_path / "two.html").runs == 2
    page = Page(tmp_path / "two.html")
    assert "TRAIN.OPTIM.LR 0.001 0.0001" in page.words
    alts = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert alts[:8] == ["blur", "TFP", "TFI", "SDM", "path", "fast", "slow", "sharp"]
    lefts = {a["data-left"] for _, a in page.tags if "data-left" in a}
    assert lefts == {"5"}  # the first model against the last
    summary = write_report([trained / "runs/fast", slow], tmp_path / "two.html", restore=False)
    assert summary.windows == 3
    alts = [a["alt"] for tag, a in Page(tmp_path / "two.html").tags if tag == "img"]
    assert alts[:5] == ["blur", "TFP", "TFI", "SDM", "sharp"]
    drawn = {row["run"] for row in values_of(page.charts["validation"])}
    assert drawn == {"fast", "slow"}


def test_a_run_alone_is_shown_as_far_as_it_goes_and_says_what_is_missing(alone):
    summary = write_report([alone])
    assert summary.out == str(alone / "report.html")
    said = "\n".join(summary.notes)
    for what in ("checkpoint", "spikedeblur evaluate", "--store", "--manifest"):
        assert what in said
    page = Page(alone / "report.html")
    assert "Not on this page" in page.words
    (picture,) = page.pictures()  # the last one of validation, as it is
    last = max((alone / "samples").glob("step_*.png"))
    assert np.array_equal(picture, np.asarray(Image.open(last).convert("RGB")))
    assert "validation" in page.charts
    assert "improvements" not in page.charts


def test_an_evaluation_of_other_weights_is_called_out(trained, alone):
    shutil.copy(trained / "runs/fast/evaluation.json", alone)
    shutil.copy(trained / "runs/fast/checkpoints/best.pt", alone / "checkpoints")
    (alone / "evaluation.json").write_text(
        (alone / "evaluation.json").read_text().replace(str(trained), "/gone")
    )
    assert "other weights" not in "\n".join(write_report([alone]).notes)
    best = alone / "checkpoints/best.pt"
    state = read_checkpoint(best)
    write_checkpoint(best, {key: state[key] for key in state if key not in WRITTEN} | {"step": 1})
    assert "other weights" in "\n".join(write_report([alone]).notes)


def test_motion_and_late_spikes_of_the_evaluation_are_shown(trained, alone):
    found = json.loads((trained / "runs/fast/evaluation.json").read_text())
    found["store"] = "/gone"
    found["lag_in_exposures"] = dict.fromkeys(found["lag_in_exposures"], 0.1)
    found["motion"] = {
        "sharp": {"psnr": {}, "warping_error": 0.0012},
        "sdm": {"psnr": {"0 to 2": 25.5, "over 32": 20.25}, "warping_error": None},
    }
    (alone / "evaluation.json").write_text(json.dumps(found))
    notes = write_report([alone]).notes
    assert any("1 of 1 sequence are not where" in note for note in notes)
    assert "SDM 25.50 20.25" in Page(alone / "report.html").words
    found["schema_version"] = 99
    (alone / "evaluation.json").write_text(json.dumps(found))
    with pytest.raises(ReportError, match="schema 1, found 99"):
        write_report([alone])


def test_names_are_shown_as_text(alone):
    run = alone.rename(alone.with_name("<b>&amp;'\""))
    write_report([run])
    page = Page(run / "report.html")
    assert "<b>&amp;'\"" in page.words
    assert not [tag for tag, _ in page.tags if tag == "b"]


def test_a_manifest_of_another_name_beside_the_log_is_known_by_its_content(trained, alone):
    logs = alone.parent / "logs"
    logs.mkdir()
    config = alone / "config.yaml"
    config.write_text(config.read_text().replace("/gone/align.txt", str(logs / "other.txt")))
    (logs / "other.json").write_text("{}")
    assert any("--manifest" in note for note in write_report([alone]).notes)
    shutil.copy(trained / "align.json", logs / "mine.json")
    assert not any("--manifest" in note for note in write_report([alone], overwrite=True).notes)
