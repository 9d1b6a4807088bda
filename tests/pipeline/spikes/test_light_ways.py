"""Light of spikes, made by NumPy and by numba: both as defined, and with the same bits."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikedeblur.pipeline.spikes import (
    SpikeGeometry,
    SpikeGeometryError,
    SpikeWindowError,
    intervals,
)
from spikedeblur.pipeline.spikes.counts import bin_edges
from spikedeblur.pipeline.spikes.dat import pack_spikes
from spikedeblur.pipeline.spikes.half import write_rounded
from spikedeblur.pipeline.spikes.intervals import light_of_packed, light_of_spikes

WAYS = ("numpy", "numba")
same_way = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make light in one of the ways."""
    if request.param == "numpy":
        monkeypatch.setattr(intervals, "compiled", lambda: None)
    else:
        pytest.importorskip("numba")
        assert intervals.compiled() is not None
    return request.param


def light_until(fired: list[int], edges: list[int]) -> list[Fraction]:
    """Return a pixel's light until each edge, exactly, from the definition."""
    times = [at + Fraction(1, 2) for at in fired]

    def beside(edge: int) -> tuple[Fraction | None, Fraction | None]:
        before = [t for t in times if t < edge]
        after = [t for t in times if t > edge]
        return max(before, default=None), min(after, default=None)

    inside = sum(edges[0] < t < edges[-1] for t in times)
    closed = [b - a for a, b in map(beside, edges) if a is not None and b is not None]
    if not closed and not inside:
        return [Fraction(0)] * len(edges)  # one spike at most on one side: nothing is known
    mean = [Fraction(edges[-1] - edges[0], inside)] if inside else []
    light = []
    for edge in edges:
        last, following = beside(edge)
        if last is None:
            assert following is not None
            last = following - (closed or mean)[0]
        elif following is None:
            following = last + (closed or mean)[-1]
        share = min(max((edge - last) / (following - last), Fraction(0)), Fraction(1))
        light.append(sum(t < edge for t in times) + share)
    return light


def defined(spikes: np.ndarray, bins: int, before: int, samples: int) -> np.ndarray:
    """Return the light (K, h, w) of spikes, from the definition."""
    edges = (before + bin_edges(samples, bins)).tolist()
    out = np.empty((bins, *spikes.shape[1:]))
    for y, x in np.ndindex(*spikes.shape[1:]):
        until = light_until(np.flatnonzero(spikes[:, y, x]).tolist(), edges)
        out[:, y, x] = [float(b - a) for a, b in itertools.pairwise(until)]
    return out


def assert_as_defined(spikes: np.ndarray, bins: int, before: int, samples: int) -> None:
    light = light_of_spikes(spikes, bins, before, samples)
    # What is subtracted are float32 up to the number of spikes, each rounded twice.
    tolerance = (spikes.sum(axis=0).max() + 1) * 2.0**-22
    np.testing.assert_allclose(
        light, defined(spikes, bins, before, samples), rtol=0, atol=tolerance
    )


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int]:
    """Draw spikes (n, 1, w), bins, and the samples before and in the exposure."""
    bins = draw(st.integers(1, 6))
    samples = draw(st.integers(bins, 60))
    before, after = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    n = before + samples + after
    pixels = draw(st.lists(st.sets(st.integers(0, n - 1), max_size=12), min_size=1, max_size=9))
    spikes = np.zeros((n, 1, len(pixels)), np.uint8)
    for x, fired in enumerate(pixels):
        spikes[list(fired), 0, x] = 1
    return spikes, bins, before, samples


@same_way
@given(streams())
def test_light_is_as_defined(way: str, stream: tuple[np.ndarray, int, int, int]) -> None:
    assert_as_defined(*stream)


def random_spikes(rate: float, n: int, shape: tuple[int, int] = (24, 43)) -> np.ndarray:
    rng = np.random.default_rng([n, round(1000 * rate)])
    return (rng.random((n, *shape)) < rate).astype(np.uint8)


