"""Image files that would take memory or time, or be taken for what they are not."""

from __future__ import annotations

import io
import struct
import zipfile
from functools import partial

from PIL import Image

from encoder_service.images import FORMATS
from tests.hostile.case import ANSWERED, Case, Family, either
from tests.hostile.image_files import (
    bmp,
    chunk,
    exif,
    file_of,
    flipped,
    frames,
    gif_of_frames,
    jpeg_with,
    picture,
    png_header,
    png_of_zeros,
    png_with,
    tiff,
    tiff_of,
    zeros_compressed,
)
from tests.support.bad_images import saved
from tests.support.videos import video

_UNIT = 2**16 - 1


def image_cases() -> list[Case]:
    """All of them."""
    families = (_formats(), _dimensions(), _bombs(), _damaged(), _polyglots(), _exif(), _kinds())
    return [case for family in families for case in family.cases]


def _formats() -> Family:
    """One of each format that Pillow opens and this service does not: no decoder of theirs may run."""
    family = Family("other formats")
    Image.init()
    served = {name.upper() for name in FORMATS}
    for name in sorted(set(Image.OPEN) - served):
        if name in Image.SAVE:
            family.image(name, partial(_in_format, name))
        else:
            family.image(f"{name}, its first bytes", partial(_first_bytes, name))
    family.image("SVG with an entity bomb", lambda: b'<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><svg>&b;</svg>')
    family.image("EPS with a program", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{} loop\n")
    family.image("XBM of a million lines", lambda: b"#define i_width 64\n#define i_height 64\n" + b"0x00,\n" * 10**6)
    return family


def _in_format(name: str) -> bytes:
    for mode in ("RGB", "L", "1", "P", "RGBA", "F"):
        try:
            return saved(picture(mode), name)
        except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError):  # that mode is not for this format
            continue
    return _first_bytes(name)


def _first_bytes(name: str) -> bytes:
    first = {
        "FLI": struct.pack("<IHHHHHH", 128, 0xAF12, 1, 64, 48, 8, 3),
        "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 30_000, 30_000, 8, 3),
        "FITS": b"SIMPLE  =                    T".ljust(80) + b"NAXIS1  =                99999".ljust(80),
        "CUR": b"\0\0\2\0\1\0",
        "PCD": bytes(2048) + b"PCD_",
        "GBR": struct.pack(">IIIII", 28, 2, 60_000, 60_000, 4) + b"GIMP",
        "QOI": b"qoif" + struct.pack(">IIBB", 60_000, 60_000, 4, 0),
        "XPM": b"/* XPM */\nstatic char *x[] = {\n",
        "MPEG": b"\x00\x00\x01\xb3\x40\x00\x30",
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(40),
    }
    return first.get(name, name.encode()).ljust(512, b"\0")


