"""What is no run, no page and no evaluation is refused; a run leads to no address."""

from __future__ import annotations

import json

import pytest

from spikedeblur.pipeline.host.overwrite import OverwriteError
from spikedeblur.pipeline.report import ReportError, write_report
from spikedeblur.pipeline.train.run.runs import RunFolderError


def test_a_page_of_ours_is_replaced_and_no_other_file(alone):
    page = alone / "report.html"
    write_report([alone])
    first = page.read_bytes()
    write_report([alone])
    assert page.read_bytes() == first
    page.write_text("<h1>mine</h1>")
    with pytest.raises(OverwriteError, match="expected a report of spikedeblur"):
        write_report([alone])
    assert page.read_text() == "<h1>mine</h1>"
    write_report([alone], overwrite=True)
    assert page.read_bytes() == first


@pytest.mark.parametrize(
    ("runs", "more", "message"),
    [
        ([], {}, "got none"),
        (["runs/fast", "runs/../runs/fast"], {}, "each run once"),
        (["runs/fast"], {"evaluation": "align.json"}, "spikedeblur.evaluation"),
        (["runs/fast"], {"evaluation": "none.json"}, "no such file"),
        (["runs/fast"], {"out": "page.pdf"}, r"ends in \.html"),
    ],
)
def test_what_is_no_run_or_no_page_is_refused(trained, tmp_path, monkeypatch, runs, more, message):
    monkeypatch.chdir(trained)
    with pytest.raises(ReportError, match=message):
        write_report(runs, **{"out": tmp_path / "no.html", **more})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"found no config\.yaml"):
        write_report([tmp_path / "missing"], tmp_path / "no.html")
    assert not list(tmp_path.iterdir())


def without(*keys):
    def change(found):
        for key in keys:
            del found[key]

    return change


def nothing(found):
    kept = {key: found[key] for key in ("format", "schema_version")}
    found.clear()
    found.update(kept)


def one_method_less(found):
    next(iter(found["sequences"].values())).popitem()


def text_for_a_score(found):
    next(iter(found["methods"].values()))["psnr"] = "high"


def frames_of_nothing(found):
    found["frames"] = [{"seq": "val/a/b", "frame": 1}]


def windows_of_none(found):
    found["sequence_windows"] = {}


@pytest.mark.parametrize(
    "change",
    [
        *(nothing, one_method_less, text_for_a_score, frames_of_nothing, windows_of_none),
        without("sequences"),
        without("data_sha256", "store"),
        without("psnr_gain_over_blur_interval"),
    ],
)
def test_an_evaluation_that_lacks_what_is_shown_is_refused(change, trained, alone):
    found = json.loads((trained / "runs/fast/evaluation.json").read_text())
    change(found)
    (alone / "evaluation.json").write_text(json.dumps(found))
    with pytest.raises(ReportError, match=r"evaluation\.json: .*evaluate again"):
        write_report([alone])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": ' * 5000,
        "9" * 6000,
        '{"format": "spikedeblur.evaluation", "a": NaN}',
    ],
    ids=["brackets", "braces", "digits", "NaN"],
)
def test_an_evaluation_that_is_no_plain_json_is_refused(text, alone):
    (alone / "evaluation.json").write_text(text)
    with pytest.raises(ReportError, match=r"evaluation\.json"):
        write_report([alone])


@pytest.mark.parametrize("by", ["evaluation", "config"])
@pytest.mark.parametrize("url", ["s3://a-bucket/store", "gs://a-bucket/s", "az://a/s", "file:///s"])
def test_an_address_in_a_run_is_not_asked(by, url, trained, alone, monkeypatch):
    asked = []
    monkeypatch.setattr("spikedeblur.pipeline.report.material.open_store", asked.append)
    if by == "evaluation":
        found = json.loads((trained / "runs/fast/evaluation.json").read_text())
        (alone / "evaluation.json").write_text(json.dumps(found | {"store": url}))
    config = alone / "config.yaml"
    root = next(line for line in config.read_text().splitlines() if "ROOT:" in line)
    config.write_text(config.read_text().replace(root, f"  ROOT: {url}"))
    notes = write_report([alone]).notes
    assert any(url in note and "--store" in note for note in notes)
    assert asked == []


@pytest.mark.parametrize("logs", ["5", "abc", "{a: 1}", "[1, [2]]"])
def test_logs_of_any_type_are_no_manifest(logs, alone):
    config = alone / "config.yaml"
    lines = config.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "ALIGN_LOG_PATHS" in line)
    end = next(i for i in range(at + 1, len(lines)) if not lines[i].lstrip().startswith("-"))
    lines[at:end] = [f"  ALIGN_LOG_PATHS: {logs}"]
    config.write_text("\n".join(lines))
    assert any("--manifest" in note for note in write_report([alone]).notes)
