"""Panels: a picture with what was kept of it drawn on it. With Pillow.

Shapes and shades tell marks apart as well as colours do: a square for the local scan, a diamond for the global one, a circle
for any other; a cross for what was lost. The colours are after Okabe and Ito, whose set colour-blind readers tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vscan_client.answer import Area, PickedBy
from vscan_client.show.geometry import WHOLE, Mark, View

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

PAPER: Colour = (250, 250, 247)
INK: Colour = (30, 30, 30)
LOCAL: Colour = (0, 114, 178)
GLOBAL: Colour = (230, 159, 0)
OTHER: Colour = (120, 94, 140)
SURVIVOR: Colour = (0, 130, 95)
LOST: Colour = (150, 60, 20)
_LIGHT: Colour = (255, 255, 255)
_FADED = 0.72  # share of paper where a patch was dropped
_FINE = 2  # drawn so many times larger, then made smaller, so that slanted lines are smooth
_SMALL_PICTURE = 160  # pixels a side up to which enlarging shows the pixels as they are
_GAP = 4
_HIGHEST = 1.4  # of a panel's width its height, at most
_MANY_LINES, _FULLEST, _PALE = 150, 5, 60


@dataclass(frozen=True, slots=True)
class Canvas:
    """A panel under way: what it shows of a view, and where."""

    image: Image.Image
    window: Area

    def box(self, area: Area) -> Box:
        """Pixels (left, top, right, bottom) of a part of the picture."""
        across = self.image.width / (self.window.right - self.window.left)
        down = self.image.height / (self.window.bottom - self.window.top)
        left, top = (area.left - self.window.left) * across, (area.top - self.window.top) * down
        right, bottom = (area.right - self.window.left) * across, (area.bottom - self.window.top) * down
        return (left, top, right, bottom)


Paint = Callable[[Image.Image, View, int], Image.Image]


def plain(picture: Image.Image, view: View, side: int) -> Image.Image:
    """The picture with the grid's padding around it; what no patch shows is hatched."""
    canvas = _clear(picture, view, side * _FINE)
    _hatch(canvas, view)
    return _finished(canvas)


def kept(picture: Image.Image, view: View, side: int) -> Image.Image:
    """What the encoder kept, by the scan that kept it; the rest is faded."""
    canvas = _faded(picture, view, side, [*view.marks, *view.newlines])
    for mark in view.marks:
        if mark.picked_by is not PickedBy.ALL:
            outline(canvas, canvas.box(mark.patch), mark.picked_by)
    return _finished(canvas)


def merged(picture: Image.Image, view: View, side: int) -> Image.Image:
    """A line from each patch that was dropped to the one that holds it. Of many, those to the fullest tokens stand out."""
    canvas = _faded(picture, view, side, [*view.marks, *view.newlines])
    by_size = sorted(view.marks, key=lambda mark: len(mark.merged))
    lines = Image.new("L", canvas.image.size, 0)
    draw = ImageDraw.Draw(lines)
    many = sum(len(mark.merged) for mark in by_size) > _MANY_LINES
    for rank, mark in enumerate(by_size):
        strength = _PALE if many and rank < len(by_size) - _FULLEST else 255
        for patch in mark.merged:
            draw.line((_middle(canvas.box(patch)), _middle(canvas.box(mark.patch))), fill=strength, width=1)
    canvas.image.paste(INK, mask=lines)
    draw = ImageDraw.Draw(canvas.image)
    for mark in view.marks:
        if mark.merged:
            _dot(draw, canvas.box(mark.patch), mark.picked_by)
    return _finished(canvas)


def past_layer(number: int) -> Paint:
    """What went on past pruning layer `number` (0, 1 …), and a cross on each token that got so far and no further."""

    def paint(picture: Image.Image, view: View, side: int) -> Image.Image:
        alive = [mark for mark in (*view.marks, *view.newlines) if mark.survives[: number + 1] == (True,) * (number + 1)]
        reached = [mark for mark in view.marks if all(mark.survives[:number])]
        canvas = _faded(picture, view, side, alive)
        draw = ImageDraw.Draw(canvas.image)
        for mark in reached:
            box = canvas.box(mark.patch)
            if mark.survives[number]:
                _rectangle(draw, box, SURVIVOR, _LIGHT)
            else:
                _cross(draw, box)
        return _finished(canvas)

    return paint


