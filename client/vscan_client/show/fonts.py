"""Which font a text is drawn with: Pillow's own, which has little beyond ASCII, or one of this machine that has its letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# As Pillow looks for them where systems keep fonts. The first that has all letters is taken.
_NAMES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
)
_NO_LETTER = "\uffff"


def font_for(text: str, size: int) -> Font:
    """Pillow's own font where it has the text's letters; else one that has them, or that lacks the fewest."""
    own = ImageFont.load_default(size=size)
    fewest, best = len(_lacking(own, text)), own
    if not fewest:
        return own
    for font in _others(size):
        if (lacks := len(_lacking(font, text))) < fewest:
            fewest, best = lacks, font
        if not fewest:
            break
    return best


def without_letters(texts: Iterable[str]) -> str:
    """Which characters of these no font has that was found, each text by itself: they are drawn as boxes."""
    return "".join(sorted({letter for text in texts for letter in _lacking(font_for(text, 16), text)}))


def _others(size: int) -> Iterator[ImageFont.FreeTypeFont]:
    found = find_spec("matplotlib")
    brought = [Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"] if found and found.origin else []
    for name in (*_NAMES, *map(str, brought)):
        try:
            yield ImageFont.truetype(name, size)
        except OSError:  # it is not on this machine
            continue


def _lacking(font: Font, text: str) -> set[str]:
    letters = {letter for letter in text if not (letter.isascii() or letter.isspace())}
    if not letters:
        return letters
    box = bytes(font.getmask(_NO_LETTER))  # type: ignore[call-overload]
    return {letter for letter in letters if bytes(font.getmask(letter)) == box}  # type: ignore[call-overload]
