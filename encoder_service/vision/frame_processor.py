"""How a checkpoint wants the frames of a video prepared."""

from __future__ import annotations

from typing import Any

from transformers.models.auto.video_processing_auto import get_video_processor_config

from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError


def load_frame_processor(checkpoint: Checkpoint, name: str, image_processor: Any, **defaults: Any) -> Any:
    """An image processor that does to a frame what the checkpoint's video processor does to a video's.

    transformers' video processors need torchvision. What a checkpoint states for them is read from the same files: from
    processor_config.json, from video_preprocessor_config.json, or else what it states for images.

    Args:
        name: of the video processor that the family is served with.
        image_processor: class of an image processor with the same settings.
        defaults: the video processor's, where they are not those of the image processor.

    Raises:
        CheckpointError: another video processor is stated, or settings that the image processor does not take.
    """
    try:
        stated = get_video_processor_config(str(checkpoint.directory), local_files_only=True)
        found = str(stated.pop("video_processor_type", name))
        if found != name:
            raise CheckpointError(f"{checkpoint.directory}: video processor {found} is not served, only {name}")
        return image_processor(**{**defaults, **stated})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{checkpoint.directory}: its settings for videos cannot be used") from error
