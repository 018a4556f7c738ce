"""One picture per image: what each scan kept, and what survived the pruning inside the language model for one question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vscan_client import ImageReport, PickedBy

_PANEL_PX = 384
_CAPTION_PX = 46
_GAP_PX = 12
_BACKGROUND = (250, 250, 247)
_INK = (30, 30, 30)
_COLOURS = {PickedBy.LOCAL: (0, 114, 178), PickedBy.GLOBAL: (213, 94, 0)}  # told apart by colour-blind readers
_SURVIVOR = (0, 158, 115)


def write_picture(
    path: Path, picture: Image.Image, image: ImageReport, survivors: Sequence[int], question: str, answer: str
) -> None:
    """Three panels, left to right: the picture, stage 1, stage 2.

    Args:
        image: the answer's report of this image, with its kept places (`report_kept=True`), one tile.
        survivors: rows of the kept tokens that went on past the last pruning layer.
    """
    kept = image.kept
    if kept is None or len(kept.tiles) != 1:
        raise ValueError("a picture is drawn of one tile whose kept places were reported")
    places = kept.kept_indices
    scans = {place: _COLOURS[scan] for place, scan in zip(places, kept.picked_by, strict=True) if scan in _COLOURS}
    last = {places[row]: _SURVIVOR for row in survivors}
    grid = (kept.tiles[0].rows, kept.tiles[0].columns)
    local = sum(1 for scan in kept.picked_by if scan == PickedBy.LOCAL)
    panels = [
        (_panel(picture, grid, None), f"{image.tokens_before} visual tokens"),
        (_panel(picture, grid, scans), f"{len(places)} kept: {local} local (blue), {len(places) - local} global (orange)"),
        (_panel(picture, grid, last), f"{len(last)} past the pruning layer, for:\n{question}  Answer: {answer}"),
    ]
    _join(panels).save(path)


def _panel(picture: Image.Image, grid: tuple[int, int], marks: Mapping[int, tuple[int, int, int]] | None) -> Image.Image:
    """The picture, enlarged; patches without a mark are greyed out, marked ones framed."""
    panel = picture.convert("RGB").resize((_PANEL_PX, _PANEL_PX), Image.Resampling.NEAREST)
    if marks is None:
        return panel
    faded = Image.blend(panel.convert("L").convert("RGB"), Image.new("RGB", panel.size, _BACKGROUND), 0.7)
    draw = ImageDraw.Draw(faded)
    for place, colour in marks.items():
        box = _patch_box(place, grid)
        faded.paste(panel.crop(box), box[:2])
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=colour, width=3)
    return faded


def _patch_box(place: int, grid: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels (left, top, right, bottom) of the patch at a row-major place."""
    rows, columns = grid
    row, column = divmod(place, columns)
    return (
        column * _PANEL_PX // columns,
        row * _PANEL_PX // rows,
        (column + 1) * _PANEL_PX // columns,
        (row + 1) * _PANEL_PX // rows,
    )


def _join(panels: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    width = len(panels) * (_PANEL_PX + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (width, _PANEL_PX + _CAPTION_PX + 2 * _GAP_PX), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for index, (panel, caption) in enumerate(panels):
        left = _GAP_PX + index * (_PANEL_PX + _GAP_PX)
        sheet.paste(panel, (left, _GAP_PX))
        draw.multiline_text((left, _PANEL_PX + _GAP_PX + 6), caption, fill=_INK, font=font)
    return sheet
