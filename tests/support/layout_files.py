"""Layout files of a small data set, and changes to them."""

from __future__ import annotations

from pathlib import Path

import yaml
from aligning import run_align

CONTENT = {
    "name": "mine",
    "split": "test",
    "blur": "{clip}/blur/{frame}.png",
    "spikes": {"files": "{clip}/spikes.dat", "geometry": "32x40,bottom-up", "rate": 4000},
    "frames": {"fps": 1000, "exposure": 9},
}


def write(folder: Path, content: object) -> str:
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def changed(of: object = CONTENT, **keys: object) -> dict[str, object]:
    """Content with keys set, or taken away where None; `a__b` is key b of section a."""
    content: dict = yaml.safe_load(yaml.safe_dump(of))
    for key, value in keys.items():
        *sections, last = key.split("__")
        place = content
        for section in sections:
            place = place[section]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return content


def run(root: Path, layout: str, **options):
    return run_align(root, layout, root.parent / "a.txt", verify=False, **options)
