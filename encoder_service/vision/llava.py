"""LLaVA-1.5: one tile an image."""

from __future__ import annotations

from typing import Any

from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from encoder_service.vision.areas import Canvas
from encoder_service.vision.base import Family, PreparedImage
from encoder_service.vision.clip import ClipVision, check_preprocessing, load_clip_parts
from vscan.checkpoint import Checkpoint

_PROCESSORS: dict[str, Any] = {"CLIPImageProcessor": CLIPImageProcessorPil, "LlavaImageProcessor": LlavaImageProcessorPil}


class LlavaVision(ClipVision):
    """The vision half of LLaVA-1.5."""

    family = "llava"

    def preprocess(self, image: Image.Image) -> PreparedImage:
        """The checkpoint's own image processor, on the CPU."""
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"]
        return PreparedImage(pixels, (self.grid,), areas=(self._area(self._processor, Canvas.of(*image.size)),))


def load(checkpoint: Checkpoint, **settings: Any) -> LlavaVision:
    """Loads the half; see `load_clip_parts` for settings and errors."""
    model = LlavaVision(load_clip_parts(checkpoint, processors=_PROCESSORS, **settings))
    check_preprocessing(checkpoint, model)
    return model


FAMILY = Family(model_type="llava", load=load)
