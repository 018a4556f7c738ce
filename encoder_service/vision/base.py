"""What a family must implement to be served."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import compress, repeat
from typing import Any

import torch
from PIL import Image

from encoder_service.reduction.budget import Grid, WindowShare
from encoder_service.reduction.reduce import ReducedTiles, Scores
from vscan.errors import InvalidArgument, StartupError
from vscan.packed_linear import faster_packed, packed
from vscan.specs import FrameCount, FrameSampling
from vscan.visual_tokens import Area, SampledFrames, Tile, VisualTokens

# A tile of 24 x 24 tokens, as CLIP ViT-L/14-336 has it.
_TILE_TOKENS = 576


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """Where the scans look. Layers are counted from 0, the window's side in tokens."""

    shallow_layer: int
    deep_layer: int
    window: int
    share: WindowShare = WindowShare.EQUAL
    skip_padding: bool = True  # whether tokens of padding are left out of scans and merges


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """An image or video as its model wants it, on the CPU. A family may add what it needs to put the tiles together."""

    pixels: torch.Tensor  # in the family's own form
    grids: tuple[Grid, ...]  # one for each tile
    # For each tile which of its tokens are not padding, [N], bool; None for a tile, or for all of them, that has none.
    valid: tuple[torch.Tensor | None, ...] | None = None
    # For each tile whether budgets count it; the others are kept whole. None: all are counted.
    counted: tuple[bool, ...] | None = None
    frames: SampledFrames | None = None  # None: an image
    # For each tile of the value that `assemble` makes the part of the picture that its grid lies on, or None; empty: not known.
    areas: tuple[Area | None, ...] = ()

    @property
    def looked_at(self) -> tuple[Grid, ...]:
        """The tiles that the transformer is given."""
        return tuple(compress(self.grids, self.counted or repeat(True)))


@dataclass(frozen=True, slots=True, eq=False)
class Attending:
    """Rows of a tile that attend to each other in one layer: all of it, or a window.

    Patches of a tile are counted row by row. Where a token is made of several of them, its patches lie in a square.
    """

    layer: int  # counted from 0
    tile: int  # of those that the transformer is given
    places: torch.Tensor  # [rows], int64, on the CPU: which patch each row is; CLASS_ROW for the [CLS] token
    query: torch.Tensor  # [heads, rows, head_dim]
    key: torch.Tensor  # the same
    scaling: float


