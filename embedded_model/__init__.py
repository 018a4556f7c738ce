"""A small LLaVA-1.5 trained from scratch on drawn scenes: the offline default model.

Importing this package, its scenes, questions and album needs neither torch nor transformers.
"""

from pathlib import Path

__all__ = ["checkpoint_dir"]


def checkpoint_dir() -> Path:
    """The packaged Hugging Face checkpoint directory (config, weights, tokenizer, processor)."""
    return Path(__file__).parent / "checkpoint"
