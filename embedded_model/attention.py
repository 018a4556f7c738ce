"""Where the attention of [CLS] falls, layer by layer: `python -m embedded_model.attention [--plot FILE]`.

Of each layer's attention from [CLS] to the 144 patches (mean over heads), the share that falls on objects, letters,
distractors and bare ground, beside the share of the patches that these have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration

from embedded_model import checkpoint_dir
from embedded_model.arguments import at_least_one
from embedded_model.config import FEATURE_DEPTH
from embedded_model.model import encoder_states
from embedded_model.pixels import pixels_of
from embedded_model.scenes import GRID, MAX_THINGS, Scene, Split, draw_scene, seeded

KINDS = ("objects", "letters", "distractors", "ground")
_STREAM = 7003  # keeps these draws apart from those of other uses of the same seed


@dataclass(frozen=True, slots=True, eq=False)
class ClsAttention:
    """Attention from [CLS] of the layers that are read, over pictures."""

    scenes: Sequence[Scene]
    maps: np.ndarray  # [layers, pictures, 144], each summing to 1

    def shares(self) -> np.ndarray:
        """The share that falls on each of KINDS, mean over pictures, [layers, 4]."""
        kinds = np.stack([kinds_of(scene) for scene in self.scenes])
        return np.stack([(self.maps * (kinds == kind)).sum(-1).mean(-1) for kind in range(len(KINDS))], axis=-1)

    def areas(self) -> np.ndarray:
        """The share of patches of each of KINDS, [4]."""
        kinds = np.stack([kinds_of(scene) for scene in self.scenes])
        return np.array([(kinds == kind).mean() for kind in range(len(KINDS))])


def kinds_of(scene: Scene) -> np.ndarray:
    """The index in KINDS of each patch, [144]."""
    free = np.where(scene.distracts, KINDS.index("distractors"), KINDS.index("ground"))
    taken = np.where(scene.owner < MAX_THINGS, KINDS.index("objects"), KINDS.index("letters"))
    return np.where(scene.owner >= 0, taken, free).reshape(-1)


@torch.no_grad()
def cls_attention(model: LlavaForConditionalGeneration, scenes: Sequence[Scene]) -> ClsAttention:
    """Runs the encoder, which must have eager attention, on `scenes`."""
    rows: list[torch.Tensor] = []
    layers = model.model.vision_tower.encoder.layers[:FEATURE_DEPTH]
    hooks = [
        layer.self_attn.register_forward_hook(lambda _module, _inputs, output: rows.append(output[1][:, :, 0, 1:].mean(1)))
        for layer in layers
    ]
    encoder_states(model, pixels_of(scenes))
    for hook in hooks:
        hook.remove()
    maps = torch.stack(rows)
    return ClsAttention(scenes, (maps / maps.sum(-1, keepdim=True)).numpy())


def measure(directory: Path, seed: int, pictures: int) -> ClsAttention:
    """The attention of a checkpoint on held-out pictures."""
    model = LlavaForConditionalGeneration.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    rng = seeded(seed, _STREAM)
    return cls_attention(model.eval(), [draw_scene(rng, Split.HELD_OUT) for _ in range(pictures)])


def attention_table(attention: ClsAttention) -> str:
    """Markdown, in per cent."""
    lines = [f"| layer | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    lines += [_line(str(layer), row) for layer, row in enumerate(attention.shares())]
    lines.append(_line("share of patches", attention.areas()))
    return "\n".join(lines)


def _line(name: str, shares: np.ndarray) -> str:
    return f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |"


def write_plot(attention: ClsAttention, path: Path, pictures: int = 4) -> None:
    """One line a picture: the picture, then the map of each layer. Needs matplotlib."""
    from matplotlib.figure import Figure

    layers = len(attention.maps)
    pictures = min(pictures, len(attention.scenes))
    figure = Figure(figsize=(1.5 * (layers + 1), 1.6 * pictures), layout="constrained")
    panels = figure.subplots(pictures, layers + 1, squeeze=False)
    for row in range(pictures):
        panels[row][0].imshow(np.asarray(attention.scenes[row].image))
        for layer in range(layers):
            panels[row][layer + 1].imshow(attention.maps[layer, row].reshape(GRID, GRID), cmap="magma", vmin=0)
    for panel, title in zip(panels[0], ["picture", *(f"layer {layer}" for layer in range(layers))], strict=True):
        panel.set_title(title, fontsize=9)
    for panel in panels.flat:
        panel.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prints the table; draws where asked."""
    parser = argparse.ArgumentParser(prog="python -m embedded_model.attention", description=__doc__)
    parser.add_argument("--model", type=Path, default=checkpoint_dir(), help="checkpoint directory")
    parser.add_argument("--pictures", type=at_least_one, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="draw the maps of the first pictures here (needs matplotlib)")
    asked = parser.parse_args()
    if not asked.model.is_dir():
        parser.error(f"--model: {asked.model} is not a folder")
    attention = measure(asked.model, asked.seed, asked.pictures)
    print(attention_table(attention))
    if asked.plot:
        write_plot(attention, asked.plot)


if __name__ == "__main__":
    main()
