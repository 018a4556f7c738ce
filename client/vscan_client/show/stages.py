"""What is drawn of a question at one or several budgets, in order: the rows of the picture and of the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from vscan.errors import InvalidArgument
from vscan_client.content import Visual
from vscan_client.show.facts import Column, band_texts, place_text
from vscan_client.show.geometry import View, views_of
from vscan_client.show.sources import pictures_of

# Of a longer video so many frames are drawn, spread evenly.
MAX_FRAMES = 24


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture that the model was shown, and for each budget what was kept of it."""

    picture: Image.Image
    place: str
    views: tuple[View, ...]  # one for each column


@dataclass(frozen=True, slots=True)
class Band:
    """Scenes that are drawn as one: a tile of an image, or all frames of a video."""

    title: str
    visual: int
    scenes: tuple[Scene, ...]
    note: str = ""

    def texts(self, column: Column, place: int) -> list[str]:
        """What is said of it at the budget of column number `place`: kept, merged, and past each pruning layer."""
        views = [scene.views[place] for scene in self.scenes]
        return band_texts(views, column.answer.images[self.visual], column.answer.pruning, self.visual)

    @property
    def is_merged(self) -> bool:
        """Whether anything was merged at any budget."""
        return any(mark.merged for scene in self.scenes for view in scene.views for mark in view.marks)

    @property
    def is_video(self) -> bool:
        """Whether its scenes are frames."""
        return self.scenes[0].views[0].frame is not None


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is drawn."""

    question: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    bands: tuple[Band, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The pruning layers of the budget that has most of them."""
        return max((tuple(layer.layer for layer in column.answer.pruning) for column in self.columns), key=len)


def shown(columns: Sequence[Column], visuals: Sequence[Visual], names: Sequence[str], question: str) -> Shown:
    """Puts answers and pictures together.

    Args:
        columns: answers to one question about the same images and videos, asked with `report_kept=True`.
        visuals: those, with their files.
        names: what they are called.

    Raises:
        InvalidArgument: they do not fit each other, or a file cannot be drawn on.
    """
    if not columns:
        raise InvalidArgument("answers", "none")
    for column in columns:
        if len(column.answer.images) != len(visuals):
            raise InvalidArgument("answers", f"about {len(column.answer.images)} images", limit=f"{len(visuals)}, as are given")
    bands = (band for index in range(len(visuals)) for band in _bands(columns, visuals[index], names[index], index))
    return Shown(question, tuple(names), tuple(columns), tuple(bands))


def _bands(columns: Sequence[Column], visual: Visual, name: str, index: int) -> Iterator[Band]:
    reports = [column.answer.images[index] for column in columns]
    pictures = pictures_of(visual, reports[0])
    by_column = [views_of(report, column.answer.pruning, index) for report, column in zip(reports, columns, strict=True)]
    if len({tuple((view.tile, view.frame) for view in views) for views in by_column}) > 1:
        raise InvalidArgument("answers", f"{name}: cut into other tiles or frames at one budget than at another")
    if not by_column[0] or not pictures:
        raise InvalidArgument("answers", f"{name}: no tile or frame to be drawn is reported")
    scenes = []
    for views in zip(*by_column, strict=True):
        picture = pictures[min(views[0].frame or 0, len(pictures) - 1)]
        scenes.append(Scene(picture, place_text(views[0], reports[0]), views))
    if reports[0].frames is None:
        for scene in scenes:
            yield Band(f"{name}: {scene.place}" if scene.place else name, index, (scene,), _note(scene))
        return
    chosen = [scenes[place * len(scenes) // MAX_FRAMES] for place in range(MAX_FRAMES)] if len(scenes) > MAX_FRAMES else scenes
    title = f"{name}: {len(scenes)} frames" + (f", of which {MAX_FRAMES} are drawn" if chosen is not scenes else "")
    yield Band(title, index, tuple(chosen), _note(chosen[0]))


def _note(scene: Scene) -> str:
    if all(view.is_stated for view in scene.views):
        return ""
    return "The server does not say where the patches lie on the picture; they are drawn as if they covered all of it."
