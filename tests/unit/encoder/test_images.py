"""Decoding: what is accepted comes out as people see it, what is not is refused by name and limit."""

import resource
import struct
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoder_service import images
from encoder_service.images import FORMATS, ImageLimits, check_bytes, check_size, decode_image
from tests.support.bad_images import png_bomb, saved
from vscan.errors import InvalidArgument

ROOT = Path(__file__).parents[3]
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=50_000_000, min_side=8, max_aspect_ratio=20)
SAVE_AS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "WebP": {"lossless": True},
    "BMP": {},
    "GIF": {},
    "TIFF": {},
}


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 0, 255), (size[0] // 2, 0, size[0], size[1]))
    return image.convert(mode)


def colour(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        decode_image(data, limits)
    assert caught.value.field == "image"
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_format_on_the_list_has_a_case() -> None:
    assert set(SAVE_AS) == set(FORMATS)


@pytest.mark.parametrize("name", SAVE_AS)
def test_each_format_is_decoded(name: str) -> None:
    image = decode_image(saved(picture(), name, **SAVE_AS[name]), LIMITS)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    red, blue = colour(image, 5, 15), colour(image, 35, 15)
    assert red[0] > 230 > 20 > red[2]
    assert blue[2] > 230 > 20 > blue[0]


@pytest.mark.parametrize("name", SAVE_AS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(name: str, kept: float) -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    data = saved(noise, name, **SAVE_AS[name])
    assert refusal(data[: int(kept * len(data))]).problem == f"not a readable {name} file: truncated or damaged"


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16"])
def test_png_modes_become_rgb(mode: str) -> None:
    grey = Image.new("I;16", (20, 20), 0x80FF) if mode == "I;16" else None
    image = decode_image(saved(grey or picture(mode), "PNG"), LIMITS)
    assert image.mode == "RGB"
    if grey:
        assert colour(image, 3, 3) == (0x80, 0x80, 0x80)


def test_cmyk_jpeg_becomes_rgb() -> None:
    red = colour(decode_image(saved(picture("CMYK"), "JPEG", quality=95), LIMITS), 5, 15)
    assert red[0] > 230 > 20 > red[2]


@pytest.mark.parametrize("size", [(40, 30), (700, 901), (3, 2000), (2000, 3)])
def test_transparency_lies_on_white_everywhere(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_BAND_PIXELS", 5_000)  # in bands, of which the last may be a narrow one
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", size, (255, 255, 255, 255)), image).convert("RGB")
    assert np.array_equal(np.asarray(images.to_rgb(image)), np.asarray(whole))


def test_transparency_lies_on_white() -> None:
    image = picture("RGBA")
    image.putalpha(0)
    assert colour(decode_image(saved(image, "PNG"), LIMITS), 5, 5) == (255, 255, 255)
    palette = picture("P")
    assert colour(decode_image(saved(palette, "PNG", transparency=palette.getpixel((5, 5))), LIMITS), 5, 5) == (
        255,
        255,
        255,
    )


def test_a_transparent_image_takes_no_more_than_twice_its_pixels() -> None:
    """In a process of its own, whose peak nothing else has raised."""
    script = """
import resource
from encoder_service.images import ImageLimits, decode_image
from tests.hostile.image_files import png_of_zeros
data = png_of_zeros(3000, 3000, 8, 6)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_image(data, ImageLimits(max_bytes=2**20, max_pixels=9_000_000, min_side=8, max_aspect_ratio=20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) * 1024 < 11 * 9_000_000, "8 bytes a pixel and a band; it was 16"


def test_32_bit_pixels_are_refused() -> None:
    assert refusal(saved(Image.new("F", (20, 20)), "TIFF")).limit == "16 bits"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "TIFF"])
def test_exif_orientation_is_applied(name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left edge is up
    image = decode_image(saved(picture(), name, exif=exif, **SAVE_AS[name]), LIMITS)
    assert image.size == (30, 40)
    assert colour(image, 15, 5)[0] > 230
    assert colour(image, 15, 35)[2] > 230


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_is_passed_over() -> None:
    data = saved(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    assert decode_image(data, LIMITS).size == (40, 30)


@pytest.mark.parametrize("name", ["GIF", "TIFF", "WebP", "PNG"])
def test_the_first_frame_or_page_is_taken(name: str) -> None:
    green = Image.new("RGB", (40, 30), (0, 255, 0))
    data = saved(picture(), name, save_all=True, append_images=[green], **SAVE_AS[name])
    assert colour(decode_image(data, LIMITS), 5, 15)[1] < 20


def test_the_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = png_bomb(40_000)
    assert len(bomb) < LIMITS.max_bytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = refusal(bomb)
    assert str(error) == "image: 1,600 MP, limit 50 MP"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "kilobytes; the pixels would be 200,000"


def test_figures_that_read_alike_are_told_exactly() -> None:
    with pytest.raises(InvalidArgument, match=r"^image: 50,001,000 pixels, limit 50,000,000 pixels$"):
        check_size((50_001, 1000), replace(LIMITS, max_aspect_ratio=100))
    with pytest.raises(InvalidArgument, match=r"^video: 2,097,153 bytes, limit 2,097,152 bytes$"):
        check_bytes(bytes(2**21 + 1), 2**21, "video")
    with pytest.raises(InvalidArgument, match=r"^video: 2.2 MiB, limit 2.0 MiB$"):
        check_bytes(bytes(2_300_000), 2**21, "video")


def test_a_large_webp_canvas_is_refused_by_its_header() -> None:
    frame = saved(picture(), "WebP", lossless=True)[12:]
    canvas = (16_383).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + canvas + frame
    assert str(refusal(b"RIFF" + struct.pack("<I", len(body)) + body)) == "image: 268.4 MP, limit 50 MP"


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"lossless": True, "save_all": True}])
def test_webp_headers_give_the_size(options: dict[str, bool]) -> None:
    data = saved(picture(size=(60, 50)), "WebP", **options)
    tight = ImageLimits(max_bytes=2**20, max_pixels=2999, min_side=1, max_aspect_ratio=20)
    assert refusal(data, tight).problem == "3,000 pixels"


def test_a_jpeg_of_many_scans_is_refused_and_a_progressive_one_is_not() -> None:
    data = saved(picture(), "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    assert 1 < scans < 20
    assert decode_image(data, LIMITS).size == (40, 30)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    repeated = data[:start] + data[start:end] * 500 + data[end:]
    assert str(refusal(repeated)) == f"image: {scans + 499} JPEG scans, limit 100"


def test_small_thin_large_and_empty_are_refused_by_name_and_limit() -> None:
    assert str(refusal(saved(picture(size=(1, 1)), "PNG"))) == "image: 1 x 1 pixels, limit at least 8 pixels a side"
    assert str(refusal(saved(picture(size=(400, 10)), "PNG"))) == "image: 400 x 10 pixels, limit aspect ratio of 20 to 1"
    assert str(refusal(b"\x89PNG" + bytes(2**20))) == "image: 1,048,580 bytes, limit 1,048,576 bytes"
    assert str(refusal(b"")) == "image: empty"


@pytest.mark.parametrize(
    "data",
    [
        b"not an image",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        saved(picture(), "ICO"),
        saved(picture(), "PPM"),
        b"RIFF\x00\x00\x00\x00WAVE",
        b"%PDF-1.7",
    ],
)
def test_other_formats_are_refused(data: bytes) -> None:
    error = refusal(data)
    assert error.problem == "not an image of a known format"
    assert error.limit == "PNG, JPEG, GIF, TIFF, WebP, BMP"


@pytest.mark.parametrize("name", SAVE_AS)
def test_damaged_files_are_decoded_or_refused_never_more(name: str) -> None:
    data = bytearray(saved(Image.effect_noise((24, 24), 90).convert("RGB"), name, **SAVE_AS[name]))
    outcomes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for position in range(0, len(data), max(1, len(data) // 60)):
            damaged = bytes(data[:position]) + bytes([data[position] ^ 0xFF]) + bytes(data[position + 1 :])
            try:
                outcomes.add(decode_image(damaged, LIMITS).mode)
            except InvalidArgument as error:
                outcomes.add(error.field)
    assert outcomes <= {"RGB", "image"}
    assert "image" in outcomes


def test_pillows_limits_are_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    decode_image(saved(picture(), "PNG"), LIMITS)
    assert before == Image.MAX_IMAGE_PIXELS
