"""Which model services are measured with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from embedded_model import checkpoint_dir
from studies.load.random_llava import write_random_llava


def model_option(parser: argparse.ArgumentParser) -> None:
    """`--model`."""
    parser.add_argument(
        "--model",
        default="random",
        help="`random`: a LLaVA of random weights whose work outweighs what surrounds it; `embedded`; or a checkpoint's folder",
    )


@contextmanager
def model_and_folder(name: str) -> Iterator[tuple[Path, Path]]:
    """The checkpoint, and a folder for logs that is gone afterwards. Raises ValueError where there is no such checkpoint."""
    with TemporaryDirectory() as text:
        folder = Path(text)
        if name == "random":
            yield write_random_llava(folder / "model"), folder
        elif name == "embedded":
            yield checkpoint_dir(), folder
        elif (Path(name) / "config.json").is_file():
            yield Path(name).resolve(), folder
        else:
            raise ValueError(f"--model: {name} is neither `random` nor `embedded`, and has no config.json")
