"""Qwen2.5-VL: a vision transformer of any resolution, most of its blocks in windows; a merger makes 2 x 2 patches a token.

A patch is a square of two frames. Of a video two frames make a tile, which sees nothing of the others; of an image both are it.

Grids count tokens. The patches of a token lie together, in the processor's order:

    patches of 2 x 2 tokens     0  1 |  4  5
                                2  3 |  6  7
                                8  9 | 12 13
                               10 11 | 14 15
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import torch
from PIL import Image
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from encoder_service.reduction.budget import Grid, WindowShare
from encoder_service.reduction.reduce import Scores
from encoder_service.vision.areas import WHOLE
from encoder_service.vision.attention import Watch
from encoder_service.vision.base import (
    Attending,
    Family,
    PreparedImage,
    ScanSettings,
    Seen,
    VisionModel,
    as_picture,
    tiles_worth,
)
from encoder_service.vision.frame_processor import load_frame_processor, stated_sampling
from encoder_service.vision.packed_attention import PACKED_ATTENTION, PackedSequences, received_scores
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError, InvalidArgument, StartupError
from vscan.specs import FrameCount, FrameRate, FrameSampling
from vscan.transfer import to_device
from vscan.visual_tokens import SampledFrames

_VISION_KEYS = {r"^(model\.)?visual\.": ""}
_PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2_5_VLImageProcessor")
_TOWER_CONFIGURATION = (
    "depth",
    "fullatt_block_indexes",
    "hidden_act",
    "num_heads",
    "patch_size",
    "rope_parameters",
    "spatial_merge_size",
    "temporal_patch_size",
    "window_size",
)
_WINDOW = 4
# transformers' own, where a checkpoint states nothing else of videos.
_VIDEO_DEFAULTS = {"size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28}, "min_frames": 4}


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the rows of one pass lie: window after window, so that every sequence of every block is one run of rows."""

    order: torch.Tensor  # [tokens], int64: the token that stands at each place
    windows: PackedSequences
    tiles: PackedSequences
    places: torch.Tensor  # [patches, 2], int64: row and column in its tile of the patch that stands at each place
    rope: tuple[torch.Tensor, torch.Tensor]  # [patches, head_dim]


