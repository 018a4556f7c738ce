"""Where the tokens of LLaVA-NeXT's tiles stand in the grid that they are stitched to, by transformers' own functions."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image


def stitched_places(checkpoint: Path, picture: Path) -> torch.Tensor | None:
    """[rows, columns] of the stitched, un-padded grid: which token of the tiles, tile after tile, the base tile's included,
    stands there. None for families that stitch nothing."""
    config = json.loads((checkpoint / "config.json").read_text())
    if config["model_type"] != "llava_next":
        return None
    vision = config["vision_config"]
    side = vision["image_size"] // vision["patch_size"]
    with Image.open(picture) as image:
        size = (image.height, image.width)
    down, across = get_anyres_image_grid_shape(size, config["image_grid_pinpoints"], vision["image_size"])
    tokens = side**2 + torch.arange(down * across * side**2).view(down, across, side, side)
    places: torch.Tensor = unpad_image(tokens.permute(0, 2, 1, 3).reshape(1, down * side, across * side), size)[0]
    return places
