"""One panel of the page: a picture, and over it an SVG with what was kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from PIL import Image

from vscan_client.answer import Area, PickedBy
from vscan_client.show.geometry import WHOLE, Mark, View, patch_of
from vscan_client.show.stages import Scene

_SIDE = 480  # of the longer side, in the SVG's own pixels
_SIGNS = {PickedBy.LOCAL: "local", PickedBy.GLOBAL: "global"}
_SCAN_WORDS = {PickedBy.LOCAL: "the local scan", PickedBy.GLOBAL: "the global scan", PickedBy.RANDOM: "chance"}


def panel(scene: Scene, name: str, column: int, alt: str, layer: int | None) -> str:
    """A view with its signs.

    Args:
        name: of the class whose ground is the picture.
        column: of the budget.
        alt: what stands for it where it is not seen.
        layer: which pruning layer's survivors are shown (0, 1 …); `None`: what the encoder kept.
    """
    frame = _Frame.of(scene.picture, scene.views[column])
    return _drawn(frame, name, alt, "".join((_unseen(frame), *_marks(frame, layer))))


def plain(scene: Scene, name: str, alt: str) -> str:
    """The picture itself, with what no patch shows."""
    frame = _Frame.of(scene.picture, scene.views[0])
    return _drawn(frame, name, alt, _unseen(frame))


def _drawn(frame: _Frame, name: str, alt: str, inside: str) -> str:
    picture = f'<span class="picture {name}" style="{frame.picture_style()}"></span>'
    size = f"0 0 {frame.width:.1f} {frame.height:.1f}"
    return f'<span class="panel">{picture}<svg viewBox="{size}" role="group" aria-label="{escape(alt)}">{inside}</svg></span>'


@dataclass(frozen=True, slots=True)
class _Frame:
    """A view on its panel, which is so many pixels large."""

    view: View
    width: float
    height: float

    @classmethod
    def of(cls, picture: Image.Image, view: View) -> _Frame:
        across = (view.window.right - view.window.left) * picture.width
        down = (view.window.bottom - view.window.top) * picture.height
        scale = _SIDE / max(across, down)
        return cls(view, across * scale, down * scale)

    def box(self, area: Area) -> tuple[float, float, float, float]:
        """Left, top, width and height of a part of the picture, in fractions of the panel."""
        window = self.view.window
        x, y = window.right - window.left, window.bottom - window.top
        return (
            (area.left - window.left) / x,
            (area.top - window.top) / y,
            (area.right - area.left) / x,
            (area.bottom - area.top) / y,
        )

    def picture_style(self) -> str:
        """Where the picture itself lies."""
        return ";".join(
            f"{name}:{part:.4%}" for name, part in zip(("left", "top", "width", "height"), self.box(WHOLE), strict=True)
        )

    def pixels(self, area: Area) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in the panel's pixels."""
        left, top, width, height = self.box(area)
        return left * self.width, top * self.height, (left + width) * self.width, (top + height) * self.height


def _marks(frame: _Frame, layer: int | None) -> Iterator[str]:
    """The veil over all that was dropped, and the signs of what was kept. What was merged is veiled with its token."""
    marks = frame.view.marks
    reached = [mark for mark in marks if layer is None or all(mark.survives[:layer])]
    alive = [mark for mark in reached if layer is None or mark.survives[layer]]
    clear = {(mark.row, mark.column) for mark in alive}
    grouped = {_key(patch) for mark in marks for patch in mark.merged} if layer is None else set()
    veiled = (patch for patch in _patches(frame.view, clear) if _key(patch) not in grouped)
    yield f'<path class="veil" d="{"".join(_path(frame, patch) for patch in veiled)}"/>'
    for mark in reached:
        yield _token(frame, mark, layer)
    ends = (mark for mark in frame.view.newlines if layer is None or all(mark.survives[: layer + 1]))
    yield f'<g class="newline"><path class="sign" d="{"".join(_dash(frame, mark.patch) for mark in ends)}"/></g>'


