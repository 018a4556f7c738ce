"""Stage 3: the projector, by regression from the encoder's features to oracle tokens."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from embedded_model.model import build_model, encoder_states, visual_tokens
from embedded_model.pixels import pixels_of
from embedded_model.scenes import Split
from embedded_model.train.batches import draw_scenes, labels_of
from embedded_model.train.course import Course, Place
from embedded_model.train.heads import Heads
from embedded_model.train.oracle import Oracle
from embedded_model.train.plan import PLANS
from embedded_model.train.precision import fast
from embedded_model.train.state import load_module

NUMBER = 3


def train_bridge(place: Place) -> None:
    """Puts stages 1 and 2 together, trains the projector between them; saves all as `bridge`."""
    plan = PLANS["bridge"]
    place.rng(NUMBER)  # seeds the fresh weights
    model, heads, oracle = build_model(), Heads(), Oracle()
    _load_parts(place, model, heads, oracle)
    whole = whole_model(model, heads).to(place.device)
    oracle.to(place.device)
    projector = model.model.multi_modal_projector
    course = Course(place, "bridge", plan.steps, whole, [(projector, 1.0)])
    for step in course.remaining():
        scenes = draw_scenes(place.rng(NUMBER, step), plan.pictures, Split.TRAIN)
        pixels, labels = pixels_of(scenes).to(place.device), labels_of(scenes).to(place.device)
        with torch.no_grad(), fast(place.device):
            features = encoder_states(model, pixels)[-1]
            wanted = oracle(model.get_input_embeddings(), labels)
        with fast(place.device):
            tokens = visual_tokens(model, features).float()
        loss = functional.mse_loss(tokens, wanted) / wanted.var()
        course.update(loss, {"unexplained": loss.item()})


def whole_model(model: LlavaForConditionalGeneration, heads: Heads) -> nn.ModuleDict:
    """What stages 3 to 5 save."""
    return nn.ModuleDict({"model": model, "heads": heads})


def _load_parts(place: Place, model: LlavaForConditionalGeneration, heads: Heads, oracle: Oracle) -> None:
    seen = nn.ModuleDict({"tower": model.model.vision_tower, "heads": heads})
    said = nn.ModuleDict({"language": model.model.language_model, "oracle": oracle})
    load_module(place.out / "vision", seen)
    load_module(place.out / "language", said)
