"""Tables of exposures and logs of trigger edges."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikedeblur.pipeline.clocks.durations import TimelineError
from spikedeblur.pipeline.clocks.exposures import Exposures
from spikedeblur.pipeline.clocks.table import read_times

NAMES = ["IMG_8.png", "IMG_9.png", "IMG_10.png"]
STARTS = (0.1, 0.14, 0.2)
ENDS = (0.108, 0.16, 0.233)


def read(folder: Path, text: str, names: list[str] = NAMES, **options) -> Exposures:
    path = folder / "times.csv"
    path.write_text(text, encoding="utf-8")
    return read_times(path, names, **options)


@pytest.mark.parametrize(
    "text",
    [
        "start_ms,end_ms\n100,108\n140,160\n200,233\n",
        "Start [s];End [s]\n0,1;0,108\n0,14;0,16\n0,2;0,233\n",
        "\ufeffstart_us, exposure_ms\r\n100000, 8\r\n140000, 20\r\n200000, 33\r\n\r\n",
        "middle (ms)\texposure (us)\n104\t8000\n150\t20000\n216.5\t33000\n",
        "gain,start_ns,stop_s\n1,1e8,0.108\n1,1.4e8,0.16\n1,2e8,0.233\n",
        "file,start_ms,end_ms\nIMG_10.png,200,233\nIMG_8.png,100,108\nIMG_9.png,140,160\n",
        "frame;end_ms;duration_ms\nrgb/IMG_9;160;20\nIMG_8;108;8\nIMG_10;233;33\nIMG_11;9;9\n",
        "time_ms,edge\n90,0\n100,1\n108,0\n140,1\n160,0\n200,1\n233,0\n300,1\n",
        "time_us,edge\n100000,rising\n108000,falling\n140000,rising\n160000,falling\n"
        "200000,Rising\n233000,Falling\n",
        "rising_ms,falling_ms\n100,108\n140,160\n200,233\n",
    ],
)
def test_all_forms_of_a_table_say_the_same(text, tmp_path):
    exposures = read(tmp_path, text)
    assert exposures.starts == STARTS
    assert exposures.ends == ENDS


@pytest.mark.parametrize(
    "text",
    [
        "rising_us\n100000\n140000\n200000\n",
        "start_ms\n100\n140\n200\n",
        "middle_ms\n105\n145\n205",
    ],
)
def test_a_shutter_ends_what_a_table_begins(text, tmp_path):
    exposures = read(tmp_path, text, shutter=0.01)
    assert exposures.starts == STARTS
    assert exposures.ends == pytest.approx([0.11, 0.15, 0.21], abs=1e-12)


def test_a_start_moves_a_cameras_clock_to_that_of_the_spikes(tmp_path):
    text = "start_ns,exposure_ms\n" + "".join(
        f"{1_700_000_000_123_456_789 + ms * 1_000_000},8\n" for ms in (0, 40, 100)
    )
    exposures = read(tmp_path, text, start=0.25)
    # A float of seconds since 1970 would be wrong by 0.1 microseconds.
    assert exposures.starts == (0.25, 0.29, 0.35)


def test_spreadsheets_that_lose_zeros_are_understood(tmp_path):
    names = ["0031.png", "0046.png"]
    exposures = read(tmp_path, "frame,start_ms,end_ms\n31,1,2\n46,3,4\n", names)
    assert exposures.starts == (0.001, 0.003)


THREE = "\n1,2\n3,4\n5,6\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found no rows"),
        ("start_ms,end_ms\n", "found no rows"),
        ("a,b" + THREE, "expected columns start_ms and end_ms.*found 'a, b'"),
        ("start,end" + THREE, "unit in the name of the column 'start'.*start_s, start_ms"),
        ("start_ms,exposure" + THREE, "unit in the name of the column 'exposure'"),
        ("start_ms,start_us" + THREE, "one column of start, found two"),
        ("time_ms,x" + THREE, "name the column start_ms or middle_ms"),
        ("start_ms,x" + THREE, "length of the exposures.*--shutter 16ms"),
        ("start_ms,end_ms\n1,2\n3,4\n", "expected 3 rows.*IMG_8.png to IMG_10.png, found 2"),
        ("start_ms,end_ms\n1,2\n3\n5,6\n", "line 3: expected 2 cells.*found 1"),
        ("start_ms,end_ms\n1,2\n3,x\n5,6\n", "line 3: end_ms: expected a number.*found 'x'"),
        ("start_ms,end_ms\n1,2\n3,3\n5,6\n", "line 3.*ends after it starts, found 0.003 to 0.003"),
        ("start_ms,end_ms\n1,2\n4,3\n5,6\n", "line 3.*ends after it starts"),
        ("start_ms,end_ms\n1,2\n5,6\n3,4\n", "line 4.*a time after that of .*line 3"),
        ("start_ms,end_ms\n1,2\n3,5\n4,6\n", "line 4.*is over, at 0.005 s, found 0.004"),
        ("file,start_ms,end_ms\nIMG_8,1,2\nIMG_9,3,4\n", "found none for IMG_10.png"),
        ("file,start_ms,end_ms\nIMG_8,1,2\nIMG_8.png,3,4\n", "line 3: expected each frame once"),
        ("frame_idx,t0,t1,event_count,seq\n1,0,1,1,a\n", "give it as --log"),
        ("rising_us\n1\n2\n3\n", "rising edges only; add --shutter"),
        ("time_us,edge\n1,up\n2,up\n3,down\n", "line 3: expected a falling edge.*line 2"),
        ("time_us,edge\n1,up\n2,sideways\n", "line 3: expected rising or falling, 1 or 0"),
        ("time_us,edge\n1,0\n2,0\n", "expected rising edges, found none"),
        ("edge\n1\n0\n", "expected a column time_us beside edge"),
    ],
)
def test_a_table_that_can_not_be_is_refused_by_name(text, expected, tmp_path):
    with pytest.raises(TimelineError, match=expected) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "times.csv"))


def test_a_missing_table_is_named():
    with pytest.raises(TimelineError, match=r"no\.csv: can't read the table.*--times"):
        read_times("no.csv", NAMES)


def test_two_lengths_of_an_exposure_are_refused(tmp_path):
    with pytest.raises(TimelineError, match="found end and --shutter; leave one"):
        read(tmp_path, "start_ms,end_ms" + THREE, shutter=0.016)


def test_a_shutter_longer_than_the_gap_of_two_edges_is_refused(tmp_path):
    with pytest.raises(TimelineError, match=r"line 3 \(IMG_9\.png\).*--shutter"):
        read(tmp_path, "rising_ms\n1\n3\n5\n", shutter=0.016)


def rising(*times: float) -> str:
    return "rising_ms\n" + "".join(f"{time}\n" for time in times)


REGULAR = [10 + 33.3 * i for i in range(12)]


def named(*numbers: int) -> list[str]:
    return [f"IMG_{number}.png" for number in numbers]


def starts(folder: Path, edges: list[float], names: list[str], stamps=None) -> list[float]:
    exposures = read(folder, rising(*edges), names, shutter=0.01, stamps=stamps)
    return [1000 * start for start in exposures.starts]


def test_frames_that_the_host_dropped_are_found_by_their_numbers(tmp_path):
    kept = (0, 1, 2, 5, 6, 7, 8, 9, 11)
    found = starts(tmp_path, REGULAR, named(*kept))
    assert found == pytest.approx([REGULAR[i] for i in kept])


def test_edges_that_the_log_lost_are_found_between_their_neighbours(tmp_path):
    edges = REGULAR[:4] + REGULAR[5:]
    assert starts(tmp_path, edges, named(*range(12))) == pytest.approx(REGULAR)
    # Edges and frames are equally many, but not the same ones: edge 4 is lost, and frame 7.
    kept = [i for i in range(12) if i != 7]
    assert starts(tmp_path, edges, named(*kept)) == pytest.approx([REGULAR[i] for i in kept])


def test_a_pause_of_the_trigger_is_no_lost_edge(tmp_path):
    edges = REGULAR[:4] + REGULAR[7:]
    assert starts(tmp_path, edges, named(*range(9))) == pytest.approx(edges)


def test_jitter_does_not_matter(tmp_path):
    edges = [at + (-1) ** i * 2.0 for i, at in enumerate(REGULAR)]
    kept = (0, 1, 3, 4, 5, 8, 11)
    assert starts(tmp_path, edges, named(*kept)) == pytest.approx([edges[i] for i in kept])


def test_irregular_edges_are_matched_by_stamps_on_another_clock(tmp_path):
    edges = [0.0, 40, 53, 100, 131, 190, 201]
    stamps = [(edges[i] - edges[1]) / 1000 * 1.0001 for i in (1, 2, 3, 5)]
    assert starts(tmp_path, edges, list("abcd"), stamps) == pytest.approx([40, 53, 100, 190])
    nanoseconds = [f"{10**15 + round(edges[i] * 1e6)}.png" for i in (1, 2, 3, 5)]
    assert starts(tmp_path, edges, nanoseconds) == pytest.approx([40, 53, 100, 190])


@pytest.mark.parametrize(
    ("edges", "names", "expected"),
    [
        (REGULAR, named(*range(10)), r"12 rising edges, and IMG_0\.png fits 3 .*lines 2, 3, 4"),
        (REGULAR, named(0, 1, 2, 4, 5), "fits 7 of them .*lines 2, 3, 4, 5, ...*equally well"),
        (REGULAR, ["a.png", "b.png"], "nothing in the frames' names counts them"),
        (REGULAR[:9], named(*range(12)), r"there is none for IMG_9\.png and what follows"),
        (REGULAR[:4] + REGULAR[6:], named(*range(8)), "equally well|there is none"),
        ([0, 40, 53, 100], named(0, 1, 2), r"IMG_0\.png fits 2 of them"),
    ],
)
def test_an_uncertain_match_is_refused_with_the_places(edges, names, expected, tmp_path):
    with pytest.raises(TimelineError, match=expected) as error:
        starts(tmp_path, edges, names)
    assert f"expected an edge for each of {len(names)} frames" in str(error.value)


def test_a_lost_edge_between_pulses_of_other_lengths_is_refused(tmp_path):
    rows = [(at, at + 5 + i) for i, at in enumerate(REGULAR) if i != 4]
    text = "rising_ms,falling_ms\n" + "".join(f"{a},{b}\n" for a, b in rows)
    with pytest.raises(TimelineError, match=r"edge for IMG_4\.png.*differ in length"):
        read(tmp_path, text, named(*range(12)))