class QwenVision(VisionModel):
    """The vision half of Qwen2.5-VL. What a patch receives of attention is its score (VScan, arXiv 2505.22654, as released)."""

    family = "qwen2_5_vl"
    frame_sampling: FrameSampling = FrameRate(2.0)

    def __init__(
        self, tower: Any, processor: Any, frame_processor: Any, *, scan: ScanSettings, video_max_tokens: int | None
    ) -> None:
        self.scan = scan
        self.video_max_tokens = video_max_tokens
        self.hidden_size: int = tower.config.out_hidden_size
        self.dtype: torch.dtype = tower.dtype
        self.device: torch.device = tower.device
        self.grid = _largest_grid(processor)
        self._tower = tower
        self._processor = processor
        self._frame_processor = frame_processor
        self.frame_sampling = stated_sampling(frame_processor) or self.frame_sampling
        self._merge: int = tower.config.spatial_merge_size
        self.patches_per_side = self._merge
        self._moments: int = tower.config.temporal_patch_size
        self._min_frames: int = frame_processor.min_frames
        self._frame_pixels: tuple[int, int] = (frame_processor.size["shortest_edge"], frame_processor.size["longest_edge"])

    def preprocess(self, image: Image.Image) -> PreparedImage:
        """The checkpoint's own image processor, on the CPU; it resizes to whole tokens within the checkpoint's limits."""
        pixels, grid = self._patches(self._processor, image, "image")
        return PreparedImage(pixels, (grid,), areas=(WHOLE,))

    def frames_of(self, duration_seconds: Fraction, available: int, sampling: FrameSampling, max_frames: int) -> int:
        """As transformers does: a rate gives at least 4 frames and an even number of them, where there are so many."""
        count = super().frames_of(duration_seconds, available, sampling, max_frames)
        if isinstance(sampling, FrameCount):
            return count
        count = min(max(count, self._min_frames), available, max_frames)
        return count if count < self._moments else count - count % self._moments

    def preprocess_video(self, frames: Iterable[Image.Image], sampled: SampledFrames) -> PreparedImage:
        """Each frame by itself, as the checkpoint's video processor resizes it; an odd last one stands for two."""
        count = len(sampled.seconds)
        pairs = -(-count // self._moments)
        size = self._frame_size(pairs)
        coming = iter(frames)
        tiles = []
        while together := list(islice(coming, self._moments)):
            tile, grid = self._tile(together, size)
            self.check_video_tokens(pairs * grid.tokens, count)
            tiles.append((tile, grid))
        pixels, grids = zip(*tiles, strict=True)
        return PreparedImage(torch.cat(pixels), grids, frames=sampled, areas=(WHOLE,) * len(grids))

    def look(self, images: Sequence[PreparedImage], max_tiles: int | None = None) -> Seen:
        """Every block runs fused attention, in windows or over whole tiles; two of them show their queries and keys."""
        return Seen.joined([self._pass(tiles) for tiles in self._passes(images, max_tiles)])

    @torch.inference_mode()
    def observe(self, image: PreparedImage, see: Callable[[Attending], None]) -> None:
        """Tile by tile; blocks in windows show one window after the other."""
        for tile, (pixels, grid) in enumerate(self._tiles(image)):

            def watch_of(layer: int, layout: _Layout, tile: int = tile, columns: int = self._merge * grid.columns) -> Watch:
                places = (layout.places[:, 0] * columns + layout.places[:, 1]).cpu()

                def watch(query: torch.Tensor, key: torch.Tensor, scaling: float) -> None:
                    for start, end in self._sequences(layer, layout).bounds:
                        together = places[start:end], query[:, start:end], key[:, start:end]
                        see(Attending(layer, tile, *together, scaling))

                return watch

            self._walk([(pixels, grid)], watch_of)

    def pictures(self, image: PreparedImage) -> list[Image.Image]:
        """The tiles, put together of their patches."""
        return [self._picture(pixels, grid) for pixels, grid in self._tiles(image)]

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """The merger: the patches of a token, side by side, to a token."""
        tokens: torch.Tensor = self._tower.merger(features.view(features.shape[0] * self._merge**2, -1))
        return tokens

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Tower and merger, under transformers' names."""
        return {"visual": self._tower}

    def configuration(self) -> Mapping[str, Any]:
        """What the shapes of the tensors do not say."""
        tower = {name: getattr(self._tower.config, name) for name in _TOWER_CONFIGURATION}
        processors = {"preprocessing": self._processor.to_dict(), "video_preprocessing": self._frame_processor.to_dict()}
        return {"tower": tower, **processors, "video_max_tokens": self.video_max_tokens}

    def _frame_size(self, pairs: int) -> dict[str, int]:
        """Least and most pixels of a frame. A video's most pixels are shared equally, so that a longer one has smaller frames.

        As the authors' qwen-vl-utils and transformers' `cap_pixels_per_frame`: never less than 1.05 times a frame's least.
        """
        least, most = self._frame_pixels
        if self.video_max_tokens is not None:
            share = self.video_max_tokens * (self._merge * self._tower.config.patch_size) ** 2 // pairs
            most = min(most, max(share, int(1.05 * least)))
        return {"shortest_edge": least, "longest_edge": most}

    def _patches(self, processor: Any, image: Image.Image, field: str, **options: Any) -> tuple[torch.Tensor, Grid]:
        """[patches, channels x moments x pixels of a patch], the same at each moment."""
        try:
            made = processor(images=image, return_tensors="pt", **options)
        except ValueError as error:  # its only complaint about a decoded image
            raise InvalidArgument(field, f"{image.width} x {image.height} pixels: {error}") from error
        _, rows, columns = made["image_grid_thw"][0].tolist()
        return made["pixel_values"], Grid(rows // self._merge, columns // self._merge)

    def _tile(self, frames: Sequence[Image.Image], size: Mapping[str, int]) -> tuple[torch.Tensor, Grid]:
        """Of the patches of each frame its own moment; the last frame's are repeated for moments that have none.

        frames a, b     a a | a a | ...  and  b b | b b | ...     →     a b | a b | ...
        """
        made = (self._patches(self._frame_processor, frame, "video", size=dict(size)) for frame in frames)
        patches, grids = zip(*made, strict=True)
        if len(set(grids)) > 1:
            raise InvalidArgument("video", "frames of different sizes")
        channels = self._tower.config.in_channels
        by_moment = [rows.view(len(rows), channels, self._moments, -1) for rows in patches]
        chosen = [by_moment[min(moment, len(frames) - 1)][:, :, moment] for moment in range(self._moments)]
        # The tower would round them to its own type anyway; a long video is smaller so.
        return torch.stack(chosen, dim=2).flatten(1).to(self.dtype), grids[0]

    def _passes(self, images: Sequence[PreparedImage], max_tiles: int | None) -> Iterator[list[tuple[torch.Tensor, Grid]]]:
        """Tiles, pixels and grid, that go through the transformer together."""
        most = math.inf if max_tiles is None else max_tiles
        together: list[tuple[torch.Tensor, Grid]] = []
        for tile in chain.from_iterable(self._tiles(image) for image in images):
            if together and sum(tiles_worth(grid) for _, grid in [*together, tile]) > most:
                yield together
                together = []
            together.append(tile)
        yield together

    def _tiles(self, image: PreparedImage) -> Iterable[tuple[torch.Tensor, Grid]]:
        patches = [self._merge**2 * grid.tokens for grid in image.grids]
        return zip(torch.split(image.pixels, patches), image.grids, strict=True)

    def _pass(self, tiles: Sequence[tuple[torch.Tensor, Grid]]) -> Seen:
        received: dict[int, torch.Tensor] = {}

        def watch_of(index: int, layout: _Layout) -> Watch | None:
            if index not in (self.scan.shallow_layer, self.scan.deep_layer):
                return None
            sequences = self._sequences(index, layout)
            return lambda query, key, scaling: received.update({index: received_scores(query, key, scaling, sequences)})

        hidden, layout = self._walk(tiles, watch_of)
        back = layout.order.argsort()
        shallow, deep = (
            self._by_token(received[layer]).mean(dim=1)[back] for layer in (self.scan.shallow_layer, self.scan.deep_layer)
        )
        return Seen(self._by_token(hidden)[back].flatten(1), Scores(shallow, deep))

    def _walk(
        self, tiles: Sequence[tuple[torch.Tensor, Grid]], watch_of: Callable[[int, _Layout], Watch | None]
    ) -> tuple[torch.Tensor, _Layout]:
        """Tiles through the blocks, each watched by what `watch_of` its index gives; rows lie as the layout says."""
        hidden = self._tower.patch_embed(torch.cat([pixels for pixels, _ in tiles]).to(self.device))
        layout = self._layout([grid for _, grid in tiles], hidden)
        hidden = self._by_token(hidden)[layout.order].flatten(0, 1)
        whole = torch.tensor([0, len(hidden)])  # the sequences are ours to tell apart
        for index, block in enumerate(self._tower.blocks):
            sequences, watch = self._sequences(index, layout), watch_of(index, layout)
            hidden = block(hidden, cu_seqlens=whole, position_embeddings=layout.rope, sequences=sequences, watch=watch)
        return hidden, layout

    def _sequences(self, index: int, layout: _Layout) -> PackedSequences:
        """What attends to each other in a block."""
        return layout.tiles if index in self._tower.fullatt_block_indexes else layout.windows

    def _picture(self, pixels: torch.Tensor, grid: Grid) -> Image.Image:
        rows, columns = self._merge * grid.rows, self._merge * grid.columns
        side = self._tower.config.patch_size
        patches = pixels.view(len(pixels), -1, self._moments, side, side)[:, :, 0]
        down, across = get_vision_position_ids(torch.tensor([[1, rows, columns]]), self._merge).T
        whole = torch.empty(rows, columns, *patches.shape[1:])
        whole[down, across] = patches.float()
        return as_picture(whole.permute(2, 0, 3, 1, 4).reshape(-1, rows * side, columns * side), self._processor)

    def _layout(self, grids: Sequence[Grid], hidden: torch.Tensor) -> _Layout:
        merge, config = self._merge, self._tower.config
        patches = torch.tensor([[1, merge * grid.rows, merge * grid.columns] for grid in grids])
        order, bounds = get_vision_window_index(
            patches, spatial_merge_size=merge, window_size=config.window_size, patch_size=config.patch_size
        )
        places = get_vision_position_ids(patches, merge)
        ordered = to_device(self._by_token(places)[order].flatten(0, 1), self.device)
        return _Layout(
            order=to_device(order, self.device),
            windows=PackedSequences(bounds.diff().tolist(), self.device),
            tiles=PackedSequences([merge**2 * grid.tokens for grid in grids], self.device),
            places=ordered,
            rope=self._tower.rotary_pos_emb(hidden, ordered),
        )

    def _by_token(self, patches: torch.Tensor) -> torch.Tensor:
        """[patches, …] → [tokens, patches of a token, …]."""
        return patches.view(-1, self._merge**2, *patches.shape[1:])


def load(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
    shallow_layer: int | None,
    window: int | None,
    video_max_tokens: int | None,
    **_: Any,
) -> QwenVision:
    """Loads the vision half: transformer, merger and preprocessing.

    Raises:
        CheckpointError: a part is missing, or of a kind that is not served.
        StartupError: the shallow layer or the window does not fit.
    """
    config = checkpoint.config.vision_config
    scan = _scan_settings(config, shallow_layer, window)
    processor = _load_processor(checkpoint)
    frame_processor = load_frame_processor(checkpoint, "Qwen2VLVideoProcessor", Qwen2VLImageProcessorPil, **_VIDEO_DEFAULTS)
    for made in (processor, frame_processor):
        _check_patches(checkpoint, made)
    tower = checkpoint.load_half(
        Qwen2_5_VisionTransformerPretrainedModel,
        config,
        key_mapping=_VISION_KEYS,
        dtype=dtype,
        device=device,
        attention=PACKED_ATTENTION,
    )
    return QwenVision(tower, processor, frame_processor, scan=scan, video_max_tokens=video_max_tokens)


def _scan_settings(config: Any, shallow_layer: int | None, window: int | None) -> ScanSettings:
    """The paper's choices: the first and the last block that sees the whole image; windows of 4 x 4 tokens."""
    full = sorted(config.fullatt_block_indexes)
    shallow = full[0] if shallow_layer is None else shallow_layer
    if shallow not in full:
        blocks = ", ".join(map(str, full))
        raise StartupError(f"shallow_layer: {shallow}, limit the blocks that attend to the whole image: {blocks}")
    side = _WINDOW if window is None else window
    return ScanSettings(shallow_layer=shallow, deep_layer=full[-1], window=side, share=WindowShare.CAPPED)


def _load_processor(checkpoint: Checkpoint) -> Any:
    directory = checkpoint.directory
    try:
        stated, _ = Qwen2VLImageProcessorPil.get_image_processor_dict(directory, local_files_only=True)
        name = str(stated.get("image_processor_type", _PROCESSORS[0])).removesuffix("Fast").removesuffix("Pil")
        if name not in _PROCESSORS:
            raise CheckpointError(f"{directory}: image processor {name} is not served, only {', '.join(_PROCESSORS)}")
        return Qwen2VLImageProcessorPil.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{directory}: no usable preprocessor_config.json or processor_config.json") from error


def _check_patches(checkpoint: Checkpoint, processor: Any) -> None:
    config = checkpoint.config.vision_config
    wanted = (config.patch_size, config.temporal_patch_size, config.spatial_merge_size)
    made = (processor.patch_size, processor.temporal_patch_size, processor.merge_size)
    if made != wanted:
        problem = f"preprocessing makes patches and tokens of {made}, the vision tower wants {wanted}"
        raise CheckpointError(f"{checkpoint.directory}: {problem}")


def _largest_grid(processor: Any) -> Grid:
    """The squarest grid of as many tokens as the processor's limit on pixels allows."""
    tokens = processor.size["longest_edge"] // (processor.patch_size * processor.merge_size) ** 2
    rows = max(side for side in range(1, math.isqrt(tokens) + 1) if tokens % side == 0)
    return Grid(rows, tokens // rows)


FAMILY = Family(model_type="qwen2_5_vl", load=load)
