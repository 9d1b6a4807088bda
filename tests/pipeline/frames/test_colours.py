"""What frames say of their colours: read, carried, converted or refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from spikedeblur.pipeline.frames.colours import (
    Colours,
    colours_of,
    colours_of_video,
    common_colours,
    read_srgb,
)
from spikedeblur.pipeline.frames.images import ImageError, write_png, write_png16

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_chunks(path: Path, *chunks: tuple[bytes, bytes]) -> Path:
    """Put chunks into a PNG, after its header."""
    Image.fromarray(picture()).save(path)
    content = path.read_bytes()
    more = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(content[:33] + more + content[33:])
    return path


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def wide_profile() -> bytes:
    """An RGB profile whose red and green are swapped with those of sRGB, and so unlike it."""
    profile = bytearray(SRGB)
    tags = {
        bytes(profile[at : at + 4]): at
        for at in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12)
    }
    red, green = (profile[tags[name] + 4 : tags[name] + 12] for name in (b"rXYZ", b"gXYZ"))
    profile[tags[b"rXYZ"] + 4 : tags[b"rXYZ"] + 12] = green
    profile[tags[b"gXYZ"] + 4 : tags[b"gXYZ"] + 12] = red
    return bytes(profile)


def gamma(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


P3_POINTS = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize(
    ("chunks", "colours", "are_srgb"),
    [
        ([], Colours(), True),
        ([(b"sRGB", b"\0"), gamma(45455)], Colours(), True),
        ([gamma(45455)], Colours(gamma=45455), True),
        ([gamma(100_000)], Colours(gamma=100_000), False),
        (
            [gamma(45455), (b"cHRM", struct.pack(">8I", *P3_POINTS))],
            Colours(gamma=45455, points=P3_POINTS),
            False,
        ),
        ([(b"cICP", bytes([9, 16, 0, 1]))], Colours(coded=(9, 16)), False),
        ([(b"cICP", bytes([1, 13, 0, 1]))], Colours(coded=(1, 13)), True),
        ([(b"tEXt", b"a\0" + b"b" * 200), gamma(50_000)], Colours(gamma=50_000), False),
    ],
)
def test_what_a_png_says_is_read_and_written_again(tmp_path, chunks, colours, are_srgb) -> None:
    path = with_chunks(tmp_path / "a.png", *chunks)
    found = colours_of(path)
    assert (found, found.are_srgb) == (colours, are_srgb)
    assert colours_of(path, path.read_bytes()) == colours
    write_png(tmp_path / "8.png", picture(), found.chunks())
    write_png16(tmp_path / "16.png", picture().astype(np.uint16), found.chunks())
    for name in ("8.png", "16.png"):
        assert colours_of(tmp_path / name) == colours
        with Image.open(tmp_path / name) as image:  # another reader finds the same
            image.load()
            assert image.info.get("gamma") == (
                None if found.gamma is None else pytest.approx(found.gamma / 1e5)
            )
            assert ("srgb" in image.info) == (found == Colours())


@pytest.mark.parametrize(
    "chunk",
    [
        (b"cICP", bytes([1, 13, 0, 0])),
        (b"cICP", bytes([1, 13, 1, 1])),
        (b"cICP", b"\1"),
        gamma(0),
        (b"gAMA", b"\1"),
        (b"cHRM", b"\1" * 31),
    ],
)
def test_what_a_png_can_not_mean_is_refused_by_name(tmp_path, chunk) -> None:
    path = with_chunks(tmp_path / "a.png", chunk)
    with pytest.raises(ImageError, match=r"a\.png: "):
        colours_of(path)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_a_profile_is_carried_as_it_is(tmp_path, ending) -> None:
    path, profile = tmp_path / f"a{ending}", wide_profile()
    Image.fromarray(picture()).save(path, icc_profile=profile)
    found = colours_of(path)
    assert found == Colours(icc=profile)
    write_png(tmp_path / "out.png", picture(), found.chunks())
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["icc_profile"] == profile


def test_a_profile_of_other_colours_is_refused_by_name(tmp_path):
    gray = bytearray(SRGB)
    gray[16:20] = b"GRAY"
    Image.fromarray(picture()[..., 0]).save(tmp_path / "g.png", icc_profile=bytes(gray))
    with pytest.raises(ImageError, match=r"g\.png: expected a colour profile for RGB.*GRAY"):
        colours_of(tmp_path / "g.png")


def test_a_camera_s_note_of_adobe_rgb_is_carried_as_its_gamma_and_primaries(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    found = colours_of(tmp_path / "a.jpg")
    assert not found.are_srgb
    write_png(tmp_path / "a.png", picture(), found.chunks())
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["gamma"] == pytest.approx(256 / 563, abs=1e-4)  # Adobe RGB (1998), 4.3.1
        points = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
        assert image.info["chromaticity"] == pytest.approx(points, abs=1e-5)
    exif[0x8769] = {0xA001: 1, 0xA005: {1: "R98"}}
    Image.fromarray(picture()).save(tmp_path / "b.jpg", exif=exif)
    assert colours_of(tmp_path / "b.jpg") == Colours()


def test_a_tiff_s_primaries_are_carried_and_its_table_refused(tmp_path) -> None:
    points = tuple(x / 1e5 for x in P3_POINTS)
    Image.fromarray(picture()).save(tmp_path / "a.tif", tiffinfo={318: points[:2], 319: points[2:]})
    assert colours_of(tmp_path / "a.tif").points == P3_POINTS
    Image.fromarray(picture()).save(tmp_path / "b.tif", tiffinfo={301: (0, 1, 2)})
    with pytest.raises(ImageError, match=r"b\.tif: .*301"):
        colours_of(tmp_path / "b.tif")


def test_a_bmp_with_a_profile_is_refused_by_name(tmp_path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.bmp")
    assert colours_of(tmp_path / "a.bmp") == Colours()
    plain = (tmp_path / "a.bmp").read_bytes()
    header = bytearray(plain[:54]) + bytes(84)
    header[10:14] = struct.pack("<I", 138)  # where the pixels begin
    header[14:18] = struct.pack("<I", 124)  # a BITMAPV5HEADER
    header[70:74] = b"DEBM"
    (tmp_path / "b.bmp").write_bytes(header + plain[54:])
    with pytest.raises(ImageError, match=r"b\.bmp: expected a BMP without a colour profile"):
        colours_of(tmp_path / "b.bmp")


def test_frames_are_converted_to_srgb_by_their_profile(tmp_path) -> None:
    gray = np.full((6, 9, 3), 128, np.uint8)
    for profile in (SRGB, wide_profile()):
        Image.fromarray(gray).save(tmp_path / "gray.png", icc_profile=profile)
        assert np.abs(read_srgb(tmp_path / "gray.png").astype(int) - gray).max() <= 1
    write_png(tmp_path / "plain.png", picture())
    np.testing.assert_array_equal(read_srgb(tmp_path / "plain.png"), picture())
    Image.fromarray(picture()).save(tmp_path / "same.png", icc_profile=SRGB)
    np.testing.assert_array_equal(read_srgb(tmp_path / "same.png"), picture())
    red = np.zeros((6, 9, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png", icc_profile=wide_profile())
    converted = read_srgb(tmp_path / "red.png")[0, 0].astype(int)  # its red is the other's green
    assert np.abs(converted - [0, 200, 0]).max() <= 3
    with pytest.raises(ImageError, match=r"a\.png: .*a gamma of 1;"):
        read_srgb(with_chunks(tmp_path / "a.png", gamma(100_000)))


def test_colours_that_differ_are_named_and_those_that_mean_the_same_are_not() -> None:
    assert (
        common_colours({"a": Colours(), "b": Colours(icc=SRGB), "c": Colours(gamma=45455)}) is None
    )
    sentence = common_colours({"a.png": Colours(), "b.png": Colours(gamma=100_000)})
    assert sentence is not None
    assert "a.png has none" in sentence
    assert "b.png has a gamma of 1" in sentence


@pytest.mark.parametrize(
    ("primaries", "transfer", "coded"),
    [
        (1, 1, None),
        (2, 2, None),
        (6, 6, None),
        (9, 16, (9, 16)),
        (2, 18, (1, 18)),
        (12, 2, (12, 13)),
    ],
)
def test_a_video_s_numbers_become_a_png_s(primaries, transfer, coded) -> None:
    assert colours_of_video(primaries, transfer) == Colours(coded=coded)
