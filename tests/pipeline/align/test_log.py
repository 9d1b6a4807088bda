from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikedeblur.pipeline.align import (
    AlignmentLogError,
    AlignmentRow,
    read_alignment_log,
    write_alignment_log,
)

ROW = AlignmentRow(31, 0.015, 0.047, 123456, "val/Type1/TEST01_003_f0433")


def test_log_is_written_as_the_field_writes_it(tmp_path):
    write_alignment_log(tmp_path / "log.txt", [ROW])
    assert (tmp_path / "log.txt").read_bytes() == (
        b"frame_idx,t0,t1,event_count,seq\n31,0.015000,0.047000,123456,val/Type1/TEST01_003_f0433\n"
    )


def test_row_order_changes_no_byte(tmp_path):
    rows = [AlignmentRow(i, i / 10, i / 10 + 0.1, i, seq) for i in (2, 10, 1) for seq in ("b", "a")]
    write_alignment_log(tmp_path / "a.txt", rows)
    write_alignment_log(tmp_path / "b.txt", reversed(rows))
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    frames = [line.split(",")[0] for line in (tmp_path / "a.txt").read_text().splitlines()[1:]]
    assert frames == ["1", "2", "10", "1", "2", "10"]


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=60, deadline=None)
@given(
    seq=st.lists(names, min_size=1, max_size=4).map("/".join),
    frame=st.integers(0, 10**9),
    micros=st.integers(-(10**9), 10**9),
    length=st.integers(0, 10**9),
    count=st.integers(0, 10**15),
)
def test_any_row_comes_back(tmp_path_factory, seq, frame, micros, length, count):
    path = tmp_path_factory.mktemp("log") / "log.txt"
    row = AlignmentRow(frame, micros / 1e6, (micros + length) / 1e6, count, seq)
    write_alignment_log(path, [row])
    assert read_alignment_log(path) == {(seq, frame): row}


def test_seq_may_hold_commas_and_lines_may_end_with_crlf(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"\xef\xbb\xbfframe_idx,t0,t1,event_count,seq\r\n1,0,0.5,7,val/a,b/c\r\n")
    assert read_alignment_log(path) == {("val/a,b/c", 1): AlignmentRow(1, 0, 0.5, 7, "val/a,b/c")}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1,0,1,2", "line 2"),
        ("x,0,1,2,a", "line 2"),
        ("-1,0,1,2,a", "line 2"),
        ("1,nan,1,2,a", "finite"),
        ("1,2,1,2,a", "t0 <= t1"),
        ("1,zero,1,2,a", "seconds"),
        ("1,0,1,-2,a", "line 2"),
        ("1,0,1,2,../a", "sequence name"),
        ("1,0,1,2,a\n1,0,1,2,a", "line 3: frame 1 of a is there twice"),
    ],
)
def test_damaged_row_is_named_by_line(tmp_path, body, expected):
    path = tmp_path / "log.txt"
    path.write_text(f"frame_idx,t0,t1,event_count,seq\n{body}\n")
    with pytest.raises(AlignmentLogError, match=expected) as error:
        read_alignment_log(path)
    assert str(path) in str(error.value)


def test_another_file_is_no_log(tmp_path):
    (tmp_path / "other.txt").write_text("index,time\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("other.txt", "binary", "missing"):
        with pytest.raises(AlignmentLogError, match=name):
            read_alignment_log(tmp_path / name)


def test_same_frame_twice_is_not_written(tmp_path):
    with pytest.raises(AlignmentLogError, match="twice"):
        write_alignment_log(tmp_path / "log.txt", [ROW, ROW])
    assert not list(tmp_path.iterdir())