CLASS_ROW = -1


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the vision transformer made of tiles: a row for each token, tile after tile.

    rows    0 0 0 0 0 0 1 1 1 1 2 2 2 2 2 2        tiles of 2 x 3, 2 x 2 and 3 x 2 tokens
    """

    features: torch.Tensor  # [rows, vision hidden], as the projector reads them
    scores: Scores  # [rows]

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """Parts after each other."""
        scores = Scores(torch.cat([part.scores.shallow for part in parts]), torch.cat([part.scores.deep for part in parts]))
        return cls(torch.cat([part.features for part in parts]), scores)


class VisionModel(ABC):
    """A loaded vision half: transformer, projector and preprocessing. The tensors belong to the device's thread."""

    family: str
    grid: Grid  # of a tile; the largest where tiles vary
    hidden_size: int  # of a visual token: the language model's
    dtype: torch.dtype
    device: torch.device
    scan: ScanSettings
    layer_rows: int = _TILE_TOKENS  # that a layer is given of a usual tile
    frame_sampling: FrameSampling | None = None  # of a video, where a request does not say; None: takes no videos
    video_max_tokens: int | None = None  # of a video, unreduced; None: as many as come
    patches_per_side: int = 1  # of a token
    # The shape of a tile's pixels, where all tiles of images have one and `look` never waits for the device: such a pass can
    # be recorded.
    tile_pixels: tuple[int, ...] | None = None

    @abstractmethod
    def preprocess(self, image: Image.Image) -> PreparedImage:
        """Resizes, cuts and normalises an RGB image. Safe to call from several threads."""

    def frames_of(self, duration_seconds: Fraction, available: int, sampling: FrameSampling, max_frames: int) -> int:
        """How many frames to take of a video that has `available`: at least one, at most `max_frames`, none twice."""
        return max(1, min(frames_asked(duration_seconds, sampling), available, max_frames))

    def preprocess_video(self, frames: Iterable[Image.Image], sampled: SampledFrames) -> PreparedImage:
        """The same for the RGB frames of a video, all of one size, taken one by one; `sampled` says when each comes."""
        raise InvalidArgument("video", f"{self.family} takes no videos")

    def check_video_tokens(self, tokens: int, frames: int) -> None:
        """Raises InvalidArgument where they are too many; to be called before all frames are pixels."""
        most = self.video_max_tokens
        if most is not None and tokens > most:
            raise InvalidArgument("video", f"{tokens:,} tokens of {frames} frames", limit=f"{most:,} tokens")

    @abstractmethod
    def look(self, images: Sequence[PreparedImage], max_tiles: int | None = None) -> Seen:
        """Runs the transformer over the tiles of all images, up to the feature layer, and no further.

        All at once, or about `max_tiles` at a time, so that what a pass holds does not grow with a video's length.
        """

    @abstractmethod
    def observe(self, image: PreparedImage, see: Callable[[Attending], None]) -> None:
        """Runs the transformer over one image as `look` does, and shows how every layer attends, as it is run.

        What is shown is of use only until `see` returns: layers to come overwrite it.
        """

    @abstractmethod
    def pictures(self, image: PreparedImage) -> list[Image.Image]:
        """What the transformer is given of each tile, as a picture: resized and cut. Of tiles of several frames the first."""

    @abstractmethod
    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features to visual tokens, [rows, vision hidden] → [rows, hidden_size]."""

    def assemble(self, image: PreparedImage, tiles: Sequence[ReducedTiles]) -> VisualTokens:
        """One image's tiles, each a batch of one on the CPU, as the language model receives them: here after each other."""
        return in_order(image.grids, tiles, image.frames, image.areas)

    @abstractmethod
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """What of the model has layers, by a name that does not change between checkpoint layouts."""

    def named_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every weight that the visual tokens depend on, by such a name. Of layers that are packed they are copies."""
        for part, module in self.modules().items():
            yield from ((f"{part}.{name}", tensor) for name, tensor in module.state_dict().items())

    def pack(self) -> None:
        """Packs linear layers that are faster so, on a CPU. `named_tensors` says the same as before, in twice the memory."""
        worth = faster_packed(self.layer_rows)
        for module in self.modules().values():
            packed(module, worth)

    def compile(self, backend: str = "inductor") -> None:
        """Has the transformer's layers compiled (torch.compile), for any number of tiles, and runs them once.

        Raises StartupError: they cannot be.
        """
        raise StartupError(
            f"compile: {self.family} is not compiled: its tiles, and how its layers attend, differ from pass to pass"
        )

    @abstractmethod
    def configuration(self) -> Mapping[str, Any]:
        """Whatever else the visual tokens depend on, preprocessing included, in plain JSON values."""


def as_picture(pixels: torch.Tensor, processor: Any) -> Image.Image:
    """What an image processor of transformers normalised, [3, height, width], as it was before."""
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (processor.image_mean, processor.image_std))
    levels = (pixels.float() * deviation + mean) * 255
    return Image.fromarray(levels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def frames_asked(duration_seconds: Fraction, sampling: FrameSampling) -> int:
    """What a sampling asks for, rounded down. A rate is the decimal that it is written as: 10 seconds at 0.3 are 3 frames."""
    if isinstance(sampling, FrameCount):
        return sampling.count
    return math.floor(duration_seconds * Fraction(repr(float(sampling.per_second))))


def tiles_worth(grid: Grid) -> int:
    """For how many tiles one counts: a large one for as many as would have its tokens."""
    return -(-grid.tokens // _TILE_TOKENS)


def in_order(
    grids: Sequence[Grid],
    tiles: Sequence[ReducedTiles],
    frames: SampledFrames | None = None,
    areas: Sequence[Area | None] = (),
) -> VisualTokens:
    """Tiles after each other. Indices of later tiles are moved behind those of earlier ones:

    kept of two tiles of 6, T = 2      1 5 | 0 3     →    1 5 6 9
    merged into                  0 0 1 0 1 1 | ...   →    0 0 1 0 1 1 | 2 ...
    """
    kept, merged, first_token, first_row = [], [], 0, 0
    for grid, tile in zip(grids, tiles, strict=True):
        kept.append(tile.kept[0] + first_token)
        if tile.merged_into is not None:
            merged.append(tile.merged_into[0] + first_row)
        first_token += grid.tokens
        first_row += tile.kept.shape[1]
    return VisualTokens(
        tokens=torch.cat([tile.tokens[0] for tile in tiles]),  # a copy: a view would keep the whole batch in memory
        kept_indices=torch.cat(kept),
        picked_by=torch.cat([tile.picked_by[0] for tile in tiles]),
        merged_into=torch.cat(merged) if len(merged) == len(tiles) else None,
        tiles=tuple(
            Tile(grid.rows, grid.columns, tile.kept.shape[1], area)
            for grid, tile, area in zip(grids, tiles, areas or [None] * len(grids), strict=True)
        ),
        unreduced_count=first_token,
        frames=frames,
    )


@dataclass(frozen=True, slots=True)
class Family:
    """One file of this package: the `model_type` of config.json, and how to load its vision half.

    `load(checkpoint, dtype=…, device=…, shallow_layer=…, window=…, skip_padding=…, video_max_tokens=…)` raises CheckpointError
    when the half is missing or of a kind that is not served, and StartupError when the layer or the window does not fit; a
    layer or window of `None` means the family's default.
    """

    model_type: str
    load: Callable[..., VisionModel]
