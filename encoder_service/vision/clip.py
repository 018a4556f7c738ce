"""What the LLaVA families share: a CLIP vision transformer and a two-layer projector, over tiles of one size."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from encoder_service.reduction.budget import Grid
from encoder_service.reduction.reduce import Scores
from encoder_service.vision.areas import Canvas, processed
from encoder_service.vision.attention import WATCHED_ATTENTION, Watch, first_row_scores
from encoder_service.vision.base import CLASS_ROW, Attending, PreparedImage, ScanSettings, Seen, VisionModel, as_picture
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError, StartupError
from vscan.visual_tokens import Area, SampledFrames

_PROJECTOR_PREFIXES = ("multi_modal_projector.", "model.multi_modal_projector.")
_TOWER_CONFIGURATION = ("hidden_act", "image_size", "layer_norm_eps", "num_attention_heads", "patch_size")
# The paper's choices: layer index 5 of 24; windows of 6 x 6 tokens.
_SHALLOW_OF_LAYERS = 5 / 24
_WINDOW = 6
# Of what a pass holds of a layer's widest part, on a CPU. A tile of ViT-L/14-336 has 9 MiB in float32.
_CPU_LAYER_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class ClipParts:
    """What a checkpoint of these families holds for the encoder, loaded."""

    tower: Any
    projector: Any
    processor: Any
    scan: ScanSettings
    hidden_size: int


class ClipVision(VisionModel):
    """A vision half of these families. The [CLS] token's attention is the score (VScan, arXiv 2505.22654, section 3).

    A family says how an image becomes tiles, in `preprocess`, and how tiles become an image's tokens, in `assemble`.
    """

    def __init__(self, parts: ClipParts) -> None:
        self.scan = parts.scan
        self.hidden_size = parts.hidden_size
        self.dtype: torch.dtype = parts.tower.dtype
        self.device: torch.device = parts.tower.device
        self.grid = _grid(parts.tower.config)
        self.tile_pixels: tuple[int, ...] = (parts.tower.config.num_channels, *(parts.tower.config.image_size,) * 2)
        self.layer_rows = 1 + self.grid.tokens
        self._tower = parts.tower
        self._projector = parts.projector
        self._processor = parts.processor

    def look(self, images: Sequence[PreparedImage], max_tiles: int | None = None) -> Seen:
        """Every layer runs fused attention; two of them show their queries and keys, of which one row is needed."""
        hidden, scores = self._see(self._tower, images, max_tiles)
        return Seen(hidden[:, 1:].flatten(0, 1), Scores(scores.shallow.flatten(), scores.deep.flatten()))

    @torch.inference_mode()
    def observe(self, image: PreparedImage, see: Callable[[Attending], None]) -> None:
        """Tile by tile."""
        places = torch.arange(CLASS_ROW, self.grid.tokens)
        for tile, pixels in enumerate(image.pixels):

            def watch_of(layer: int, tile: int = tile) -> Watch:
                return lambda query, key, scaling: see(Attending(layer, tile, places, query[0], key[0], scaling))

            self._walk(self._tower_of(image), pixels[None].to(self.device), watch_of)

    def pictures(self, image: PreparedImage) -> list[Image.Image]:
        """The tiles."""
        return [as_picture(pixels, self._processor) for pixels in image.pixels]

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """The two-layer projector."""
        tokens: torch.Tensor = self._projector(features)
        return tokens

    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Tower and projector; within them the names are transformers' for the parts alone."""
        return {"vision_tower": self._tower, "multi_modal_projector": self._projector}

    @torch.inference_mode()
    def compile(self, backend: str = "inductor") -> None:
        """All layers but the two that are watched."""
        try:
            for tower in self._towers:
                for layer in self._unwatched(tower):
                    layer.compile(dynamic=True, backend=backend)
                for tiles in (1, 2):  # one tile is compiled apart, two stand for more
                    self._pass(tower, torch.zeros(tiles, *self.tile_pixels, dtype=self.dtype, device=self.device))
        except RuntimeError as error:
            raise StartupError(f"compile: {type(error).__name__}: {str(error).splitlines()[0]}") from error

    def configuration(self) -> Mapping[str, Any]:
        """What the shapes of the tensors do not say."""
        tower = {name: getattr(self._tower.config, name) for name in _TOWER_CONFIGURATION}
        activation = type(self._projector.act).__name__
        return {"tower": tower, "projector": activation, "preprocessing": self._processor.to_dict()}

    def _unwatched(self, tower: Any) -> list[Any]:
        watched = (self.scan.shallow_layer, self.scan.deep_layer)
        return [layer for index, layer in enumerate(tower.encoder.layers) if index not in watched]

    def _tower_of(self, image: PreparedImage) -> Any:
        """Which one sees it."""
        return self._tower

    def _area(self, processor: Any, canvas: Canvas) -> Area | None:
        """What the tile shows that this processor makes of a picture."""
        tile = processed(canvas, processor)
        return None if tile is None else tile.covered_by(self.grid, self._patch_pixels)

    @property
    def _patch_pixels(self) -> int:
        side: int = self._tower.config.patch_size
        return side

    @property
    def _towers(self) -> Sequence[Any]:
        return [self._tower]

    def _see(self, tower: Any, images: Sequence[PreparedImage], max_tiles: int | None) -> tuple[torch.Tensor, Scores]:
        """What a tower makes of all tiles: [tiles, 1 + N, vision hidden], the [CLS] token first, and [tiles, N]."""
        pixels = torch.cat([image.pixels for image in images])  # [tiles, channels, height, width]
        together = min(max_tiles or len(pixels), self._most_tiles(tower))
        passes = [self._pass(tower, part.to(self.device)) for part in torch.split(pixels, together)]
        hidden, shallow, deep = (torch.cat(parts) for parts in zip(*passes, strict=True))
        return hidden, Scores(shallow, deep)

    def _most_tiles(self, tower: Any) -> int:
        """A CPU gains nothing from more tiles once one layer keeps it busy, and is slowed by what its cache cannot hold."""
        if self.device.type != "cpu":
            return sys.maxsize
        tile_bytes: int = self.layer_rows * tower.config.intermediate_size * self.dtype.itemsize
        return max(1, _CPU_LAYER_BYTES // tile_bytes)

    def _pass(self, tower: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows: dict[int, torch.Tensor] = {}

        def watch_of(index: int) -> Watch | None:
            if index not in (self.scan.shallow_layer, self.scan.deep_layer):
                return None
            return lambda query, key, scaling: rows.update({index: first_row_scores(query, key, scaling)})

        hidden = self._walk(tower, pixels, watch_of)
        return hidden, rows[self.scan.shallow_layer], rows[self.scan.deep_layer]

    def _walk(self, tower: Any, pixels: torch.Tensor, watch_of: Callable[[int], Watch | None]) -> torch.Tensor:
        """Tiles through the layers, each watched by what `watch_of` its index gives."""
        hidden: torch.Tensor = tower.pre_layrnorm(tower.embeddings(pixels))
        for index, layer in enumerate(tower.encoder.layers):
            watch = watch_of(index)
            hidden = layer(hidden, None) if watch is None else layer(hidden, None, watch=watch)
        return hidden


def load_clip_parts(
    checkpoint: Checkpoint,
    *,
    processors: Mapping[str, Any],
    tower: str = "vision_tower",
    dtype: torch.dtype,
    device: torch.device,
    shallow_layer: int | None,
    window: int | None,
    skip_padding: bool,
    **_: Any,
) -> ClipParts:
    """Loads tower, projector and preprocessing; of the tower only the layers up to the feature layer.

    Args:
        processors: the image processors that the family is served with, by the name in the checkpoint.
        tower: its name in the checkpoint.

    Raises:
        CheckpointError: a part is missing, or of a kind that is not served.
        StartupError: the shallow layer or the window does not fit.
    """
    vision = checkpoint.config.vision_config
    if vision.model_type != CLIPVisionModel.config_class.model_type:
        raise CheckpointError(f"{checkpoint.directory}: vision tower {vision.model_type} is not served here, only CLIP")
    scan = _scan_settings(checkpoint, shallow_layer, window, skip_padding)
    return ClipParts(
        load_tower(checkpoint, tower, scan, dtype=dtype, device=device),
        _load_projector(checkpoint, dtype, device),
        _load_processor(checkpoint, processors),
        scan=scan,
        hidden_size=checkpoint.config.text_config.hidden_size,
    )


def load_tower(checkpoint: Checkpoint, name: str, scan: ScanSettings, *, dtype: torch.dtype, device: torch.device) -> Any:
    """The layers up to the feature layer of the tower of this name. Raises CheckpointError."""
    config = copy.deepcopy(checkpoint.config.vision_config)
    config.num_hidden_layers = scan.deep_layer + 1
    keys = {rf"^(model\.)?{name}\.(vision_model\.)?": ""}
    return checkpoint.load_half(
        CLIPVisionModel, config, key_mapping=keys, dtype=dtype, device=device, attention=WATCHED_ATTENTION, part=name
    )


def check_preprocessing(checkpoint: Checkpoint, model: ClipVision) -> None:
    """Raises CheckpointError if the image processor, or that of frames, does not make what a tower takes."""
    side = checkpoint.config.vision_config.image_size
    blank = Image.new("RGB", (2 * side, side))
    prepared = [model.preprocess(blank)]
    if model.frame_sampling is not None:
        prepared.append(model.preprocess_video([blank], SampledFrames((0.0,), 0.0)))
    for pixels in (image.pixels for image in prepared):
        made, wanted = tuple(pixels.shape), (len(pixels), 3, side, side)
        if made != wanted:
            raise CheckpointError(f"{checkpoint.directory}: preprocessing makes {made}, the vision tower wants {wanted}")


def _scan_settings(checkpoint: Checkpoint, shallow_layer: int | None, window: int | None, skip_padding: bool) -> ScanSettings:
    vision = checkpoint.config.vision_config
    deep = _feature_layer(checkpoint)
    grid = _grid(vision)
    shallow = min(deep, round(_SHALLOW_OF_LAYERS * vision.num_hidden_layers)) if shallow_layer is None else shallow_layer
    side = min(_WINDOW, grid.rows) if window is None else window
    if not 0 <= shallow <= deep:
        raise StartupError(f"shallow_layer: {shallow}, limit 0 to {deep}, the feature layer of {checkpoint.name}")
    if not 1 <= side <= grid.rows:
        raise StartupError(f"window: {side}, limit 1 to {grid.rows}, the grid's side of {checkpoint.name}")
    return ScanSettings(shallow_layer=shallow, deep_layer=deep, window=side, skip_padding=skip_padding)


def _feature_layer(checkpoint: Checkpoint) -> int:
    """The layer whose output feeds the projector. Of 24, -2 and 23 both mean index 22, as hidden state 0 is the embedding."""
    config = checkpoint.config
    layers = config.vision_config.num_hidden_layers
    stated = config.vision_feature_layer
    if isinstance(stated, list | tuple) and len(stated) == 1:
        stated = stated[0]
    if not isinstance(stated, int):
        raise CheckpointError(f"{checkpoint.directory}: vision_feature_layer {stated!r}; one layer is served")
    if config.vision_feature_select_strategy != "default":
        strategy = config.vision_feature_select_strategy
        raise CheckpointError(f"{checkpoint.directory}: vision_feature_select_strategy {strategy!r}; only 'default' is served")
    index = stated - 1 if stated > 0 else layers + stated
    if stated == 0 or not 0 <= index < layers:
        raise CheckpointError(f"{checkpoint.directory}: vision_feature_layer {stated} of {layers} layers")
    return index


def _grid(vision: Any) -> Grid:
    side = vision.image_size // vision.patch_size
    return Grid(side, side)


def _load_projector(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Any:
    with torch.device("meta"):
        projector = LlavaMultiModalProjector(checkpoint.config)
    prefix = next((p for p in _PROJECTOR_PREFIXES if f"{p}linear_1.weight" in checkpoint.files), _PROJECTOR_PREFIXES[0])
    names = list(projector.state_dict())
    tensors = checkpoint.load_tensors([prefix + name for name in names], dtype=dtype, device=device)
    try:
        projector.load_state_dict({name: tensors[prefix + name] for name in names}, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.directory}: the projector's tensors do not fit its configuration") from error
    return projector.eval().requires_grad_(False)


def _load_processor(checkpoint: Checkpoint, processors: Mapping[str, Any]) -> Any:
    # Not AutoImageProcessor: in some releases it cannot be used without torchvision.
    directory = checkpoint.directory
    try:
        stated, _ = CLIPImageProcessorPil.get_image_processor_dict(directory, local_files_only=True)
        name = str(stated.get("image_processor_type", "CLIPImageProcessor")).removesuffix("Fast").removesuffix("Pil")
        if name not in processors:
            raise CheckpointError(f"{directory}: image processor {name} is not served, only {', '.join(processors)}")
        return processors[name].from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{directory}: no usable preprocessor_config.json or processor_config.json") from error
