"""Image files of every kind, built with Pillow, and the pixels of masks as Label Studio stores them."""

from __future__ import annotations

import base64
import struct
import warnings
import zlib
from contextlib import suppress
from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, features

from a2lc_backend.images import (
    ImageError,
    decode_image,
    decode_mask_png,
    decode_mask_rle,
    encode_mask_png,
    encode_mask_rle,
)

RGB = np.zeros((20, 40, 3), np.uint8)
RGB[:, :20] = (200, 30, 60)
RGB[:10, 20:] = (20, 120, 220)
LOSSLESS = ["PNG", "TIFF", "BMP", "WEBP"]


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    if kind == "WEBP":
        options = {"lossless": True} | options
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 1000) + b"IDAT" + b"\x78\x9c"


@pytest.mark.parametrize("kind", LOSSLESS)
def test_colour(kind: str) -> None:
    decoded = decode_image(file_of(Image.fromarray(RGB), kind))
    assert (decoded.dtype, decoded.flags.writeable) == (np.uint8, True)
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "MPO"])
def test_lossy_colour(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    decoded = decode_image(file_of(Image.fromarray(RGB), kind, quality=95))
    assert np.abs(decoded.astype(int) - RGB)[2:8, 2:16].max() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG"])
def test_grey_and_black_and_white(kind: str) -> None:
    grey = np.full((5, 7), 90, np.uint8)
    np.testing.assert_array_equal(decode_image(file_of(Image.fromarray(grey), kind)), np.full((5, 7, 3), 90))
    if kind != "JPEG":
        bits = np.eye(5, 7) > 0
        np.testing.assert_array_equal(
            decode_image(file_of(Image.fromarray(bits), kind)), np.repeat(bits[..., None] * 255, 3, axis=2)
        )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_their_full_range(kind: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65278, 65407, 65535]], np.uint16)
    decoded = decode_image(file_of(Image.fromarray(values), kind))
    np.testing.assert_array_equal(decoded[..., 0], [[0, 0, 1, 1], [128, 254, 255, 255]])
    assert (decoded == decoded[..., :1]).all()


def test_big_endian_sixteen_bit_tiff() -> None:
    values = np.array([[0, 32768, 65535]], np.uint16)
    big_endian = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(decode_image(file_of(big_endian, "TIFF"))[0, :, 0], [0, 128, 255])


