"""Images and masks as bytes: the files people have, and the forms in which Label Studio stores masks.

Label Studio 1.23 draws a brush's RLE and a bitmask's PNG by their alpha channel alone.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF")
"""What may be opened; MPO, the JPEG of phones, counts as JPEG. Pillow reads more, but for EPS it starts a program."""

_ROTATED_BY_BROWSERS = ("JPEG", "MPO", "PNG", "AVIF")
"""Formats whose EXIF orientation Chromium 156 obeys; it ignores that of WebP. Pillow turns TIFF by itself."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the turn that undoes it."""

_PNG_URL = "data:image/png;base64"
_PNG_HEADER = struct.Struct(">8s4x4sII")
_RLE_WORD_BITS = 8
_REDRAW = "draw the region again in Label Studio, or delete it"


class ImageError(ValueError):
    """The bytes are no image or mask that this program can use; the message says why and what to do."""


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence Pillow, which warns about harmless flaws of a file.

    The filter names Pillow alone, so it hides nothing else should another thread's catch_warnings leave it in place.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.|a2lc_backend\.images")
        yield


def decode_image(data: bytes, max_pixels: int = 100_000_000) -> NDArray[np.uint8]:
    """Decode an image file to the pixels that a person sees in Label Studio.

    The image is turned as its EXIF orientation says, because browsers do so (but for WebP) and Label Studio measures
    its regions on the turned image. 16-bit grey is scaled by its full range (65535 becomes 255). Transparent pixels are
    laid on white. Of an animation or a file of several pages the first is taken.

    Args:
        data: a JPEG, PNG, TIFF, WebP, BMP, GIF or AVIF file of any depth up to 16 bits, grey, colour, palette or CMYK.
        max_pixels: the most pixels that are decoded, read from the header first; Pillow itself stops at 178 million.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ImageError: for bytes that are empty, no image, damaged, cut short, too large, or of 32 bits a channel.
    """
    if not data:
        raise ImageError("the image is empty (0 bytes); upload it again")
    with _quiet_pillow():
        image = _open(data, max_pixels)
        try:
            image.load()
            return _to_rgb(_turn_upright(image))
        except ImageError:
            raise
        except Exception as error:  # a damaged file raises anything from OSError to struct.error
            raise ImageError(
                f"the {image.format} image is damaged or cut short ({error}); save it again or upload it again"
            ) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header of an image file and check its size, before any pixel is decoded."""
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"not an image this program reads, or one of zero size, or cut short in its header ({len(data)} bytes, "
            f"the first are {data[:12]!r}); save it as JPEG or PNG, or check that its address serves the file itself"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large: {error}; scale it down or cut it into tiles") from error
    except Exception as error:  # see decode_image
        raise ImageError(f"the image's header is damaged ({error}); save it again or upload it again") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"the image is too large: {width} x {height} pixels, {max_pixels} are the most; "
            "scale it down or cut it into tiles, or set A2LC_MAX_PIXELS higher and A2LC_TILE_PIXELS"
        )
    return image


def _turn_upright(image: Image.Image) -> Image.Image:
    """Turn a decoded image as browsers do."""
    if image.format not in _ROTATED_BY_BROWSERS:
        return image
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        turn = _TRANSPOSE.get(exif.get(_ORIENTATION_TAG, 1))
    except Exception:  # browsers show an image with broken EXIF as it lies
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Bring a decoded image of any mode to (H, W, 3) uint8."""
    if image.mode.startswith("I;16"):
        to_eight_bits = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)
        return np.repeat(to_eight_bits[np.asarray(image)][..., None], 3, axis=2)
    if image.mode in {"I", "F"}:
        raise ImageError("the image holds 32-bit numbers, whose white is unknown; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def encode_mask_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Write a mask as Label Studio's RLE of an RGBA image, 255 in all four channels where the mask is set.

    Args:
        mask: (H, W) bool.

    Returns:
        Bytes as numbers from 0 to 255; exact.
    """
    from label_studio_sdk.converter.brush import encode_rle  # noqa: PLC0415  (takes seconds)

    rle: list[int] = encode_rle(np.repeat(mask.ravel().astype(np.uint8) * 255, 4))
    return rle


def decode_mask_rle(rle: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read Label Studio's RLE of an RGBA image.

    The SDK's `decode_rle` does not suit what people or programs may send: it allocates what the header claims, takes a
    number cut off at the end for a smaller one, and needs 70 bytes of memory for each byte of RLE.

    Args:
        rle: what JSON gives as the RLE: a list of numbers from 0 to 255.
        size: height and width of the image in pixels.

    Returns:
        (H, W) bool, see `_visible`.

    Raises:
        ImageError: for an RLE that is malformed, cut short, or of another size.
    """
    try:
        data = bytes(rle) if isinstance(rle, list) else b""
    except (TypeError, ValueError):
        data = b""
    if not data:
        raise ImageError(f"its RLE is no list of numbers from 0 to 255; {_REDRAW}")
    end = 0

    def read(bits: int) -> int:
        nonlocal end
        end += bits
        if end > 8 * len(data):
            raise ImageError(f"its RLE is cut short; {_REDRAW}")
        return int.from_bytes(data[(end - bits) // 8 : (end + 7) // 8], "big") >> (-end % 8) & ((1 << bits) - 1)

    height, width = size
    count, word_bits = read(32), read(5) + 1
    if (count, word_bits) != (4 * height * width, _RLE_WORD_BITS):
        raise ImageError(
            f"its RLE claims {count} values of {word_bits} bits, its image has {4 * height * width} of 8; {_REDRAW}"
        )
    length_bits = [read(4) + 1 for _ in range(4)]
    values = np.empty(count, np.uint8)
    start = 0
    while start < count:
        repeated = read(1)
        length = 1 + read(length_bits[read(2)])
        if start + length > count:
            raise ImageError(f"its RLE runs past the end of its image; {_REDRAW}")
        word = read(8) if repeated else np.frombuffer(read(8 * length).to_bytes(length, "big"), np.uint8)
        values[start : start + length] = word
        start += length
    return _visible(values[3::4].reshape(size))


def encode_mask_png(mask: NDArray[np.bool_]) -> str:
    """Write a mask as the data URL of a PNG of one bit a pixel: black where the mask is set, else transparent; exact.

    Args:
        mask: (H, W) bool.
    """
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0] * 6)
    file = BytesIO()
    image.save(file, "PNG", bits=1, transparency=b"\x00\xff")
    return f"{_PNG_URL},{base64.b64encode(file.getvalue()).decode()}"


def decode_mask_png(url: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read the alpha channel of the PNG in a data URL.

    Args:
        url: what JSON gives as the data URL.
        size: height and width of the image in pixels.

    Returns:
        (H, W) bool, see `_visible`. A PNG of one colour without alpha marks every pixel, as Label Studio draws it.

    Raises:
        ImageError: for a URL that is malformed or holds no PNG of this size, or holds a picture without alpha.
    """
    height, width = size
    start, _, text = url.partition(",") if isinstance(url, str) else ("", "", "")
    try:
        data = base64.b64decode(text, validate=True) if start == _PNG_URL else b""
        if _PNG_HEADER.unpack(data[: _PNG_HEADER.size]) != (b"\x89PNG\r\n\x1a\n", b"IHDR", width, height):
            raise ImageError(f"its imageDataURL holds no PNG of {width} x {height} pixels; {_REDRAW}")
        with _quiet_pillow(), Image.open(BytesIO(data), formats=["PNG"]) as image:
            image.load()
            if image.has_transparency_data:
                return _visible(np.asarray(image.convert("RGBA").getchannel("A")))
            colours = image.convert("RGB").getcolors(1)
    except ImageError:
        raise
    except Exception as error:  # see decode_image
        raise ImageError(f'its imageDataURL is no "{_PNG_URL},..." that can be read; {_REDRAW}') from error
    if colours is None:
        raise ImageError("its PNG has no alpha channel, so Label Studio draws every pixel; mark the pixels by alpha")
    return np.ones(size, np.bool_)


def _visible(alpha: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels at least half as opaque as the strongest: a stroke's soft edge counts where it covers half a pixel."""
    return (alpha > 0) & (alpha >= int(alpha.max(initial=0)) / 2)


def pixels_digest(image: NDArray[np.uint8]) -> str:
    """24 hex digits that tell the content of an image from any other's, wherever it lies.

    Args:
        image: (H, W, 3) uint8.
    """
    digest = hashlib.blake2b(str(image.shape).encode(), digest_size=12)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def is_plain(data: bytes, kind: str) -> bool:
    """Whether an image file is of a format and every reader shows its pixels as `decode_image` does.

    Not so where it is to be turned as EXIF says, or is not of 8 bits grey or colour.

    Args:
        data: a file that `decode_image` reads.
        kind: "JPEG" or "PNG".
    """
    with _quiet_pillow(), Image.open(BytesIO(data), formats=_FORMATS) as image:
        if image.format != kind or image.mode not in {"L", "RGB"} or "transparency" in image.info:
            return False
        return image is _turn_upright(image) and getattr(image, "n_frames", 1) == 1
