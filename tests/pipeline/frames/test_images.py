import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.frames.images import ImageError, image_shape, read_rgb, write_png


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_what_is_written_reads_back(tmp_path, picture):
    write_png(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), picture)
    assert image_shape(tmp_path / "a.png") == (6, 9)


def test_gray_is_repeated_and_opaque_alpha_dropped(tmp_path, picture):
    Image.fromarray(picture[..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "gray.png")[..., 2], picture[..., 0])
    Image.fromarray(picture).convert("RGBA").save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "opaque.png"), picture)


def save(path, kind, picture):
    if kind == "16 bit":
        Image.fromarray(picture[..., 0].astype(np.uint16) << 8).save(path)
    elif kind == "transparent":
        image = Image.fromarray(picture).convert("RGBA")
        image.putalpha(128)
        image.save(path)
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture).save(path, exif=exif)
    elif kind == "another size":
        Image.fromarray(picture[:5]).save(path)
    elif kind == "cut":
        Image.fromarray(picture).save(path)
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "gif":
        Image.fromarray(picture).save(path, format="GIF")


@pytest.mark.parametrize(
    "kind",
    ["16 bit", "transparent", "rotated", "another size", "cut", "text", "gif", "missing"],
)
def test_what_is_not_plain_8_bit_colour_is_refused_by_name(tmp_path, picture, kind):
    path = tmp_path / "frame.png"
    save(path, kind, picture)
    with pytest.raises(ImageError, match=r"frame\.png"):
        read_rgb(path, (6, 9))


def test_cmyk_is_refused(tmp_path, picture):
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "frame.jpg")
    with pytest.raises(ImageError, match="CMYK"):
        read_rgb(tmp_path / "frame.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=r"bomb\.png"):
        read_rgb(tmp_path / "bomb.png")


def test_a_size_is_read_from_any_format_and_from_no_cut_header(tmp_path):
    for suffix in ("png", "bmp", "jpg"):
        Image.new("RGB", (9, 6)).save(tmp_path / f"a.{suffix}")
        assert image_shape(tmp_path / f"a.{suffix}") == (6, 9)
    content = (tmp_path / "a.png").read_bytes()
    for length in (0, 7, 17, 23):
        (tmp_path / "cut.png").write_bytes(content[:length])
        with pytest.raises(ImageError, match=r"cut\.png"):
            image_shape(tmp_path / "cut.png")