def contact_sheet(panels: Sequence[Image.Image], width: int) -> Image.Image:
    """Panels of one size in rows, as wide as `width` together."""
    across = min(len(panels), 2 if len(panels) <= 4 else 3 if len(panels) <= 9 else 4)
    each = (width - (across - 1) * _GAP) // across
    small = [panel if panel.width == each else panel.resize((each, panel.height * each // panel.width)) for panel in panels]
    height = small[0].height + _GAP
    sheet = Image.new("RGB", (width, -(-len(small) // across) * height - _GAP), PAPER)
    for index, panel in enumerate(small):
        sheet.paste(panel, (index % across * (each + _GAP), index // across * height))
    return sheet


def outline(canvas: Canvas, box: Box, scan: PickedBy) -> None:
    """The sign of a scan around a patch."""
    draw = ImageDraw.Draw(canvas.image)
    if scan is PickedBy.LOCAL:
        _rectangle(draw, box, LOCAL, _LIGHT)
    elif scan is PickedBy.GLOBAL:
        _diamond(draw, box)
    else:
        _circle(draw, box)


def _clear(picture: Image.Image, view: View, side: int) -> Canvas:
    """The picture on paper, with room for what the patches show beyond it."""
    window = view.window
    width, height = (window.right - window.left) * picture.width, (window.bottom - window.top) * picture.height
    scale = min(side / width, _HIGHEST * side / height)
    canvas = Canvas(Image.new("RGB", (max(1, round(width * scale)), max(1, round(height * scale))), PAPER), window)
    left, top, right, bottom = map(round, canvas.box(WHOLE))
    kind = Image.Resampling.NEAREST if max(picture.size) <= _SMALL_PICTURE else Image.Resampling.LANCZOS
    canvas.image.paste(picture.convert("RGB").resize((max(1, right - left), max(1, bottom - top)), kind), (left, top))
    return canvas


def _faded(picture: Image.Image, view: View, side: int, clear: Sequence[Mark]) -> Canvas:
    """All grey and pale but the patches of these marks."""
    bright = _clear(picture, view, side * _FINE)
    paper = Image.new("RGB", bright.image.size, PAPER)
    canvas = Canvas(Image.blend(bright.image.convert("L").convert("RGB"), paper, _FADED), bright.window)
    for mark in clear:
        if mark.picked_by is PickedBy.NEWLINE:
            _end_of_row(canvas, mark)
            continue
        box = _whole(bright.box(mark.patch))
        canvas.image.paste(bright.image.crop(box), box[:2])
    _hatch(canvas, view)
    return canvas


def _hatch(canvas: Canvas, view: View) -> None:
    """What of the picture no patch shows: cropped away before the model saw it."""
    seen, all_of_it = canvas.box(view.area), canvas.box(WHOLE)
    outside = Image.new("1", canvas.image.size, 0)
    draw = ImageDraw.Draw(outside)
    step = 8 * _FINE
    for start in range(-outside.height, outside.width, step):
        draw.line((start, outside.height, start + outside.height, 0), fill=1, width=_FINE)
    draw.rectangle(_inner(seen), fill=0)
    mask = Image.new("1", canvas.image.size, 0)
    mask.paste(outside.crop(_whole(all_of_it)), _whole(all_of_it)[:2])
    canvas.image.paste(Image.new("RGB", canvas.image.size, INK), mask=mask)


def _finished(canvas: Canvas) -> Image.Image:
    return canvas.image.reduce(_FINE)


def _end_of_row(canvas: Canvas, mark: Mark) -> None:
    left, top, right, bottom = canvas.box(mark.patch)
    middle, inset = (top + bottom) / 2, (right - left) / 4
    ImageDraw.Draw(canvas.image).line((left + inset, middle, right - inset, middle), fill=INK, width=2 * _FINE)


def _rectangle(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, halo: Colour) -> None:
    width = _stroke(box)
    draw.rectangle(_inner(box), outline=halo, width=width + _FINE)
    draw.rectangle(_inner(box), outline=colour, width=width)


def _diamond(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = _inner(box)
    x, y = (left + right) / 2, (top + bottom) / 2
    corners = [(x, top), (right, y), (x, bottom), (left, y), (x, top), (right, y)]
    draw.line(corners, fill=INK, width=_stroke(box) + _FINE, joint="curve")
    draw.line(corners, fill=GLOBAL, width=_stroke(box), joint="curve")


def _circle(draw: ImageDraw.ImageDraw, box: Box) -> None:
    draw.ellipse(_inner(box), outline=_LIGHT, width=_stroke(box) + _FINE)
    draw.ellipse(_inner(box), outline=OTHER, width=_stroke(box))


def _dot(draw: ImageDraw.ImageDraw, box: Box, scan: PickedBy) -> None:
    """A filled sign in the middle of a patch, half its size."""
    left, top, right, bottom = box
    x, y = (right - left) / 4, (bottom - top) / 4
    small = (left + x, top + y, right - x, bottom - y)
    if scan is PickedBy.LOCAL:
        draw.rectangle(_inner(small), fill=LOCAL, outline=_LIGHT)
    elif scan is PickedBy.GLOBAL:
        middle = _middle(box)
        draw.polygon(
            [(middle[0], top + y / 2), (right - x / 2, middle[1]), (middle[0], bottom - y / 2), (left + x / 2, middle[1])],
            GLOBAL,
            INK,
        )
    else:
        draw.ellipse(_inner(small), fill=OTHER, outline=_LIGHT)


def _cross(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    x, y = (right - left) / 3.5, (bottom - top) / 3.5
    for line in ((left + x, top + y, right - x, bottom - y), (left + x, bottom - y, right - x, top + y)):
        draw.line(line, fill=LOST, width=_FINE)


def _stroke(box: Box) -> int:
    """Thick on large patches, and never more than an eighth of a small one."""
    return max(_FINE, min(3 * _FINE, round(min(box[2] - box[0], box[3] - box[1]) / 8)))


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _whole(box: Box) -> tuple[int, int, int, int]:
    return (round(box[0]), round(box[1]), round(box[2]), round(box[3]))


def _inner(box: Box) -> Box:
    """As Pillow draws boxes: the last pixel is part of them."""
    left, top, right, bottom = _whole(box)
    return (left, top, max(left, right - 1), max(top, bottom - 1))
