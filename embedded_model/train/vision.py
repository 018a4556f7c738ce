"""Stage 1: the encoder alone, on what each patch and each picture shows."""

from __future__ import annotations

from torch import nn

from embedded_model.model import build_model, encoder_states
from embedded_model.pixels import pixels_of
from embedded_model.scenes import Split
from embedded_model.train.batches import draw_scenes, labels_of
from embedded_model.train.course import Course, Place
from embedded_model.train.heads import Heads
from embedded_model.train.plan import PLANS
from embedded_model.train.precision import fast

NUMBER = 1


def train_vision(place: Place) -> None:
    """Trains the vision tower and its heads; saves both as `vision`."""
    plan = PLANS["vision"]
    place.rng(NUMBER)  # seeds the fresh weights
    model = build_model().to(place.device)
    heads = Heads().to(place.device)
    place.prepare(model)
    tower = model.model.vision_tower
    whole = nn.ModuleDict({"tower": tower, "heads": heads})
    course = Course(place, "vision", plan.steps, whole, [(whole, 1.0)])
    for step in course.remaining():
        scenes = draw_scenes(place.rng(NUMBER, step), plan.pictures, Split.TRAIN)
        pixels, labels = pixels_of(scenes).to(place.device), labels_of(scenes).to(place.device)
        with fast(place.device):
            loss, right = heads(encoder_states(model, pixels), labels)
        course.update(loss, right)
