"""Video files that lie about what is in them, or hold more than they seem to."""

from __future__ import annotations

import struct
from fractions import Fraction
from functools import partial

from tests.hostile.case import ANSWERED, VIDEO, Case, Family, either
from tests.hostile.image_files import flipped, gif_of_frames, picture
from tests.support.videos import changed, numbered, sound_alone, video

_EITHER = either(VIDEO)
_SIZE = (96, 64)


def video_cases() -> list[Case]:
    """All of them."""
    families = (_lies(), _many(), _damaged())
    return [case for family in families for case in family.cases]


def _lies() -> Family:
    family = Family("videos that lie")
    family.video("a time scale of 0", lambda: changed(video(), b"mdhd", 16, bytes(4)), _EITHER)
    family.video("a time scale of 2^32 - 1", lambda: changed(video(), b"mdhd", 16, b"\xff" * 4), _EITHER)
    family.video("a length of 2^32 - 1", lambda: changed(video(), b"mvhd", 20, b"\xff" * 4), _EITHER)
    family.video("frames of no length", lambda: changed(video(), b"stts", 16, bytes(4)), _EITHER)
    family.video("frames of 2^31 - 1 ticks", lambda: changed(video(), b"stts", 16, b"\x7f\xff\xff\xff"))
    family.video(
        "a header of 60,000 squared", lambda: changed(video(), b"avc1" + bytes(6), 28, struct.pack(">HH", 60_000, 60_000))
    )
    family.video("a header of 0 x 0", lambda: changed(video(), b"avc1" + bytes(6), 28, bytes(4)), _EITHER)
    family.video("a longer video than is taken", lambda: video("mp4 mpeg4", 700, rate=1, size=(32, 32)))
    family.video("1,000 frames a second", lambda: video(frames=50, rate=1000), ANSWERED)
    family.video("a frame in ten days", lambda: video("mkv h264", 2, times=[0, 10**6], time_base=Fraction(1)))
    family.video("times that go back", lambda: changed(video(), b"ctts", 12, struct.pack(">II", 1, 2**31 + 5)), _EITHER)
    family.video("another codec's name", lambda: video().replace(b"avc1", b"hev1"))
    family.video("sound alone", sound_alone)
    family.video("its tables at the end", video, ANSWERED)
    family.video("in fragments", lambda: video(muxing={"movflags": "frag_keyframe+empty_moov"}), _EITHER)
    family.video("other pictures in the middle", _two_sizes, _EITHER)
    family.video("a reference to a local file", lambda: changed(video(), b"url ", 4, b"\0\0\0\0/etc/passwd\0"), _EITHER)
    family.video("a playlist", lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    family.video("a list of files", lambda: b"ffconcat version 1.0\nfile /etc/passwd\n")
    family.video("AVI", lambda: b"RIFF\xff\xff\xff\x7fAVI LIST" + bytes(2000))
    return family


def _two_sizes() -> bytes:
    """A GIF whose second frame is larger than its canvas."""
    data = video("gif", 3)
    place = data.rindex(b"\x2c")
    return data[: place + 5] + struct.pack("<HH", 4000, 4000) + data[place + 9 :]


def _many() -> Family:
    family = Family("videos of many things")
    family.video("a million frames in a GIF", partial(gif_of_frames, 600_000))
    family.video("40 million samples in 2 kB", lambda: _claiming(40_000_000))
    family.video("2^32 - 1 samples in 2 kB", lambda: _claiming(2**32 - 1))
    family.video("2^32 - 1 tiny chunks", lambda: changed(video(), b"stco", 8, b"\xff" * 4), _EITHER)
    family.video("2^32 - 1 key frames", lambda: changed(video(), b"stss", 8, b"\xff" * 4), _EITHER)
    family.video("5,000 tracks", _tracks, _EITHER)
    family.video("boxes within boxes, 100,000 deep", _nested, _EITHER)
    family.video("a million empty boxes", lambda: video() + struct.pack(">I4s", 8, b"free") * 10**6, ANSWERED)
    family.video("a box that says it is the whole file", lambda: changed(video(), b"moov", -4, struct.pack(">I", 0)), _EITHER)
    family.video("a box of 2^63 bytes", lambda: struct.pack(">I4sQ", 1, b"ftyp", 2**63) + video())
    family.video("a compressed header", lambda: changed(video(), b"udta", 0, b"cmov"))
    family.video("a ring of WebM elements", lambda: _ebml(video("webm vp8", 4)), _EITHER)
    family.video("a frame of 36 MP", lambda: video("mov mjpeg", [picture(size=(6000, 6000))], size=(6000, 6000)))
    family.video("700 frames of which 4 are looked at", lambda: video("mp4 mpeg4", 700, rate=24), ANSWERED)
    return family


def _claiming(samples: int) -> bytes:
    data = changed(video("mp4 mpeg4"), b"stsz", 8, struct.pack(">II", 1, samples))
    data = changed(data, b"stsc", 16, struct.pack(">I", samples))
    return changed(data, b"stts", 12, struct.pack(">II", samples, 1))


def _tracks() -> bytes:
    """A moov of thousands of copies of its track."""
    data = video("mp4 mpeg4", 2)
    start = data.index(b"trak") - 4
    (size,) = struct.unpack(">I", data[start : start + 4])
    track = data[start : start + size]
    moov = data.index(b"moov") - 4
    (whole,) = struct.unpack(">I", data[moov : moov + 4])
    grown = struct.pack(">I", whole + size * 4999)
    return data[:moov] + grown + data[moov + 4 : start + size] + track * 4999 + data[start + size :]


def _nested() -> bytes:
    depth = 100_000
    return video() + b"".join(struct.pack(">I4s", 8 * (depth - level), b"moov") for level in range(depth))


def _ebml(data: bytes) -> bytes:
    """The seek head of a Matroska file, which points at itself."""
    place = data.find(b"\x53\xac")
    return data if place < 0 else data[: place + 3] + bytes(1) + data[place + 4 :]


def _damaged() -> Family:
    family = Family("damaged videos")
    for kind in ("mp4 h264", "mp4 hevc", "webm vp8", "webm vp9", "gif", "mov mjpeg"):
        pictures = [numbered(number, _SIZE) for number in range(6)]
        make = partial(video, kind, pictures)
        family.video(f"{kind}, half of it", partial(_half, make), _EITHER if kind == "gif" else None)
        for seed in range(2):
            family.video(f"{kind}, bits turned ({seed})", partial(_flipped, make, seed), _EITHER)
    family.video("nothing but an MP4's beginning", lambda: video()[:24])
    family.video("nothing but a WebM's beginning", lambda: b"\x1a\x45\xdf\xa3")
    return family


def _half(make: partial[bytes]) -> bytes:
    data = make()
    return data[: len(data) // 2]


def _flipped(make: partial[bytes], seed: int) -> bytes:
    return flipped(make(), seed)