@pytest.mark.parametrize(
    ("n", "bins", "before", "samples"),
    [(60, 7, 0, 60), (97, 32, 10, 80), (385, 32, 64, 257), (900, 3, 20, 800)],
    ids=str,
)
@pytest.mark.parametrize("rate", [0.35, 0.1, 0.02, 0.003, 0.0])
def test_light_is_as_defined_whatever_the_rate(
    way: str, rate: float, n: int, bins: int, before: int, samples: int
) -> None:
    assert_as_defined(random_spikes(rate, n, (3, 11)), bins, before, samples)


def test_spikes_at_the_samples_beside_edges_are_on_their_side(way: str) -> None:
    edges = (10 + bin_edges(33, 4)).tolist()
    at = [sample for edge in edges for sample in (edge - 1, edge)]
    spikes = np.zeros((60, 1, len(at) ** 2), np.uint8)
    for x, (a, b) in enumerate(np.ndindex(len(at), len(at))):
        spikes[[at[a], at[b]], 0, x] = 1
    assert_as_defined(spikes, 4, 10, 33)


def test_dead_pixels_do_not_change_others(way: str) -> None:
    spikes = random_spikes(0.1, 200)
    alone = light_of_spikes(spikes, 8, 20, 150)
    dead, hot = np.s_[:, 3], np.s_[:, 5:7, 2:30]
    spikes[dead], spikes[hot] = 0, 1
    light = light_of_spikes(spikes, 8, 20, 150)
    assert not light[dead].any()
    np.testing.assert_allclose(light[hot].sum(axis=0), 150, rtol=1e-5)
    alone[dead], alone[hot] = light[dead], light[hot]
    np.testing.assert_array_equal(light, alone)


