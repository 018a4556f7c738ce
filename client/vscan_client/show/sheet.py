"""The picture for a README: a column for each budget, a row of panels for each stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vscan_client.answer import PickedBy
from vscan_client.show import drawing
from vscan_client.show.facts import Column, average_text, counts_text
from vscan_client.show.fonts import Font, font_for
from vscan_client.show.geometry import WHOLE
from vscan_client.show.stages import Band, Shown

_MARGIN = 16
_TEXT, _SMALL, _LARGE = 17, 15, 21
_LINES_OF_ANSWER = 3
_SIGN = 15  # pixels of a sign in the legend
_PLAIN = str.maketrans({"→": ">", "×": "x"})  # of what is said here Pillow's own font lacks these
_MERGED = "Each line leads from a patch that was dropped to the kept one that it was merged into."
_PRUNED = (
    "Stage 2, before layer {layer} of the language model: framed patches went on for this question, crossed ones ended here."
)


@dataclass(frozen=True, slots=True)
class _Block:
    """Something of a known height, drawn at a left edge and a top edge; [(x, image)] beside each other."""

    parts: tuple[tuple[int, Image.Image], ...]

    @property
    def height(self) -> int:
        return max((image.height for _, image in self.parts), default=0)


def sheet(shown: Shown, panel_pixels: int = 400) -> Image.Image:
    """All of it as one image, for a light ground. One budget alone has its stages beside each other."""
    stages = 2 + any(band.is_merged for band in shown.bands) + len(shown.layers)
    count = stages if len(shown.columns) == 1 else 1 + len(shown.columns)
    lefts = [_MARGIN + number * (panel_pixels + _MARGIN) for number in range(count)]
    width = lefts[-1] + panel_pixels + _MARGIN
    blocks = [_line(shown.question, width - 2 * _MARGIN, _LARGE), _header(shown, lefts, panel_pixels)]
    draw = _strip if len(shown.columns) == 1 else _band
    for band in shown.bands:
        blocks += [*_title(shown, band, width - 2 * _MARGIN), *draw(shown, band, lefts, panel_pixels)]
    image = Image.new("RGB", (width, sum(block.height + _MARGIN for block in blocks) + _MARGIN), drawing.PAPER)
    top = _MARGIN
    for block in blocks:
        for left, part in block.parts:
            image.paste(part, (left, top))
        top += block.height + _MARGIN
    return image


def panel_of(band: Band, column: int, paint: drawing.Paint, side: int) -> Image.Image:
    """One panel: a picture, or the frames of a video as a contact sheet with their times."""
    if not band.is_video:
        return paint(band.scenes[0].picture, band.scenes[0].views[column], side)
    frames = []
    for scene in band.scenes:
        panel = paint(scene.picture, scene.views[column], side // 2)
        time = _text(scene.place, panel.width, _TEXT)
        both = Image.new("RGB", (panel.width, panel.height + time.height), drawing.PAPER)
        both.paste(panel, (0, 0))
        both.paste(time, (0, panel.height))
        frames.append(both)
    return drawing.contact_sheet(frames, side)


def _header(shown: Shown, lefts: Sequence[int], width: int) -> _Block:
    headers = [_heading(column, width) for column in shown.columns]
    return _Block(((lefts[0], _legend(shown, width)), *zip(lefts[1:], headers, strict=False)))


def _heading(column: Column, width: int) -> Image.Image:
    lines = [
        _text(f"budget {column.budget}", width, _LARGE),
        _text(counts_text(column), width, _TEXT),
        _text(average_text(column), width, _SMALL),
        _text(f"answer: {column.answer.text.strip() or '(nothing)'}", width, _LARGE, _LINES_OF_ANSWER),
    ]
    return _stacked(lines, width)


def _legend(shown: Shown, width: int) -> Image.Image:
    marks = [mark for band in shown.bands for scene in band.scenes for view in scene.views for mark in view.marks]
    scans = {mark.picked_by for mark in marks}
    signs = [
        _sign(scan, words, width)
        for scan, words in ((PickedBy.LOCAL, "kept by the local scan"), (PickedBy.GLOBAL, "kept by the global scan"))
        if scan in scans
    ]
    if scans - {PickedBy.LOCAL, PickedBy.GLOBAL, PickedBy.ALL}:
        signs.append(_sign(PickedBy.RANDOM, "kept otherwise", width))
    if any(view.newlines for band in shown.bands for scene in band.scenes for view in scene.views):
        signs.append(_text("-  end of a row (no patch)", width, _SMALL))
    if any(view.hides for band in shown.bands for scene in band.scenes for view in scene.views):
        signs.append(_text("///  shown by no patch", width, _SMALL))
    return _stacked([_text("Stage 1, in the encoder", width, _SMALL), *signs], width)


def _sign(scan: PickedBy, words: str, width: int) -> Image.Image:
    text = _text(words, width - 2 * _SIGN, _SMALL)
    line = Image.new("RGB", (width, max(text.height, _SIGN + 4)), drawing.PAPER)
    canvas = drawing.Canvas(Image.new("RGB", (_SIGN * 2, _SIGN * 2), drawing.PAPER), WHOLE)
    drawing.outline(canvas, canvas.box(WHOLE), scan)
    line.paste(canvas.image.reduce(2), (0, 2))
    line.paste(text, (_SIGN + 8, 0))
    return line


def _title(shown: Shown, band: Band, width: int) -> Iterator[_Block]:
    if len(shown.bands) > 1 or band.note or band.is_video:
        yield _line(f"{band.title}. {band.note}" if band.note else band.title, width, _LARGE)


def _original(shown: Shown, band: Band, side: int) -> Image.Image:
    before = shown.columns[0].answer.images[band.visual].tokens_before
    return _captioned(panel_of(band, 0, drawing.plain, side), f"{shown.names[band.visual]}, {before} tokens", side)


def _strip(shown: Shown, band: Band, lefts: Sequence[int], side: int) -> Iterator[_Block]:
    """The stages of one budget beside each other."""
    kept, merged, *past = band.texts(shown.columns[0], 0)
    stages: list[tuple[drawing.Paint, str]] = [(drawing.kept, kept)]
    if band.is_merged:
        stages.append((drawing.merged, f"{merged}. {_MERGED}"))
    for place, (layer, text) in enumerate(zip(shown.layers, past, strict=True)):
        stages.append((drawing.past_layer(place), f"{text}. {_PRUNED.format(layer=layer)}"))
    panels = [_captioned(panel_of(band, 0, paint, side), text, side) for paint, text in stages]
    yield _Block(tuple(zip(lefts, [_original(shown, band, side), *panels], strict=False)))


def _band(shown: Shown, band: Band, lefts: Sequence[int], side: int) -> Iterator[_Block]:
    """A row for each stage, a column for each budget."""
    everywhere = [True] * len(shown.columns)
    texts = [band.texts(column, number) for number, column in enumerate(shown.columns)]
    yield _row(
        lefts, side, _original(shown, band, side), _panels(band, drawing.kept, side, everywhere), [text[0] for text in texts]
    )
    if band.is_merged:
        yield _row(
            lefts, side, _words(_MERGED, side), _panels(band, drawing.merged, side, everywhere), [text[1] for text in texts]
        )
    for place, layer in enumerate(shown.layers):
        reached = [place < len(column.answer.pruning) for column in shown.columns]
        panels = _panels(band, drawing.past_layer(place), side, reached)
        captions = [text[2 + place] if there else "nothing was pruned here" for text, there in zip(texts, reached, strict=True)]
        yield _row(lefts, side, _words(_PRUNED.format(layer=layer), side), panels, captions)


def _panels(band: Band, paint: drawing.Paint, side: int, wanted: Sequence[bool]) -> list[Image.Image | None]:
    return [panel_of(band, number, paint, side) if there else None for number, there in enumerate(wanted)]


def _row(
    lefts: Sequence[int], side: int, first: Image.Image, panels: Sequence[Image.Image | None], captions: Sequence[str]
) -> _Block:
    parts = [(lefts[0], first)]
    for left, panel, caption in zip(lefts[1:], panels, captions, strict=True):
        parts.append((left, _words(caption, side) if panel is None else _captioned(panel, caption, side)))
    return _Block(tuple(parts))


def _words(text: str, width: int) -> Image.Image:
    return _text(text, width, _TEXT, lines=8)


def _captioned(panel: Image.Image, caption: str, width: int) -> Image.Image:
    return _stacked([panel, _text(caption, width, _SMALL, lines=6)], width)


def _stacked(parts: Sequence[Image.Image], width: int) -> Image.Image:
    image = Image.new("RGB", (width, sum(part.height + 4 for part in parts)), drawing.PAPER)
    top = 0
    for part in parts:
        image.paste(part, (0, top))
        top += part.height + 4
    return image


def _line(text: str, width: int, size: int) -> _Block:
    return _Block(((_MARGIN, _text(text, width, size, lines=4)),))


def _text(text: str, width: int, size: int, lines: int = 2) -> Image.Image:
    """Text on paper, broken between words; what takes more than `lines` is cut."""
    text = " ".join(text.translate(_PLAIN).split())
    font = font_for(text, size)
    shown = _broken(text, width, font)
    if len(shown) > lines:
        shown = [*shown[: lines - 1], f"{shown[lines - 1][:-1]}…"]
    image = Image.new("RGB", (width, max(1, len(shown)) * (size + 5)), drawing.PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(shown):
        draw.text((0, number * (size + 5)), line, fill=drawing.INK, font=font)
    return image


def _broken(text: str, width: int, font: Font) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        while font.getlength(word) > width and len(word) > 1:
            fits = max(1, next(n for n in range(len(word), 0, -1) if n == 1 or font.getlength(word[:n]) <= width))
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines
