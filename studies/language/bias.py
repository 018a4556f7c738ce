"""Where pruning keeps tokens: over many prompts, the map of kept places and its centre of mass, by layer and rater."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from decoder_service.request import Prompt
from studies.language.picture import PictureMap, TilePart, places_of, tile_parts
from studies.language.retained import Retained
from studies.language.spread import Spread
from vscan.specs import Rater


@dataclass(frozen=True, slots=True, eq=False)
class Centre:
    """Of some of a prompt's visual tokens: where they stand on average."""

    row: float  # fraction of the picture's height, 0 its upper edge
    column: float  # fraction of its width
    row_deviation: float  # standard deviation of the tokens' rows, as a fraction; 0.289 where all places are equally full
    column_deviation: float
    raster: float  # mean place among the prompt's visual tokens, 0 the first, 1 the last


@dataclass(frozen=True, slots=True, eq=False)
class LayerBias:
    """Pruning before `layer` by `rater`."""

    layer: int
    rater: Rater
    row: Spread
    column: Spread
    row_deviation: float  # mean over prompts
    column_deviation: float
    raster: Spread
    map: np.ndarray  # [rows, columns]: share of tiles in which the token there is kept
    unevenness: float  # against the candidates, see `unevenness`
    chance: float  # what is to be expected of it if tokens were drawn at random


@dataclass(frozen=True, slots=True, eq=False)
class PositionBias:
    """The whole study. `candidates` is where the tokens stand that the encoder handed over: the middle if it kept all."""

    layers: tuple[LayerBias, ...]
    candidates: LayerBias
    prompts: int

    def of(self, rater: Rater) -> list[LayerBias]:
        """One rater's, by layer."""
        return [bias for bias in self.layers if bias.rater is rater]


class BiasCounter:
    """Gathers prompts; holds sums, and three numbers a prompt, layer and rater."""

    def __init__(self) -> None:
        self._centres: dict[tuple[int, Rater], list[Centre]] = {}
        self._maps: dict[tuple[int, Rater], PictureMap] = {}
        self._groups: list[str] = []

    def add(self, prompt: Prompt, kept: Iterable[Retained], group: str) -> None:
        """One prompt; those of one `group` (its picture) are not independent of each other."""
        parts = tile_parts(prompt.images)
        tokens = prompt.visual_rows
        every = Retained(_CANDIDATES[0], _CANDIDATES[1], torch.arange(tokens))
        for one in (every, *kept):
            key = (one.layer, one.rater)
            self._maps.setdefault(key, PictureMap()).add(parts, one.tokens)
            self._centres.setdefault(key, []).append(centre_of(parts, one.tokens, tokens))
        self._groups.append(group)

    def result(self) -> PositionBias:
        """What was gathered."""
        made = [self._bias(*key) for key in sorted(self._centres, key=lambda key: (key[0], list(Rater).index(key[1])))]
        return PositionBias(tuple(made[1:]), made[0], len(self._groups))

    def _bias(self, layer: int, rater: Rater) -> LayerBias:
        centres, shares = self._centres[layer, rater], self._maps[layer, rater].shares()
        candidates = self._maps[_CANDIDATES].shares()
        tiles = sum(self._maps[layer, rater].tiles.values())

        def spread(values: Sequence[float]) -> Spread:
            return Spread.of(values, self._groups)

        return LayerBias(
            layer=layer,
            rater=rater,
            row=spread([centre.row for centre in centres]),
            column=spread([centre.column for centre in centres]),
            row_deviation=float(np.mean([centre.row_deviation for centre in centres])),
            column_deviation=float(np.mean([centre.column_deviation for centre in centres])),
            raster=spread([centre.raster for centre in centres]),
            map=shares,
            unevenness=unevenness(shares, candidates),
            chance=chance_unevenness(candidates, float(shares.sum() / candidates.sum()), tiles),
        )


# Sorts before every layer.
_CANDIDATES = (-1, Rater.NONE)


def centre_of(parts: Sequence[TilePart], chosen: torch.Tensor, tokens: int) -> Centre:
    """The centre of mass of `chosen` [n] among a prompt's `tokens` visual tokens. NaN where none stands in the picture.

    A picture of 2 x 4, tokens 2 and 7 kept: rows 1/4 3/4, columns 5/8 7/8; centre 0.5, 0.75; raster (2/7 + 7/7) / 2
    """
    places = places_of(parts, tokens)[chosen.numpy()]
    shown = places[~np.isnan(places[:, 0])]
    row, column = shown.mean(axis=0) if len(shown) else (float("nan"),) * 2
    row_deviation, column_deviation = shown.std(axis=0) if len(shown) else (float("nan"),) * 2
    raster = float(chosen.double().mean()) / max(1, tokens - 1)
    return Centre(float(row), float(column), float(row_deviation), float(column_deviation), raster)


def unevenness(kept: np.ndarray, candidates: np.ndarray) -> float:
    """The share of what is kept that would have to stand elsewhere to be spread over the picture as the candidates are.

    A map of .5 .1 .1 .1, candidates everywhere: even would be .2 at each place, .3 of .8 is in excess at one: 0.375
    """
    return float(np.abs(kept / kept.sum() - candidates / candidates.sum()).sum() / 2)


def chance_unevenness(candidates: np.ndarray, share: float, tiles: int) -> float:
    """What `unevenness` comes to on average where each candidate of each tile is kept with the same chance `share`.

    The mean deviation of a normal variable is sqrt(2 / pi) of its standard deviation, here that of a mean of `tiles` draws.
    """
    deviations = np.sqrt(2 / np.pi * candidates * share * (1 - share) / tiles)
    return float(deviations.sum() / 2 / (share * candidates.sum()))
