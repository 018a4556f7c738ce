"""Pictures of what a model was shown: which patches of an image or video were kept, merged and pruned for a question.

    answer = client.ask("photo.jpg", "What colour is the car?", report_kept=True)
    pictures(answer, "photo.jpg").save("shown.png")
    Path("shown.html").write_text(html(answer, "photo.jpg"), encoding="utf-8")

`geometry` and `facts` need nothing but the SDK; drawing needs Pillow, and PyAV for video files: the extra `show`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vscan_client.answer import Answer
from vscan_client.content import VisualLike, as_visuals
from vscan_client.show.facts import Column, facts
from vscan_client.show.geometry import Mark, View, patch_of, views_of

if TYPE_CHECKING:
    from PIL import Image

    from vscan_client.show.stages import Shown

__all__ = ["Column", "Mark", "View", "facts", "html", "patch_of", "pictures", "views_of"]


def pictures(
    answers: Answer | Mapping[str, Answer], visuals: VisualLike | Sequence[VisualLike], question: str = ""
) -> Image.Image:
    """One image, to be saved: a column for each answer, a row of panels for each stage.

    Args:
        answers: asked with `report_kept=True`; several, to the same question, by the names of their budgets.
        visuals: the images and videos that were asked about, with their files.

    Raises:
        InvalidArgument: they do not fit each other, or a file cannot be drawn on.
    """
    from vscan_client.show.sheet import sheet

    return sheet(_shown(answers, visuals, question))


def html(answers: Answer | Mapping[str, Answer], visuals: VisualLike | Sequence[VisualLike], question: str = "") -> str:
    """The same as a page that needs no other file. Raises InvalidArgument as `pictures` does."""
    from vscan_client.show.page import page

    return page(_shown(answers, visuals, question))


def _shown(answers: Answer | Mapping[str, Answer], visuals: VisualLike | Sequence[VisualLike], question: str) -> Shown:
    from vscan_client.show.stages import shown

    named = {"as asked": answers} if isinstance(answers, Answer) else answers
    given = as_visuals(visuals)
    names = [f"{type(visual).__name__.lower()} {number}" for number, visual in enumerate(given, 1)]
    return shown([Column(*each) for each in named.items()], given, names, question)
