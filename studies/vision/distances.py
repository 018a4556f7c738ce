"""How far each layer looks: the mean distance that attention spans, and what stays near or goes to [CLS]."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from encoder_service.reduction.budget import Grid
from encoder_service.vision.base import Attending
from studies.inputs import Picture
from studies.study import Table, Task
from studies.vision.attending import Reach, has_class, reach, uniform_reach
from studies.vision_half import VisionHalf


@dataclass(slots=True, eq=False)
class Distances:
    """How far each layer looks, by head, over all tiles: sums over patches."""

    has_class: bool = False
    patches: int = 0
    uniform: np.ndarray = field(default_factory=lambda: np.zeros(2))  # if all patches looked at all alike: as the next, [2]
    _layers: dict[int, np.ndarray] = field(default_factory=dict)  # each [3, heads]: as the fields of Reach

    def add_tile(self, grid: Grid, window: int) -> None:
        """One more tile is looked at."""
        self.patches += grid.tokens
        self.uniform = self.uniform + grid.tokens * np.array(uniform_reach(grid, window))

    def add(self, layer: int, sums: Reach) -> None:
        """What some patches of it do in one layer."""
        whole = torch.stack([sums.distance_patches, sums.in_window, sums.to_class]).numpy()
        self._layers[layer] = self._layers.get(layer, 0) + whole

    @property
    def uniform_patches(self) -> float:
        """The mean distance if every patch looked at all alike."""
        return float(self.uniform[0]) / self.patches

    @property
    def uniform_in_window(self) -> float:
        """The share in the window if every patch looked at all alike."""
        return float(self.uniform[1]) / self.patches

    @property
    def by_head(self) -> np.ndarray:
        """Mean distance in patches, [layers, heads]."""
        return self._of(0)

    @property
    def in_window(self) -> np.ndarray:
        """The share that stays in the window of the local scan, [layers, heads]."""
        return self._of(1)

    @property
    def to_class(self) -> np.ndarray:
        """The share that goes to [CLS], [layers, heads]."""
        return self._of(2)

    def table(self) -> Table:
        """A row for each layer."""
        columns: dict[str, np.ndarray] = {
            "distance_patches": self.by_head.mean(axis=1),
            "nearest_head_patches": self.by_head.min(axis=1),
            "lower_quartile_head_patches": np.quantile(self.by_head, 0.25, axis=1),
            "upper_quartile_head_patches": np.quantile(self.by_head, 0.75, axis=1),
            "farthest_head_patches": self.by_head.max(axis=1),
            "uniform_attention_patches": np.full(len(self._layers), self.uniform_patches),
            "in_window_percent": 100 * self.in_window.mean(axis=1),
        }
        if self.has_class:
            columns["to_cls_percent"] = 100 * self.to_class.mean(axis=1)
        rows = [(layer, *map(float, values)) for layer, values in enumerate(zip(*columns.values(), strict=True))]
        return Table(("layer", *columns), rows)

    def _of(self, kind: int) -> np.ndarray:
        return np.stack([self._layers[layer][kind] for layer in sorted(self._layers)]) / self.patches


def measure(task: Task) -> Distances:
    """How far the layers look, over all tiles of all images and videos."""
    found = Distances()
    for picture in task.inputs.pictures:
        measure_one(task.model.vision, picture, found)
        task.advance()
    return found


def measure_one(vision: VisionHalf, picture: Picture, found: Distances) -> None:
    """Adds an image or video to `found`. Raises InvalidArgument."""
    seen = vision.see(picture)
    window = vision.model.scan.window * vision.model.patches_per_side

    def show(attending: Attending) -> None:
        found.has_class = has_class(attending)
        found.add(attending.layer, reach(attending, seen.patches[attending.tile], window))

    for grid in seen.patches:
        found.add_tile(grid, window)
    vision.observe(seen, show)