def _dimensions() -> Family:
    family = Family("dimensions")
    family.image("PNG that claims 2^31 - 1 squared", lambda: png_header(2**31 - 1, 2**31 - 1) + chunk(b"IEND", b""))
    family.image("PNG of 40,000 x 40,000 zeros", partial(png_of_zeros, 40_000, 40_000, 1, 0))
    family.image("PNG 0 x 48", lambda: png_header(0, 48) + chunk(b"IEND", b""))
    family.image("JPEG that claims 65,535 squared", lambda: _jpeg_claiming(_UNIT, _UNIT))
    family.image("JPEG 0 x 0", lambda: _jpeg_claiming(0, 0))
    family.image("GIF that claims 65,535 squared", lambda: b"GIF89a" + struct.pack("<HH", _UNIT, _UNIT) + b"\0\0\0;")
    family.image("TIFF that claims 2^32 - 1 squared", lambda: tiff_of(2**32 - 1, 2**32 - 1, b""))
    family.image("BMP that claims 2^31 - 1 squared", lambda: bmp(2**31 - 1, 2**31 - 1, b""))
    family.image("BMP of negative width", lambda: bmp(-64, 48, bytes(64 * 48)))
    family.image("WebP that claims 16,384 squared", _webp_claiming)
    family.image("1 x 1", lambda: file_of("PNG", size=(1, 1)))
    family.image("1 x 20,000", lambda: file_of("PNG", size=(1, 20_000)))
    family.image("20,000 x 1", lambda: file_of("PNG", size=(20_000, 1)))
    family.image("20,000 x 8", lambda: file_of("PNG", size=(20_000, 8)))
    family.image("8 x 8", lambda: file_of("PNG", size=(8, 8)), ANSWERED)
    family.image("8 x 160, the thinnest", lambda: file_of("PNG", size=(8, 160)), ANSWERED)
    return family


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = file_of("JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _webp_claiming() -> bytes:
    canvas = (16_383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + canvas + file_of("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bombs() -> Family:
    family = Family("bombs")
    text = b"Comment\0\0" + zeros_compressed(64)
    family.image("PNG with a zTXt of 64 MiB", lambda: png_with(chunk(b"zTXt", text)), either("messages[0].parts[0].image"))
    family.image("PNG with 200 zTXt of 1 MiB", lambda: png_with(*[chunk(b"zTXt", b"C\0\0" + zeros_compressed(1))] * 200))
    family.image("PNG with an iTXt of 64 MiB", lambda: png_with(chunk(b"iTXt", b"C\0\1\0\0\0" + text[9:])), _EITHER)
    family.image("PNG with an iCCP of 64 MiB", lambda: png_with(chunk(b"iCCP", b"C\0\0" + text[9:])), _EITHER)
    family.image("PNG with more pixels than it claims", _png_with_surplus, _EITHER)
    family.image("PNG of 100,000 chunks", lambda: png_with(chunk(b"tEXt", b"a\0b") * 100_000), _EITHER)
    family.image("PNG of 50 MP of zeros, transparent", partial(png_of_zeros, 7071, 7071, 8, 6), ANSWERED)
    family.image("PNG of 49 MP, 16 bits and transparent", partial(png_of_zeros, 7000, 7000, 16, 6), ANSWERED)
    family.image("JPEG of 5,000 scans", _jpeg_of_scans)
    family.image("JPEG of 10,000 comments", lambda: jpeg_with(0xFE, bytes(100), 10_000), ANSWERED)
    family.image("GIF of a million frames", partial(gif_of_frames, 600_000), ANSWERED)
    family.image("APNG of 300 frames", lambda: frames("PNG", 300), ANSWERED)
    family.image("APNG that claims 2^31 frames", lambda: png_with(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), _EITHER)
    family.image("WebP of 300 frames", lambda: frames("WEBP", 300), ANSWERED)
    family.image("GIF of noise as its codes", lambda: file_of("GIF", "P")[:-200] + bytes(range(256)) * 40, _EITHER)
    family.image("TIFF with tiles of 2^31 squared", lambda: _tiff_tiles(2**31 - 16))
    family.image("TIFF with tiles of 60,000 squared", lambda: _tiff_tiles(60_000))
    family.image("TIFF whose directories are a ring", lambda: tiff([(256, 4, 1, 64)], next_ifd=8))
    family.image("TIFF of 65,535 tags", lambda: tiff([(40_000, 4, 1, 0)] * 65_535))
    family.image("TIFF with a tag of 4 GB", lambda: tiff_of(64, 48, bytes(64 * 48), t270=2**32 - 1), _EITHER)
    family.image("TIFF with a strip of 4 GB", lambda: tiff_of(64, 48, bytes(64 * 48), t279=2**32 - 1), _EITHER)
    family.image("TIFF whose strip lies at 4 GB", lambda: tiff_of(64, 48, bytes(64 * 48), t273=2**32 - 2))
    family.image("TIFF of 2^16 channels", lambda: tiff_of(64, 48, bytes(64 * 48), t277=_UNIT))
    family.image("BMP of run lengths that never end", lambda: bmp(4000, 4000, b"\0\2\xff\0" * 5, compression=1), _EITHER)
    family.image("BMP of 2^32 - 1 colours", lambda: bmp(64, 48, bytes(64 * 48), colours=2**32 - 1), _EITHER)
    family.image("JPEG of several pictures (MPO)", _mpo, ANSWERED)
    return family


_EITHER = either("messages[0].parts[0].image")


def _png_with_surplus() -> bytes:
    return png_header(64, 48) + chunk(b"IDAT", zeros_compressed(512)) + chunk(b"IEND", b"")


def _jpeg_of_scans() -> bytes:
    data = file_of("JPEG", size=(2000, 2000), progressive=True)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:start] + data[start:end] * 5000 + data[end:]


def _tiff_tiles(side: int) -> bytes:
    """Compressed, so that a library of its own makes room for a tile."""
    return tiff_of(64, 48, bytes(4096), t259=8, t322=side, t323=side, t324=200, t325=4096)


def _mpo() -> bytes:
    return frames("MPO", 4)


def _damaged() -> Family:
    family = Family("damaged images")
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        data = file_of(form, "P" if form == "GIF" else "RGB")
        for kept in (0.02, 0.4, 0.97):
            expected = None if kept < 0.5 else _EITHER
            family.image(f"{form}, {kept:.0%} of it", partial(_cut, data, kept), expected)
        for seed in range(3):
            family.image(f"{form}, bits turned ({seed})", partial(flipped, data, seed), _EITHER)
    family.image("nothing but a JPEG's beginning", lambda: b"\xff\xd8\xff")
    family.image("zeros", lambda: bytes(10_000))
    return family


def _cut(data: bytes, kept: float) -> bytes:
    return data[: int(kept * len(data))]


def _polyglots() -> Family:
    family = Family("polyglots")
    family.image("PNG that is a ZIP archive too", lambda: file_of("PNG") + _archive(), ANSWERED)
    family.image("GIF that is a script too", _gif_script, _EITHER)
    family.image("JPEG that is a PDF too", lambda: jpeg_with(0xFE, b"%PDF-1.7\n1 0 obj<</OpenAction 2 0 R>>endobj"), ANSWERED)
    family.image("PNG with a video behind it", lambda: file_of("PNG") + video(frames=4), ANSWERED)
    family.image("a video where an image should be", lambda: video(frames=4))
    family.video("an image where a video should be", lambda: file_of("PNG"))
    family.video("a video that begins as PNG", lambda: b"\x89PNG\r\n\x1a\n" + video(frames=4))
    family.image("ZIP archive that begins as GIF", lambda: b"GIF89a" + _archive())
    family.image("HTML", lambda: b"<html><script>alert(1)</script></html>")
    family.image("RIFF that is a sound", lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(64))
    family.image("pickled object", lambda: b"\x80\x04cposix\nsystem\n(S'true'\ntR.")
    return family


def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil", "x")
    return file.getvalue()


def _gif_script() -> bytes:
    """`GIF89a/*…*/=1;`: width and height are a comment's beginning."""
    return b"GIF89a" + b"/*" + struct.pack("<H", 48) + file_of("GIF", "P")[10:] + b"*/=1;alert(1)"


def _exif() -> Family:
    family = Family("metadata of images")
    for orientation in (0, 9, _UNIT):
        family.image(f"orientation {orientation}", partial(_with_exif, exif(orientation)), ANSWERED)
    family.image("EXIF at 4 GB", partial(_with_exif, exif(offset=2**32 - 1)), ANSWERED)
    family.image("EXIF that leads to itself", partial(_with_exif, exif(next_ifd=8)), ANSWERED)
    family.image("EXIF of 5,000 entries", partial(_with_exif, exif(entries=5000)), ANSWERED)
    family.image("EXIF with a thumbnail of 4 GB", partial(_with_exif, exif(thumbnail=2**32 - 1)), ANSWERED)
    family.image("EXIF in a PNG, of 16 MiB", lambda: png_with(chunk(b"eXIf", b"II*\0" + bytes(2**24))), _EITHER)
    family.image("EXIF in a WebP, nonsense", lambda: file_of("WEBP", exif=b"II*\0\xff\xff\xff\xff"), _EITHER)
    family.image("ICC profile of nonsense", lambda: file_of("JPEG", icc_profile=b"\xff" * 60_000), ANSWERED)
    family.image("ICC profile in 255 parts of 1", lambda: jpeg_with(0xE2, b"ICC_PROFILE\0\1\1", 255), ANSWERED)
    family.image("XMP of a million tags", lambda: file_of("PNG", pnginfo=None) + b"<x>" * 10**6, ANSWERED)
    return family


def _with_exif(data: bytes) -> bytes:
    return jpeg_with(0xE1, data)


def _kinds() -> Family:
    family = Family("kinds of pixels")
    for form, mode in (("PNG", "1"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "RGBA"), ("TIFF", "CMYK"), ("JPEG", "CMYK")):
        family.image(f"{form} {mode}", partial(file_of, form, mode), ANSWERED)
    family.image("PNG, 16 bits of grey", lambda: saved(Image.new("I;16", (64, 48), 0x8000), "PNG"), ANSWERED)
    family.image("TIFF of floats", lambda: saved(Image.new("F", (64, 48), float("nan")), "TIFF"))
    family.image("TIFF of 32-bit integers", lambda: saved(Image.new("I", (64, 48), 2**31 - 1), "TIFF"))
    family.image("TIFF in LAB", lambda: saved(picture("LAB"), "TIFF"), _EITHER)
    family.image("PNG of a palette of one colour", lambda: png_of_zeros(64, 48, 8, 3), _EITHER)
    family.image("animated GIF", lambda: frames("GIF", 3), ANSWERED)
    return family
