import numpy as np
import pytest
from PIL import Image

from spikedeblur.pipeline.frames.images import (
    ImageError,
    frame_type,
    image_shape,
    read_frame,
    read_rgb,
    to_8_bits,
    to_16_bits,
    to_unit,
    write_png,
)


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


@pytest.fixture
def deep() -> np.ndarray:
    """(6, 9, 3) uint16; nearly all values lie between two levels of 8 bits."""
    return np.random.default_rng(1).integers(0, 65536, (6, 9, 3), dtype=np.uint16)


def save_deep(path, image):
    import cv2

    order = image[..., ::-1] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), order)


@pytest.mark.parametrize("ending", [".png", ".tif", ".TIFF"])
def test_16_bits_are_read_as_they_are(tmp_path, deep, ending):
    path = tmp_path / f"a{ending}"
    save_deep(path, deep)
    np.testing.assert_array_equal(read_frame(path), deep)
    assert frame_type(path) == "uint16"
    assert image_shape(path) == (6, 9)
    with pytest.raises(ImageError, match="expected 8 bits a channel, found 16"):
        read_rgb(path)


def test_16_bits_of_gray_are_repeated(tmp_path, deep):
    for ending in (".png", ".tif"):
        save_deep(tmp_path / f"g{ending}", deep[..., 0])
        read = read_frame(tmp_path / f"g{ending}")
        np.testing.assert_array_equal(read, np.stack([deep[..., 0]] * 3, axis=-1))


def test_tiff_of_8_bits_is_read(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), picture)
    assert frame_type(tmp_path / "a.tif") == "uint8"


@pytest.mark.parametrize("kind", ["float", "cut", "damaged", "pages", "transparent"])
def test_what_16_bits_can_not_be_is_refused_by_name(tmp_path, deep, kind):
    path = tmp_path / ("a.tif" if kind in ("float", "pages") else "a.png")
    if kind == "float":
        Image.fromarray(deep[..., 0].astype(np.float32)).save(path)
    elif kind == "pages":
        page = Image.fromarray(np.zeros((6, 9), np.uint8))
        page.save(path, save_all=True, append_images=[page])
    elif kind == "transparent":
        save_deep(path, np.concatenate([deep, deep[..., :1]], axis=-1)[..., [3, 0, 1, 2]])
    else:
        save_deep(path, deep)
        content = bytearray(path.read_bytes())
        content[-30] ^= 1
        path.write_bytes(content[:-20] if kind == "cut" else content)
    with pytest.raises(ImageError, match=rf"a\.{path.suffix[1:]}: "):
        read_frame(path)


def test_8_bits_fit_into_16_and_back(picture):
    np.testing.assert_array_equal(to_8_bits(to_16_bits(picture)), picture)
    np.testing.assert_allclose(to_unit(to_16_bits(picture)), to_unit(picture), atol=1e-7)