def test_sixteen_bit_grey_is_turned_too() -> None:
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 5000
    decoded = decode_image(file_of(Image.fromarray(values), "PNG", exif=turned(6)))
    np.testing.assert_array_equal(decoded[..., 0], (np.rot90(values, -1).astype(int) + 128) // 257)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_lie_on_white(kind: str) -> None:
    rgba = np.dstack([RGB, np.full((20, 40), 255, np.uint8)])
    rgba[:5, :, 3] = 0
    decoded = decode_image(file_of(Image.fromarray(rgba), kind))
    assert (decoded[:5] == 255).all()
    np.testing.assert_array_equal(decoded[5:], RGB[5:])


def test_half_transparent_grey() -> None:
    image = Image.merge("LA", [Image.new("L", (4, 3), 0), Image.new("L", (4, 3), 128)])
    assert np.unique(decode_image(file_of(image, "PNG"))).tolist() == [127]


def test_palettes_with_and_without_transparency() -> None:
    image = Image.fromarray((RGB[..., 0] > 100).astype(np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert decode_image(file_of(image, "PNG"))[0, [0, 39]].tolist() == [[40, 50, 60], [10, 20, 30]]
    for kind in ("PNG", "GIF"):
        see_through = decode_image(file_of(image, kind, transparency=1))
        assert see_through[0, [0, 39]].tolist() == [[255, 255, 255], [10, 20, 30]]
    half = decode_image(file_of(image, "PNG", transparency=b"\xff\x00"))
    assert half[0, [0, 39]].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_one_colour_of_an_rgb_png_is_transparent() -> None:
    decoded = decode_image(file_of(Image.fromarray(RGB), "PNG", transparency=(0, 0, 0)))
    assert decoded[-1, -1].tolist() == [255, 255, 255]
    assert decoded[0, 0].tolist() == [200, 30, 60]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    decoded = decode_image(file_of(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind))
    assert np.abs(decoded.astype(int) - (255, 0, 0)).max() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_browsers(kind: str, orientation: int) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    # What a viewer has to undo, by orientation.
    undo = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB),
    }
    decoded = decode_image(file_of(Image.fromarray(RGB), kind, quality=95, exif=turned(orientation)))
    assert decoded.shape == undo[orientation].shape
    assert np.abs(decoded.astype(int) - undo[orientation]).mean() < 6


def test_webp_lies_as_chromium_shows_it() -> None:
    np.testing.assert_array_equal(decode_image(file_of(Image.fromarray(RGB), "WEBP", exif=turned(6))), RGB)


def test_broken_exif_turns_nothing() -> None:
    assert decode_image(file_of(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0MM\0*rubbish")).shape == (20, 40, 3)
    assert decode_image(file_of(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0rubbish")).shape == (20, 40, 3)


def test_first_of_several_frames() -> None:
    second = Image.fromarray(255 - RGB)
    for kind in ("GIF", "TIFF", "PNG"):
        data = file_of(Image.fromarray(RGB), kind, save_all=True, append_images=[second])
        np.testing.assert_array_equal(decode_image(data), RGB)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["empty", "upload"]),
        (b"<html>404</html>", ["not an image", "<html>", "address"]),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", ["not an image"]),
        (png_header(40, 20), ["cut short", "again"]),
        (png_header(0, 20), ["zero size"]),
        (png_header(10_001, 10_000), ["too large", "10001 x 10000", "100000000", "tiles"]),
        (png_header(60_000, 60_000), ["too large", "tiles"]),
        (file_of(Image.new("I", (4, 4), 70_000), "TIFF"), ["32-bit", "16 bits"]),
        (file_of(Image.new("F", (4, 4), 0.5), "TIFF"), ["32-bit"]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value[:12]),
)
def test_errors(data: bytes, words: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert [word for word in words if word not in str(caught.value)] == []


def test_limit_of_pixels() -> None:
    data = file_of(Image.fromarray(RGB), "PNG")
    assert decode_image(data, max_pixels=800).shape == RGB.shape
    with pytest.raises(ImageError, match="40 x 20 pixels, 799"):
        decode_image(data, max_pixels=799)


def test_no_warning_below_the_limit() -> None:
    # Pillow warns from 89 million pixels on, and about a palette's transparency.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ImageError, match="cut short"):
            decode_image(png_header(9_999, 10_000))
    assert caught == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_every_cut_is_an_image_error(kind: str) -> None:
    data = file_of(Image.effect_noise((40, 20), 90).convert("RGB"), kind)
    for end in range(0, int(len(data) * 0.9), 1 + len(data) // 50):
        with pytest.raises(ImageError):
            decode_image(data[:end])


NOISE = [file_of(Image.effect_noise((16, 9), 90).convert("RGB"), kind) for kind in ("JPEG", "GIF", *LOSSLESS)]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NOISE), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=4))
def test_damage_raises_only_image_errors(data: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for position, byte in damage:
        damaged[position % len(damaged)] = byte
    try:
        decoded = decode_image(bytes(damaged), max_pixels=1_000_000)
    except ImageError:
        return
    assert decoded.shape[2] == 3


# --- masks as Label Studio stores them

quick = settings(max_examples=60, deadline=None)
SIZE = (30, 40)
URL_START = "data:image/png;base64,"


def disc() -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.hypot(columns - 18, rows - 14) < 9


def soft_stroke() -> np.ndarray:
    stroke = np.zeros(SIZE, np.uint8)
    cv2.circle(stroke, (20, 15), 8, 255, cv2.FILLED, cv2.LINE_AA)
    return stroke


def url_of(image: Image.Image) -> str:
    return URL_START + base64.b64encode(file_of(image, "PNG")).decode()


def rle_of(count: int, *, word: int = 8, token: str = "000", rest: tuple[int, ...] = (0,) * 8) -> list[int]:
    """An RLE of `count` values whose first token is a flag and the number of a length's size."""
    bits = f"{count:032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16)) + token
    return [int(bits[start : start + 8], 2) for start in range(0, 56, 8)] + list(rest)


@quick
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_rle_is_what_the_sdk_writes_and_reads(mask: np.ndarray) -> None:
    from label_studio_sdk.converter.brush import decode_rle, mask2rle

    rle = encode_mask_rle(mask)
    assert rle == mask2rle(mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(decode_rle(rle).reshape(*mask.shape, 4)[..., 3], mask * 255)


def test_png_marks_by_alpha_in_one_bit() -> None:
    data = base64.b64decode(encode_mask_png(disc()).removeprefix(URL_START))
    assert data[24] == 1  # bits a pixel
    with Image.open(BytesIO(data)) as image:
        rgba = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(rgba, np.dstack([np.zeros((*SIZE, 3), np.uint8), disc() * 255]))


def test_soft_edges_count_where_they_cover_half_a_pixel() -> None:
    from label_studio_sdk.converter.brush import mask2rle

    alpha = soft_stroke()
    image = Image.merge("RGBA", [Image.new("L", SIZE[::-1])] * 3 + [Image.fromarray(alpha)])
    np.testing.assert_array_equal(decode_mask_rle(mask2rle(alpha), SIZE), alpha >= 128)
    np.testing.assert_array_equal(decode_mask_png(url_of(image), SIZE), alpha >= 128)


def test_masks_written_with_ones_are_read() -> None:
    from label_studio_sdk.converter.brush import mask2rle

    np.testing.assert_array_equal(decode_mask_rle(mask2rle(disc().astype(np.uint8)), SIZE), disc())


def test_rle_with_literal_runs() -> None:
    # The browser's encoder writes unequal values as a literal run: flag 0, a length, and each value.
    values = np.array([(index * 37) % 251 for index in range(16)], np.uint8)
    bits = "".join(f"{value:08b}" for value in values)
    token = f"{int('1111' + bits, 2) << 4:0136b}"  # the length 16 in 4 bits
    rest = tuple(int(token[start : start + 8], 2) for start in range(0, 136, 8))
    alpha = values[3::4].reshape(2, 2)
    decoded = decode_mask_rle(rle_of(16, token="001", rest=rest), (2, 2))
    np.testing.assert_array_equal(decoded, alpha >= alpha.max() / 2)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_an_opaque_png_of_one_colour_marks_every_pixel(mode: str) -> None:
    assert decode_mask_png(url_of(Image.new(mode, SIZE[::-1])), SIZE).all()


RLE = encode_mask_rle(disc())
URL = encode_mask_png(disc())


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        (None, "no list"),
        ([], "no list"),
        (10**12, "no list"),
        ("abc", "no list"),
        ([300], "no list"),
        ([1.5], "no list"),
        (RLE[:3], "cut short"),
        (RLE[:-2], "cut short"),
        (rle_of(2**32 - 1), "claims 4294967295 values"),
        (rle_of(4 * 30 * 40, word=32), "of 32 bits"),
        (rle_of(4 * 30 * 40, token="111", rest=(255,) * 8), "past the end"),
    ],
)
def test_rle_errors(rle: object, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        decode_mask_rle(rle, SIZE)
    assert "draw the region again" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "can be read"),
        ("data:image/jpeg;base64,AAAA", "data:image/png"),
        (URL_START, "can be read"),
        (URL_START + "%%%", "can be read"),
        (URL[: len(URL) // 8 * 4], "can be read"),
        (url_of(Image.new("RGBA", (41, 30))), "no PNG of 40 x 30"),
        (url_of(Image.fromarray(soft_stroke())), "mark the pixels by alpha"),
    ],
)
def test_png_errors(url: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode_mask_png(url, SIZE)


def test_every_cut_of_a_mask_is_seen() -> None:
    for end in range(1, len(RLE) - 1):
        with pytest.raises(ImageError):
            decode_mask_rle(RLE[:end], SIZE)
    for end in range(0, len(URL) - 40, 7):
        with pytest.raises(ImageError):
            decode_mask_png(URL[:end], SIZE)


@quick
@given(st.integers(0, 200), st.integers(0, 255))
def test_flipped_bytes_of_a_mask_raise_only_image_errors(position: int, byte: int) -> None:
    png = bytearray(base64.b64decode(URL.removeprefix(URL_START)))
    png[position % len(png)] = byte
    rle = RLE.copy()
    rle[position % len(rle)] = byte
    with suppress(ImageError):
        decode_mask_png(URL_START + base64.b64encode(png).decode(), SIZE)
    with suppress(ImageError):
        decode_mask_rle(rle, SIZE)
