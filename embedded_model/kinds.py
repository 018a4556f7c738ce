"""What each patch of a scene shows: an object, a letter, a distractor or bare ground."""

from __future__ import annotations

import numpy as np

from embedded_model.scenes import MAX_THINGS, Scene

KINDS = ("objects", "letters", "distractors", "ground")


def kinds_of(scene: Scene) -> np.ndarray:
    """The index in KINDS of each patch, [12, 12]."""
    free = np.where(scene.distracts, KINDS.index("distractors"), KINDS.index("ground"))
    taken = np.where(scene.owner < MAX_THINGS, KINDS.index("objects"), KINDS.index("letters"))
    return np.where(scene.owner >= 0, taken, free)