@pytest.mark.parametrize("n", [2**15 - 1, 2**15, 40_000])
def test_streams_of_any_length_are_as_defined(way: str, n: int) -> None:
    spikes = np.zeros((n, 1, 4), np.uint8)
    spikes[[0, n - 1], 0, 0] = 1
    spikes[::9, 0, 1] = 1
    spikes[n // 2 :: 11, 0, 2] = 1
    spikes[-1, 0, 3] = 1
    for before in (0, n // 2):
        assert_as_defined(spikes, 5, before, n - before)


def both(spikes: np.ndarray, *exposure: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield light in float32 and float16, by NumPy and by numba."""
    for way in (lambda: None, intervals.compiled):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(intervals, "compiled", way)
            whole = light_of_spikes(spikes, *exposure)
            half = np.empty(whole.shape, np.float16)
            light_of_spikes(spikes, *exposure, out=half)
            yield whole, half


@pytest.mark.parametrize("rate", [0.9, 0.35, 0.1, 0.02, 0.003, 0.0])
@pytest.mark.parametrize(
    ("n", "bins", "before", "samples"),
    [(60, 7, 0, 60), (97, 32, 10, 80), (385, 32, 64, 257), (1100, 3, 300, 799), (5, 1, 2, 1)],
    ids=str,
)
def test_both_ways_give_the_same_bits(
    rate: float, n: int, bins: int, before: int, samples: int
) -> None:
    pytest.importorskip("numba")
    for shape in ((24, 43), (2, 1100), (1, 1)):
        spikes = random_spikes(rate, n, shape)
        (numpy, halved), (numba, rounded) = both(spikes, bins, before, samples)
        np.testing.assert_array_equal(numpy.view(np.uint32), numba.view(np.uint32))
        np.testing.assert_array_equal(halved.view(np.uint16), rounded.view(np.uint16))
        np.testing.assert_array_equal(halved.view(np.uint16), numpy.astype(np.float16).view("u2"))


@given(streams())
@settings(deadline=None)
def test_both_ways_give_the_same_bits_of_any_stream(
    stream: tuple[np.ndarray, int, int, int],
) -> None:
    pytest.importorskip("numba")
    (numpy, halved), (numba, rounded) = both(*stream)
    np.testing.assert_array_equal(numpy.view(np.uint32), numba.view(np.uint32))
    np.testing.assert_array_equal(halved.view(np.uint16), rounded.view(np.uint16))


@st.composite
def crops(draw: st.DrawFn) -> tuple[SpikeGeometry, tuple[int, int], tuple[int, int]]:
    """Draw a geometry with rows and columns of it, of which each may be all."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(8, 50))
    if draw(st.booleans()):
        width = width // 8 * 8
    drop = sorted(draw(st.sets(st.integers(1, width - 1), max_size=2)))
    geometry = SpikeGeometry(
        height=height,
        width=width,
        flip_rows=draw(st.booleans()),
        pad_frames=draw(st.booleans()),
        msb_first=draw(st.booleans()),
        drop_columns=((drop[0], drop[1]),) if len(drop) == 2 else (),
    )

    def span(side: int) -> tuple[int, int]:
        first = draw(st.integers(0, side - 1))
        part = first, draw(st.integers(first + 1, side))
        return draw(st.sampled_from([(0, side), part]))

    return geometry, span(geometry.shape[0]), span(geometry.shape[1])


@same_way
@given(crops(), st.integers(0, 2**32 - 1))
def test_light_of_bits_is_that_of_the_pixels_that_they_are(
    way: str, crop: tuple[SpikeGeometry, tuple[int, int], tuple[int, int]], seed: int
) -> None:
    geometry, rows, columns = crop
    rng = np.random.default_rng(seed)
    spikes = (rng.random((50, *geometry.shape)) < 0.1).astype(np.uint8)
    part = spikes[5:45, slice(*rows), slice(*columns)]
    packed = pack_spikes(spikes, geometry)
    packed.flags.writeable = False  # such as a file's
    light = light_of_packed(packed, geometry, 6, (12, 40), (5, 45), rows, columns)
    np.testing.assert_array_equal(light, light_of_spikes(part, 6, 7, 28))
    assert_as_defined(part[:, :1, :3], 6, 7, 28)


@pytest.mark.parametrize("flip", [False, True])
def test_rows_wider_than_a_block_are_whole(way: str, flip: bool) -> None:
    geometry = SpikeGeometry(height=3, width=2600, flip_rows=flip)
    spikes = random_spikes(0.1, 40, (3, 2600))
    packed = pack_spikes(spikes, geometry)
    whole = light_of_packed(packed, geometry, 4, (8, 32), (0, 40))
    np.testing.assert_array_equal(whole, light_of_spikes(spikes, 4, 8, 24))
    for columns in ((3, 2590), (1024, 1025), (1025, 2048), (2047, 2050)):
        crop = light_of_packed(packed, geometry, 4, (8, 32), (0, 40), columns=columns)
        np.testing.assert_array_equal(crop, whole[:, :, slice(*columns)])


def test_light_goes_into_part_of_an_array(way: str) -> None:
    spikes = random_spikes(0.1, 60)
    room = np.full((7, 30, 50), 9, np.float16)
    light = light_of_spikes(spikes, 7, out=room[:, 2:26, 3:46])
    np.testing.assert_array_equal(light, light_of_spikes(spikes, 7).astype(np.float16))
    assert (room[:, :2] == 9).all()
    assert (room[:, 26:] == 9).all()
    assert (room[:, :, :3] == 9).all()
    assert (room[:, :, 46:] == 9).all()


@pytest.mark.parametrize(
    ("exposure", "known"),
    [((5, 9), (6, 10)), ((5, 9), (0, 8)), ((5, 9), (0, 41)), ((9, 9), (0, 9))],
)
def test_samples_that_are_not_there_are_refused(
    way: str, exposure: tuple[int, int], known: tuple[int, int]
) -> None:
    geometry = SpikeGeometry(height=4, width=8, flip_rows=False)
    packed = pack_spikes(np.zeros((40, 4, 8), np.uint8), geometry)
    with pytest.raises(SpikeWindowError, match="inside of known samples inside 0:40"):
        light_of_packed(packed, geometry, 1, exposure, known)
    with pytest.raises(SpikeWindowError, match="4 samples for 5 bins"):
        light_of_packed(packed, geometry, 5, (5, 9), (0, 40))
    with pytest.raises(SpikeGeometryError, match="rows inside 0:4"):
        light_of_packed(packed, geometry, 1, (5, 9), (0, 40), rows=(2, 5))


def floats_to_round() -> np.ndarray:
    """Return float32 about all float16 and half-way between them."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[1:] + halves[:-1]) / 2
    near = [np.nextafter(middles, np.float32(way)) for way in (0, np.inf)]
    sizes = np.concatenate([halves, middles, *near, np.float32([65519, 1e-9, 1e-41])])
    return np.concatenate([sizes, -sizes])


def test_float16_are_the_nearest_ones(way: str) -> None:
    values = floats_to_round()
    expected = values.astype(np.float16).view(np.uint16)
    if way == "numba":
        fused = intervals.compiled()
        assert fused is not None
        out = np.empty(len(values), np.uint16)
        sized = np.abs(values) + np.float32(0.5)
        fused._halve(values.view(np.uint32), sized.view(np.uint32), len(values), out)
        np.testing.assert_array_equal(out, expected)
        return
    for part in (slice(None), slice(5000, 20000), slice(100)):  # few and many that NumPy rounds
        out = np.empty(len(values[part]), np.float16)
        write_rounded(values[part], out)
        np.testing.assert_array_equal(out.view(np.uint16), expected[part])


@pytest.mark.parametrize("error", [ImportError("Numba needs NumPy 2.0 or less"), OSError("no so")])
def test_where_numba_does_not_load_numpy_does_the_same(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    spikes = random_spikes(0.1, 60)
    expected = light_of_spikes(spikes, 7)

    def refuse(*_: object) -> None:
        raise error

    intervals.compiled.cache_clear()
    monkeypatch.setattr(intervals.importlib, "import_module", refuse)
    try:
        assert intervals.compiled() is None
        np.testing.assert_array_equal(light_of_spikes(spikes, 7), expected)
    finally:
        intervals.compiled.cache_clear()


def test_numba_is_loaded_once_numpy_took_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    spikes = random_spikes(0.1, 60)
    asked: list[int] = []
    monkeypatch.delitem(sys.modules, "spikedeblur.pipeline.spikes.fused", raising=False)
    monkeypatch.setattr(intervals, "compiled", lambda: asked.append(1))
    monkeypatch.setattr(intervals, "_by_numpy", 0)
    monkeypatch.setattr(intervals, "MOST_BY_NUMPY", 2 * spikes[0].size)
    light = [light_of_spikes(spikes, 7) for _ in range(4)]
    assert len(asked) == 2
    np.testing.assert_array_equal(light[0], light[3])


_MAKE_LIGHT = """
import numpy as np
from spikedeblur.pipeline.spikes.intervals import compiled, light_of_spikes
print(light_of_spikes(np.tile(np.eye(12, dtype=np.uint8)[:, None], (1, 3, 1)), 3).sum().round(3))
print(sum(compiled().kernel().stats.cache_hits.values()))
"""


def started(cache: Path | str, **more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)} | more
    return subprocess.Popen(
        [sys.executable, "-c", _MAKE_LIGHT],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def answered(process: subprocess.Popen[str]) -> tuple[float, int]:
    """Return the light, and how often compiled code was loaded."""
    out, error = process.communicate(timeout=250)
    assert process.returncode == 0, error
    light, loaded = out.split()
    return float(light), int(loaded)


@pytest.mark.slow
def test_compiled_code_is_kept_once_for_processes_that_start_together(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    first, second = started(tmp_path), started(tmp_path)
    light = answered(first)[0]
    assert answered(second)[0] == light
    assert answered(started(tmp_path)) == (light, 1)
    for file in tmp_path.rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[:40])
    assert answered(started(tmp_path)) == (light, 0)  # damaged
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    assert answered(started("/dev/null/cache", **nowhere)) == (light, 0)
