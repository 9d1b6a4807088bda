"""The picture on the first page of README.md and of the documentation."""

from __future__ import annotations

import numpy as np
from PIL import Image

from spikedeblur.pipeline.simulate.clips import scene_clips

SIZE = (192, 240)
NAME = "before_after.webp"


def test_it_is_small_stored_once_and_on_both_pages(repository):
    path = repository / "docs" / NAME
    assert path.stat().st_size < 300_000
    for page, link in (("README.md", f"](docs/{NAME})"), ("docs/index.md", f"]({NAME})")):
        text = (repository / page).read_text(encoding="utf-8")
        assert 0 < text.index(link) < 2000, page


def test_its_panels_are_the_blurred_and_the_sharp_frame_of_the_scene(repository):
    """Else `make picture` makes it anew."""
    with Image.open(repository / "docs" / NAME) as image:
        picture = np.asarray(image.convert("RGB"), float)
    height, width, line, gap = 2 * SIZE[0], 2 * SIZE[1], 32, 4
    assert picture.shape == (line + height + gap + height, 5 * width + 4 * gap, 3)
    (clip,) = scene_clips("show", 1, SIZE, 65)
    frames = np.stack(list(clip.render(0))).astype(float)
    truth = {0: frames[15:48].mean(0), 4: frames[31]}
    errors = []
    for place in range(5):
        panel = picture[line : line + height, place * (width + gap) :][:, :width]
        small = panel.reshape(SIZE[0], 2, SIZE[1], 2, 3).mean((1, 3))
        if place in truth:
            assert np.abs(small - truth[place]).mean() < 6  # compressed, and a part is framed
        errors.append(((small - frames[31]) ** 2).mean())
    assert errors == sorted(errors, reverse=True), "blur, SDM, path, model, sharp"
