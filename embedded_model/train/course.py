"""A course: the steps of one stage, with rates, shared gradients, printing and saving."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn
from transformers import LlavaForConditionalGeneration

from embedded_model.model import compile_layers
from embedded_model.optim import build_optimizers, groups, set_rates
from embedded_model.scenes import seeded
from embedded_model.train.plan import scaled
from embedded_model.train.state import Progress, load_state, save_state

SAVE_EVERY_S = 60.0
PRINT_EVERY = 20  # steps
GRADIENT_LIMIT = 1.0  # norm of all gradients together


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom a stage runs."""

    out: Path
    seed: int
    device: torch.device
    rank: int = 0
    ranks: int = 1
    compiled: bool = False  # layers run compiled
    scale: float = 1.0  # steps done over steps planned

    def prepare(self, model: LlavaForConditionalGeneration) -> None:
        """Compiles the layers of `model` where that is wanted."""
        if self.compiled:
            compile_layers(model)

    def join(self, name: str) -> None:
        """Meets the other ranks of stage `name`, if there are any, through a file that is not there yet."""
        if self.ranks > 1:
            meeting = f"file://{(self.out / name).absolute()}.meeting"
            distributed.init_process_group("gloo", init_method=meeting, rank=self.rank, world_size=self.ranks)

    def rng(self, *numbers: int) -> np.random.Generator:
        """The generator for a step of this rank; seeds torch alike."""
        torch.manual_seed(hash((self.seed, self.rank, *numbers)) % 2**63)
        return seeded(self.seed, self.rank, *numbers)


class Course:
    """Trains `module` for `steps`, scaled as the place says, going on from what is saved under `name`."""

    def __init__(
        self,
        place: Place,
        name: str,
        steps: int,
        module: nn.Module,
        parts: Sequence[tuple[nn.Module, float]],
    ) -> None:
        self.place = place
        self.name = name
        self.steps = scaled(steps, place.scale)
        self.module = module
        self.optimizers = build_optimizers(parts)
        self.path = place.out / name
        before = load_state(self.path, module, self.optimizers)
        self.step = before.step
        self.saved_at = self.printed_at = time.monotonic()
        self.began_at = self.saved_at - before.seconds

    def remaining(self) -> Iterator[int]:
        """The steps still to do; saves at the end."""
        while self.step < self.steps:
            set_rates(self.optimizers, self.step, self.steps)
            yield self.step
            self.step += 1
            if time.monotonic() - self.saved_at > SAVE_EVERY_S:
                self.save()
        self.save()

    def update(self, loss: Tensor, notes: dict[str, float]) -> None:
        """One step down `loss`, the same on every rank."""
        torch.autograd.backward(loss)
        gradients = [p.grad for g in groups(self.optimizers) for p in g["params"]]
        present = [g for g in gradients if g is not None]
        if self.place.ranks > 1:
            _average(present, self.place.ranks)
        nn.utils.clip_grad_norm_([p for g in groups(self.optimizers) for p in g["params"]], GRADIENT_LIMIT)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (self.step + 1) % PRINT_EVERY == 0 and self.place.rank == 0:
            self._print(loss.item(), notes)

    def save(self) -> None:
        """Saves the state; rank 0 alone writes."""
        self.saved_at = time.monotonic()
        if self.place.rank == 0:
            progress = Progress(self.step, round(self.saved_at - self.began_at, 1))
            save_state(self.path, self.module, self.optimizers, progress)

    def _print(self, loss: float, notes: dict[str, float]) -> None:
        now = time.monotonic()
        pace = (now - self.printed_at) / PRINT_EVERY
        self.printed_at = now
        said = " ".join(f"{name} {100 * value:.1f}" for name, value in notes.items())
        left_min = pace * (self.steps - self.step - 1) / 60
        done = f"{self.name} {self.step + 1}/{self.steps}"
        print(f"{done} loss {loss:.3f} {said} {pace:.2f} s/step, {left_min:.0f} min left", file=sys.stdout, flush=True)


def _average(gradients: list[Tensor], ranks: int) -> None:
    """Replaces each rank's gradients by the mean of all ranks'."""
    flat = torch.cat([g.flatten() for g in gradients]).cpu()
    distributed.all_reduce(flat)
    flat = (flat / ranks).to(gradients[0].device)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
