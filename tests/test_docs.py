"""The documentation does what it says: commands run, links lead somewhere, messages are ours."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pages import BLOCK, DOCS, PAGES, SHOWN, blocks, run_page

from spikedeblur.cli import main
from spikedeblur.cli.output import begin
from spikedeblur.configs.json_schema import config_json_schema
from spikedeblur.configs.loading import key_paths
from spikedeblur.configs.schema import Config
from spikedeblur.pipeline.frames.images import write_png
from spikedeblur.pipeline.simulate.clips import scene_clips

ALONE = "own-camera"
"""Page whose commands `test_rig` runs, to look at what they make."""
RUN = [page for page in PAGES if blocks(page, "bash") and page.stem != ALONE]


@pytest.mark.slow
@pytest.mark.timeout(900)  # export writes two programs
@pytest.mark.parametrize("page", RUN, ids=[page.stem for page in RUN])
def test_every_command_and_every_example_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page)


def headings(page: Path) -> list[str]:
    """Return the anchors of a page's headings, as GitHub and Sphinx make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_link_between_pages_leads_to_a_file_and_heading(repository):
    made_from_code = {DOCS / "reference/commands.md", DOCS / "reference/config.md"}
    made_from_code |= {path.with_suffix(".md") for path in DOCS.glob("examples/*.ipynb")}
    pages = [*repository.glob("*.md"), *DOCS.rglob("*.md")]
    for page in set(pages) - made_from_code:
        text = page.read_text(encoding="utf-8")
        for name, heading in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text):
            target = (page.parent / name).resolve() if name else page
            assert target.exists() or target in made_from_code, f"{page}: {name}"
            assert not heading or heading in headings(target), f"{page}: {name}#{heading}"


@pytest.mark.parametrize("page", RUN, ids=[page.stem for page in RUN])
def test_every_command_of_a_page_is_followed_by_what_it_prints(page):
    text = page.read_text(encoding="utf-8")
    shown = [commands for commands, printed in SHOWN.findall(text) if printed]
    typed = [commands for _, commands in blocks(page, "bash")]
    assert shown == typed


def test_the_page_on_installing_has_every_extra(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    page = (DOCS / "how-to/install.md").read_text(encoding="utf-8")
    table = page.partition("| extra |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(listed) == sorted(settings["project"]["optional-dependencies"])


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(DOCS.glob("examples/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "site")
    import notebooks

    stored = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in stored)
    try:
        output = [line for _, _, lines in notebooks.run(path) for line in lines]
    finally:
        begin(quiet=False)  # its commands are quiet, and what comes after is not
    assert sum("data:image/png" in line for line in output) == 2
    scores = dict(re.findall(r"^(\w+) +([\d.]+) dB$", "\n".join(output), re.MULTILINE))
    names = ["blurred", "sdm", "path", "small"]
    assert sorted(scores, key=lambda name: float(scores[name])) == names


def test_every_decision_has_a_number_of_its_own_and_pages_are_in_order():
    numbers: list[int] = []
    for page in DOCS.glob("decisions/*.md"):
        of_page = re.findall(r"^## (\d+)\. \w", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert of_page == sorted(of_page, key=int), page
        numbers += map(int, of_page)
    assert len(numbers) == len(set(numbers)) > 70


def test_every_error_that_is_explained_is_one_that_we_raise(repository):
    said = {
        " ".join(node.value.split())
        for room in ("pipeline", "configs", "model", "cli")
        for path in (repository / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### (`+)(.+)\1$", page, re.MULTILINE)
    assert len(quoted) > 12
    for _, message in quoted:
        assert any(message in words for words in said), message


def test_the_json_schema_has_every_key_with_its_effect():
    def leaves(node: dict, path: str):
        for name, below in node["properties"].items():
            reference = below.get("$ref", "").rpartition("/")[2]
            yield f"{path}{name}", below
            if reference:
                yield from leaves(schema["$defs"][reference], f"{path}{name}.")

    schema = config_json_schema()
    found = dict(leaves(schema, ""))
    assert set(found) == set(key_paths(Config))
    assert all(key.get("description") for key in found.values())
    limits = found["TRAIN.OPTIM.LR"]
    assert limits["exclusiveMinimum"] == 0
    assert "gt" not in limits


def test_the_schema_for_editors_takes_our_configurations(repository):
    import jsonschema
    import yaml

    checker = jsonschema.Draft202012Validator(config_json_schema())
    for path in (repository / "configs").rglob("*.yaml"):
        checker.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    wrong = {"TRAIN": {"OPTIM": {"LR": 0}}, "DATA": {"CROPSIZE": 64}}
    assert len(list(checker.iter_errors(wrong))) == 2


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(repository, tmp_path):
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "docs", str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference/config.html").read_text().count("<dt") > 80
    assert "<svg" in (tmp_path / "concepts.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works_as_typed(repository, tmp_path, monkeypatch, capsys):
    """In order, on small data under the names that it uses; what serves a page is left out."""
    text = (repository / "README.md").read_text(encoding="utf-8")
    typed = [
        re.split(r"\s+# ", line)[0]
        for _, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith(("spikedeblur ", "source "))
    ]
    assert typed[0] == "source .venv/bin/activate", "the first thing a shell needs to know"
    ours = [line for line in typed[1:] if not line.endswith("...") and " view " not in line]
    assert len(ours) > 10
    monkeypatch.chdir(tmp_path)
    make_what_the_readme_names()
    shorter = (
        (r"^(spikedeblur voxelize .*)$", r"\1 --workers 1"),
        (r"^(spikedeblur train .*)$", r"\1 --set TRAIN.MAX_STEPS=2"),
        (r"^(spikedeblur adapt .*)$", r"\1 --steps 1"),
    )
    for line in ours:
        for pattern, more in shorter:
            line = re.sub(pattern, more, line)
        assert main(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
    for _, block in re.findall(r"^```(python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        given = {"__name__": "example", "frames": np.full((2, 500, 800, 3), 128, np.uint8)}
        exec(compile(block, "README.md (python)", "exec"), given)


def make_what_the_readme_names() -> None:
    """Write DIR with sharp frames, and frames/ and recording.dat of a camera, to this folder."""
    for split in ("train", "val", "test"):
        for i, frame in enumerate(scene_clips(split, 1, (64, 64), 33)[0].render(0)):
            write_png(f"DIR/{split}/group/clip/{i:04d}.png", frame)
    camera = "--scenes 1 --split test --size 500x800 --length 33 --spikes-per-frame 20 --workers 1"
    assert main(["simulate", "camera", *camera.split()]) == 0
    Path("camera/test_blurry_33/scenes/00000").rename("frames")
    Path("camera/test_spike_2xds/scenes/00000/spike.dat").rename("recording.dat")