def _token(frame: _Frame, mark: Mark, layer: int | None) -> str:
    words = f"patch in row {mark.row + 1}, column {mark.column + 1}"
    if layer is not None:
        sign = "survivor" if mark.survives[layer] else "lost"
        words += ": went on" if mark.survives[layer] else ": ended here"
        return f'<g class="{sign}"><title>{words}</title>{sign_of(sign, *frame.pixels(mark.patch))}</g>'
    sign = _SIGNS.get(mark.picked_by, "other")
    words += f", kept by {_SCAN_WORDS.get(mark.picked_by, mark.picked_by.value)}"
    many = len(mark.merged)
    words += (
        f"; {many} {'patch was' if many == 1 else 'patches were'} merged into it" if many else "; nothing was merged into it"
    )
    veil = f'<path class="veil" d="{"".join(_path(frame, patch) for patch in mark.merged)}"/>' if many else ""
    shape = "" if mark.picked_by is PickedBy.ALL else sign_of(sign, *frame.pixels(mark.patch))
    area = f'<path class="area" d="{_path(frame, mark.patch)}"/>'
    return f'<g class="token {sign}" tabindex="0" role="img" aria-label="{words}"><title>{words}</title>{veil}{area}{shape}</g>'


def sign_of(sign: str, left: float, top: float, right: float, bottom: float) -> str:
    """A square, a diamond, a circle or a cross within a patch."""
    x, y = (left + right) / 2, (top + bottom) / 2
    if sign == "global":
        shape = f"M{x:.1f} {top:.1f}L{right:.1f} {y:.1f} {x:.1f} {bottom:.1f} {left:.1f} {y:.1f}Z"
    elif sign == "lost":
        a, b = (right - left) / 4, (bottom - top) / 4
        shape = f"M{x - a:.1f} {y - b:.1f}L{x + a:.1f} {y + b:.1f}M{x - a:.1f} {y + b:.1f}L{x + a:.1f} {y - b:.1f}"
    elif sign == "other":
        size = f"{(right - left) / 2:.1f} {(bottom - top) / 2:.1f} 0 1 0"
        shape = f"M{left:.1f} {y:.1f}A{size} {right:.1f} {y:.1f}A{size} {left:.1f} {y:.1f}Z"
    else:
        shape = f"M{left + 1:.1f} {top + 1:.1f}H{right - 1:.1f}V{bottom - 1:.1f}H{left + 1:.1f}Z"
    return f'<path class="edge" d="{shape}"/><path class="sign" d="{shape}"/>'


def _unseen(frame: _Frame) -> str:
    """A veil with hatches over what of the picture no patch shows."""
    left, top, right, bottom = frame.pixels(WHOLE)
    inner = frame.pixels(frame.view.area)
    a, b, c, d = max(left, inner[0]), max(top, inner[1]), min(right, inner[2]), min(bottom, inner[3])
    if c - a >= right - left - 0.5 and d - b >= bottom - top - 0.5:
        return ""
    outer = f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"
    shape = f'fill-rule="evenodd" d="{outer}M{a:.1f} {b:.1f}H{c:.1f}V{d:.1f}H{a:.1f}Z"'
    return f'<path class="veil" {shape}/><path class="unseen" {shape}/>'


def _patches(view: View, but: set[tuple[int, int]]) -> Iterator[Area]:
    for place in range(view.rows * view.columns):
        if divmod(place, view.columns) not in but:
            yield patch_of(view.area, view.rows, view.columns, place)


def _key(area: Area) -> tuple[float, float]:
    """The same for one patch reckoned in two ways."""
    return round(area.left, 6), round(area.top, 6)


def _path(frame: _Frame, area: Area) -> str:
    left, top, right, bottom = frame.pixels(area)
    return f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"


def _dash(frame: _Frame, area: Area) -> str:
    left, top, right, bottom = frame.pixels(area)
    return f"M{left + (right - left) / 4:.1f} {(top + bottom) / 2:.1f}H{right - (right - left) / 4:.1f}"
