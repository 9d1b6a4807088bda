import itertools

import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.simulate import scenes
from spikedeblur.pipeline.simulate.clips import SimulateError, scene_clips
from spikedeblur.pipeline.simulate.scenes import layers_area, render_scene


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def path_length(motion: scenes.Motion) -> float:
    """Return the pixels that a layer's middle travels over the clip."""
    places = [motion.middle(s) for s in np.linspace(-1, 1, 65)]
    return float(np.hypot(*np.diff(places, axis=0).T).sum())


@pytest.fixture
def undrawn(monkeypatch):
    """Leave pictures empty, for tests of where they are."""

    def blank(rng, shape, side, clouds):
        return Image.new("RGB", shape[::-1])

    monkeypatch.setattr(scenes, "Clouds", lambda rng, shape: None)
    monkeypatch.setattr(scenes, "background", blank)
    for name in ("solid", "thin"):
        monkeypatch.setattr(scenes, name, lambda rng, side, clouds: Image.new("RGBA", (20, 20)))


def test_scenes_differ_by_seed_and_move():
    a, again, b = (list(render_scene(generator(s), (48, 64), 9)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, again)
    assert np.abs(np.float32(a[0]) - b[0]).mean() > 5
    assert np.abs(np.float32(a[0]) - a[-1]).mean() > 2
    assert a[0].shape == (48, 64, 3)


def test_scenes_may_move_faster():
    def motion(fastest: float) -> float:
        moved = []
        for seed in range(10):
            frames = list(render_scene(generator(seed), (32, 32), 9, fastest))
            moved.append(np.abs(np.float32(frames[0]) - frames[1]).mean())
        return float(np.mean(moved))

    assert motion(8.0) > 1.2 * motion(1.0)
    with pytest.raises(SimulateError, match="--fastest of 1 to 8, got 9"):
        scene_clips("train", 1, (32, 32), 9, fastest=9)


@pytest.mark.parametrize("fastest", [1.0, 8.0])
@pytest.mark.parametrize("size", [(16, 16), (32, 96), (96, 40)])
@pytest.mark.usefixtures("undrawn")
def test_the_background_reaches_as_far_as_the_scene_moves(fastest, size):
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    largest = layers_area(fastest) * max(size) ** 2 * 1.2  # whole pixels and 2 more a side
    for seed in range(25):
        behind, *_ = scenes._layers(generator(seed), size, fastest)
        rows, columns = behind.picture.height, behind.picture.width
        assert rows * columns < largest
        for s in np.linspace(-1, 1, 21):
            x, y = np.reshape(behind.motion.affine(s, (rows, columns)), (2, 3)) @ corners.T
            assert min(x.min(), y.min()) >= 0
            assert x.max() <= columns
            assert y.max() <= rows


@pytest.mark.usefixtures("undrawn")
def test_things_move_apart_on_bent_paths_and_some_stand_still():
    drawn = [scenes._layers(generator(seed), (96, 96), 1.0) for seed in range(60)]
    assert {len(layers) for layers in drawn} == {3, 4, 5, 6}
    lengths = [[path_length(layer.motion) for layer in layers] for layers in drawn]
    assert any(behind == 0 and max(things) > 8 for behind, *things in lengths)
    assert any(behind > 8 and min(things) == 0 for behind, *things in lengths)
    assert any(0 < max(of_scene) < 10 for of_scene in lengths)
    bends = []
    for layers in drawn:
        for layer in layers:
            first, middle, last = (np.array(layer.motion.middle(s)) for s in (-1, 0, 1))
            bends.append(float(np.hypot(*(first + last) / 2 - middle)))
    assert np.median(bends) > 2

    def inside(motion: scenes.Motion, s: float) -> bool:
        return all(0 <= place <= 96 for place in motion.middle(s))

    things = [layer.motion for layers in drawn for layer in layers[1:]]
    assert any(inside(thing, -1) and not inside(thing, 1) for thing in things)
    assert any(inside(thing, 1) and not inside(thing, -1) for thing in things)


@pytest.mark.parametrize(("slow", "still"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_still_scene_stands_and_a_slow_one_crawls(monkeypatch, slow, still):
    monkeypatch.setattr(scenes, "_SLOW", slow)
    monkeypatch.setattr(scenes, "_STILL", still)
    for seed in range(4):
        first, _, last = render_scene(generator(seed), (32, 32), 3, 8.0)
        if still:
            np.testing.assert_array_equal(first, last)
        for layer in scenes._layers(generator(seed), (32, 32), 8.0):
            # 3 pixels in each half of the clip, a bend of 0.8 both ways and a swing.
            assert path_length(layer.motion) <= 2 * 3 * 2.5


def test_a_thing_is_drawn_where_its_motion_says_with_smooth_edges():
    side, radius = 61, 20.0
    rows, columns = np.mgrid[:side, :side] - side // 2
    depth = np.clip(radius - np.hypot(rows, columns) + 0.5, 0, 1)
    picture = Image.new("RGB", (side, side), (255, 255, 255))
    picture.putalpha(Image.fromarray(np.rint(255 * depth).astype(np.uint8)))
    motion = scenes.Motion(
        place=(50.0, 40.0),
        travel=(12.0, -5.0),
        bend=(4.0, 6.0),
        swing=(2.0, 0.0),
        pace=3.0,
        turn=0.7,
        zoom=0.2,
    )
    for s in (-0.9, 0.0, 0.4):
        frame = Image.new("RGB", (100, 110))
        scenes.Layer(picture, motion).draw(frame, s)
        seen = np.asarray(frame, np.float64)[..., 0] / 255
        y = 50 + 12 * s + 4 * s**2 / 2 + 2 * np.sin(3 * s)
        x = 40 - 5 * s + 6 * s**2 / 2
        rows, columns = np.mgrid[:110, :100] + 0.5
        assert (seen * rows).sum() / seen.sum() == pytest.approx(y, abs=0.1)
        assert (seen * columns).sum() / seen.sum() == pytest.approx(x, abs=0.1)
        area = np.pi * (radius * np.exp(0.2 * s)) ** 2
        assert seen.sum() == pytest.approx(area, rel=0.03)
        assert ((seen > 0.1) & (seen < 0.9)).sum() > 2 * radius  # an edge is no staircase


def test_a_thing_out_of_the_picture_is_not_seen():
    picture = Image.new("RGBA", (20, 20), (255, 255, 255, 255))
    motion = scenes.Motion(
        place=(50.0, 140.0),
        travel=(0.0, 0.0),
        bend=(0.0, 0.0),
        swing=(0.0, 0.0),
        pace=2.0,
        turn=0.5,
        zoom=0.0,
    )
    frame = Image.new("RGB", (100, 100))
    scenes.Layer(picture, motion).draw(frame, 0.5)
    assert not np.asarray(frame).any()


def test_scenes_are_dark_and_bright_and_natural():
    means, slopes = [], []
    window = np.hanning(96)[:, None] * np.hanning(96)
    distance = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    bands = np.geomspace(0.03, 0.4, 6)
    for seed in range(30):
        frame = next(render_scene(generator(seed), (96, 96), 1)).mean(axis=2)
        means.append(frame.mean())
        power = np.abs(np.fft.fft2((frame - frame.mean()) * window)) ** 2
        octaves = [
            power[(distance >= low) & (distance < high)].mean()
            for low, high in itertools.pairwise(bands)
        ]
        slopes.append(np.polyfit(np.log(bands[:-1]), np.log(octaves), 1)[0])
    assert min(means) < 50 < 110 < max(means)
    # Photographs have power that falls with the frequency's square, or somewhat faster.
    assert -3 < np.median(slopes) < -1.8
