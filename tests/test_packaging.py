"""The checkout is the package: what is installed must be what is in the folders."""

import contextlib
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOMS = ("cli", "configs", "model", "pipeline", "third_party")


def test_the_packages_listed_are_the_folders_there_are(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {"spikedeblur"}
    for room in ROOMS:
        for init in (repository / room).rglob("__init__.py"):
            found.add(".".join(("spikedeblur", *init.parent.relative_to(repository).parts)))
    assert listed == found


def test_every_version_in_constraints_is_of_something_that_is_needed(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    todo, needed = [Requirement(line) for line in asked], {}
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), requirement.extras | {""}
        known = needed.setdefault(name, set())
        new = extras - known
        known |= extras
        with contextlib.suppress(PackageNotFoundError):  # needed on another platform only
            for below in map(Requirement, requires(name) or () if new else ()):
                marker = str(below.marker or "")
                if "extra" not in marker or any(below.marker.evaluate({"extra": e}) for e in new):
                    todo.append(below)
    pinned = re.findall(r"^([\w.-]+)==", (repository / "constraints.txt").read_text(), re.MULTILINE)
    assert [name for name in pinned if canonicalize_name(name) not in needed] == []


def test_every_package_says_what_it_is_for(repository):
    for room in ROOMS:
        for init in (repository / room).rglob("__init__.py"):
            first = init.read_text().split("\n", 1)[0]
            assert re.match(r'"""\w', first), init


def test_gitignore_hides_no_source(repository):
    sources = [
        str(path.relative_to(repository))
        for room in (*ROOMS, "tests")
        for path in (repository / room).rglob("*.py")
    ]
    done = subprocess.run(
        ["git", "check-ignore", *sources],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout == ""


def test_the_image_is_built_from_what_it_copies(repository):
    text = (repository / "Dockerfile").read_text()
    left_out = set((repository / ".dockerignore").read_text().split("\n"))
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    needed = {"README.md", "LICENSE", "constraints.txt", "pyproject.toml", *ROOMS}
    assert not needed & left_out
    (extras,) = re.findall(r"'\.\[(.+)\]'", text)
    assert set(extras.split(",")) <= settings["project"]["optional-dependencies"].keys()


@pytest.mark.slow
def test_the_wheel_holds_code_configurations_and_options(repository, tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "-q",
            "-w",
            str(tmp_path),
            str(repository),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 6e6
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "spikedeblur/moved.json" in names
    held = {
        "pipeline/report/templates": "*",
        "configs": "*.yaml",
        "third_party": "*.yaml",
        "pipeline": "*.py",
        "model": "*.safetensors",
    }
    for folder, pattern in held.items():
        for path in (repository / folder).rglob(pattern):
            assert f"spikedeblur/{Path(path).relative_to(repository).as_posix()}" in names
    assert not any(name.startswith(("spikedeblur/tests", "tests")) for name in names)
