"""Pixels of panels, sheets and pages at places that are known."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.videos import TURNED, number_of, numbered, turned_video, video
from tests.unit.show.answers import answer, png
from tests.unit.show.test_geometry import WHOLE, C, G, L, N, report
from vscan.errors import InvalidArgument
from vscan_client import Area, PruneReport, TileGrid, Video
from vscan_client import Image as SentImage
from vscan_client.show import Column, drawing, facts, html, pictures, views_of
from vscan_client.show.fonts import font_for, without_letters
from vscan_client.show.sources import opened, pictures_of

RED = (220, 30, 30)
# Of a 2 x 2 grid the first two are kept; the first holds the third, the second the fourth, and ends at the layer.
REPORT = report([TileGrid(2, 2, 2, WHOLE)], [0, 1], [L, G], [0, 1, 0, 1])
LAYERS = [PruneReport(4, 2, 1, ((0,),))]
PICTURE = Image.new("RGB", (400, 400), RED)
HOSTILE = "<script>alert('x')</script> & \"what\"?"


def near(image: Image.Image, x: int, y: int, size: int = 4) -> list[tuple[int, int, int]]:
    box = image.crop((x - size, y - size, x + size, y + size))
    return [tuple(pixel) for pixel in np.asarray(box).reshape(-1, 3).tolist()]


def is_grey(pixel: tuple[int, int, int]) -> bool:
    return max(pixel) - min(pixel) < 12


@pytest.fixture
def view() -> Any:
    (view,) = views_of(REPORT, LAYERS)
    return view


def test_kept_patches_keep_their_colour_and_each_scan_its_sign(view: Any) -> None:
    panel = drawing.kept(PICTURE, view, 200)
    assert panel.size == (200, 200)
    assert panel.getpixel((50, 50)) == RED == panel.getpixel((150, 50))
    assert all(map(is_grey, near(panel, 50, 150) + near(panel, 150, 150)))
    assert drawing.LOCAL in near(panel, 2, 50)  # a square reaches the corners of its patch
    assert drawing.LOCAL in near(panel, 4, 4)
    assert drawing.GLOBAL in near(panel, 125, 25)  # a diamond cuts them
    assert not {drawing.LOCAL, drawing.GLOBAL} & set(near(panel, 106, 6))


def test_the_two_signs_differ_without_colour_too() -> None:
    luminance = [Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0)) for colour in (drawing.LOCAL, drawing.GLOBAL)]
    assert abs(luminance[0] - luminance[1]) > 60  # type: ignore[operator]


def test_lines_lead_from_what_was_merged(view: Any) -> None:
    panel = drawing.merged(PICTURE, view, 200)
    dark = [min(map(sum, near(panel, x, y, 2))) for x, y in ((50, 110), (150, 110), (100, 150))]
    assert dark[0] < 420 > dark[1]
    assert dark[2] > 600
    assert drawing.LOCAL in near(panel, 50, 50)
    assert drawing.GLOBAL in near(panel, 150, 50)


def test_survivors_are_framed_and_the_others_crossed(view: Any) -> None:
    panel = drawing.past_layer(0)(PICTURE, view, 200)
    assert panel.getpixel((50, 50)) == RED
    assert drawing.SURVIVOR in near(panel, 2, 50)
    assert not any(pixel == RED for pixel in near(panel, 130, 50))
    assert any(not is_grey(pixel) for pixel in near(panel, 150, 50))  # the cross


def test_what_no_patch_shows_is_hatched_and_ends_of_rows_stand_beside() -> None:
    one = report([TileGrid(1, 3, 2, Area(0, 0.25, 1.5, 0.75))], [0, 2], [L, N])
    (view,) = views_of(one)
    panel = drawing.kept(PICTURE, view, 300)
    assert panel.size == (300, 200)  # half a picture wider than it is
    assert min(map(sum, near(panel, 100, 25, 8))) < 300  # hatches
    assert min(map(sum, near(panel, 150, 100, 8))) > 500
    assert drawing.INK in near(panel, 250, 100)
    assert panel.getpixel((250, 50)) == drawing.PAPER


def test_a_sheet_has_a_column_for_each_budget() -> None:
    answers = {"33%": answer([REPORT], LAYERS), "22%": answer([REPORT], LAYERS)}
    sheet = pictures(answers, png(PICTURE), "what colour?")
    assert sheet.width == 16 + 3 * (400 + 16)
    reds = np.all(np.asarray(sheet) == RED, axis=2).any(axis=0)
    assert all(reds[16 + column * 416 : 416 + column * 416].any() for column in range(3))
    alone = pictures(answer([REPORT], LAYERS), png(PICTURE))
    assert alone.width == 16 + 4 * (400 + 16) > alone.height


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_is_whole_escaped_and_asks_nothing_of_the_network() -> None:
    two = answer([REPORT], LAYERS, text=HOSTILE)
    text = html({HOSTILE: two, "22%": answer([REPORT])}, png(PICTURE), HOSTILE)
    page = Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "img", "base", "form"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(value.startswith("#") for _, a in page.tags for name, value in a.items() if name in ("href", "src") and value)
    assert all(url.startswith(("data:image/", "#hatch")) for url in re.findall(r"url\(([^)]*)\)", text))
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert sum(HOSTILE in part for part in page.texts) >= 3  # question, answer, budget
    assert "prefers-color-scheme: dark" in text


def test_every_picture_of_a_page_has_words_and_every_kept_patch_the_keyboard() -> None:
    page = Page(html(answer([REPORT], LAYERS), png(PICTURE), "what?"))
    groups = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "group"]
    assert len(groups) == 3
    assert all(attributes["aria-label"] for attributes in groups)
    tokens = [attributes for _, attributes in page.tags if attributes.get("tabindex") == "0"]
    assert [attributes["aria-label"] for attributes in tokens] == [
        "patch in row 1, column 1, kept by the local scan; 1 patch was merged into it",
        "patch in row 1, column 2, kept by the global scan; 1 patch was merged into it",
    ]


def test_facts_say_all_counts() -> None:
    lines = list(facts([Column("33%", answer([REPORT], LAYERS))], ["a.png"], "what colour?"))
    assert lines == [
        "question: what colour?",
        "budget 33%: 4 → 2 → 1 visual tokens, 1.0 (25.0%) on average over the layers",
        "  a.png: 2 of 4 kept: 1 by the local scan, 1 by the global scan; 2 patches merged into 2 tokens, at most 1 into one; "
        "1 of its tokens went on past layer 4",
        "  answer: red",
    ]


@pytest.mark.parametrize("kind", ["mp4 h264", "webm vp9", "gif"])
def test_frames_are_those_that_were_looked_at(kind: str) -> None:
    clip = Video.from_bytes(video(kind, 20, rate=10))
    shown = report([TileGrid(1, 1, 1, WHOLE)] * 4, [0, 1, 2, 3], [L] * 4, frames=4)
    seconds = (0.0, 0.5, 1.0, 1.5)
    object.__setattr__(shown.frames, "seconds", seconds)
    assert [number_of(picture) for picture in pictures_of(clip, shown)] == [0, 5, 10, 15]


@pytest.mark.parametrize(("matrix", "turn"), TURNED)
def test_frames_are_drawn_as_their_container_turns_them(
    matrix: tuple[int, int, int, int], turn: Image.Transpose | None
) -> None:
    clip = Video.from_bytes(turned_video(5, matrix, turn))
    (frame, *_) = pictures_of(clip, report([TileGrid(1, 1, 1, WHOLE)], [0], [L], frames=1))
    assert number_of(frame) == 5


def test_a_video_is_a_contact_sheet_with_times() -> None:
    frames = Video.from_frames([png(numbered(number)) for number in range(3)], frames_per_second=2)
    tiles = [TileGrid(1, 1, 1), TileGrid(1, 2, 1, WHOLE)] * 3
    shown = report(tiles, [0, 1, 3, 4, 6, 7], [C, L] * 3, frames=3)
    text = html(answer([shown]), frames)
    assert [f"<figcaption>{second}.00 s</figcaption>" in text for second in (0, 1, 2)] == [True] * 3
    assert pictures(answer([shown]), frames).height > 300


def test_pictures_are_drawn_upright_and_on_white() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (30, 20), RED).save(buffer, "JPEG", exif=exif)
    assert opened(buffer.getvalue()).size == (20, 30)
    assert opened(png(Image.new("RGBA", (20, 20), (0, 0, 0, 0)))).getpixel((5, 5)) == (255, 255, 255)
    assert opened(png(Image.new("I;16", (20, 20), 0x8000))).getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("visual", "problem"),
    [
        (SentImage.from_digest(bytes(32)), "only the digest"),
        (SentImage.from_bytes(b"no picture"), "cannot be drawn on"),
        (Video.from_bytes(b"no video"), "cannot be drawn on"),
    ],
)
def test_what_cannot_be_drawn_on_is_refused(visual: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        pictures(answer([REPORT]), visual)


def test_answers_about_other_images_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="about 2 images"):
        pictures(answer([REPORT, REPORT]), png(PICTURE))


def test_a_server_that_contradicts_itself_is_told_so_and_nothing_is_drawn() -> None:
    other = report([TileGrid(2, 2, 2, WHOLE), TileGrid(1, 1, 1, WHOLE)], [0, 1, 4], [L, G, L])
    for told, problem in (
        ({"1": answer([REPORT]), "2": answer([other])}, "other tiles or frames"),
        (answer([report([], [], [])]), "no tile or frame"),
        (answer([report([], [], [], frames=2)]), "no tile or frame"),
        (answer([REPORT], [PruneReport(4, 2, 1)]), "not reported of layer 4"),
    ):
        with pytest.raises(InvalidArgument, match=problem):
            pictures(told, png(PICTURE))
    film = Video.from_frames([png(PICTURE)], frames_per_second=1)
    with pytest.raises(InvalidArgument, match="no tile or frame"):
        pictures(answer([report([], [], [], frames=2)]), film)


def test_of_a_long_video_some_frames_are_drawn_and_it_is_said() -> None:
    frames = Video.from_frames([png(numbered(number)) for number in range(30)], frames_per_second=1)
    shown = report([TileGrid(1, 1, 1, WHOLE)] * 30, list(range(30)), [L] * 30, frames=30)
    text = html(answer([shown]), frames)
    assert "video 1: 30 frames, of which 24 are drawn" in text
    assert text.count("background-image:url(") == 24


def test_a_server_that_does_not_say_where_patches_lie_is_named() -> None:
    old = report([TileGrid(2, 2, 2)], [0, 1], [L, G])
    assert "does not say where the patches lie" in html(answer([old]), png(PICTURE))
    assert "does not say where the patches lie" not in html(answer([REPORT]), png(PICTURE))


def test_letters_are_drawn_with_a_font_that_has_them() -> None:
    pytest.importorskip("matplotlib")  # it brings one
    assert without_letters(["what is it?", "Größe? Ж", "→ ×", "\U0010fffd"]) == "\U0010fffd"
    own, other = (font_for(text, 16).getname()[0] for text in ("plain", "Größe"))  # type: ignore[union-attr]
    assert own != other
