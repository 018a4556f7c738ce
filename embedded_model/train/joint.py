"""Stages 4 and 5: everything together, then again with visual-token dropout.

The encoder learns at a part of the rate and keeps its own losses, so that [CLS] stays meaningful.
"""

from __future__ import annotations

from embedded_model.model import answer_logits, build_model, encoder_states, visual_tokens
from embedded_model.pixels import pixels_of
from embedded_model.scenes import Split
from embedded_model.train.batches import ask_scenes, draw_scenes, labels_of
from embedded_model.train.bridge import whole_model
from embedded_model.train.course import Course, Place
from embedded_model.train.dropout import draw_count, draw_cut, draw_kept, keep
from embedded_model.train.heads import Heads
from embedded_model.train.language import answer_loss
from embedded_model.train.plan import PLANS
from embedded_model.train.precision import fast
from embedded_model.train.state import load_module

NUMBERS = {"joint": 4, "dropout": 5}
BEFORE = {"joint": "bridge", "dropout": "joint"}
VISION_WEIGHT = 0.2  # of the encoder's own losses


def train_joint(place: Place, name: str) -> None:
    """Trains the whole model from the stage before `name`; saves it as `name`."""
    plan, number = PLANS[name], NUMBERS[name]
    place.join(name)
    model, heads = build_model(), Heads()
    whole = whole_model(model, heads)
    load_module(place.out / BEFORE[name], whole)
    whole.to(place.device)
    place.prepare(model)
    parts = [
        (model.model.vision_tower, plan.vision_rate),
        (model.model.multi_modal_projector, plan.rate),
        (model.model.language_model, plan.rate),
        (heads, plan.rate),
    ]
    course = Course(place, name, plan.steps, whole, parts)
    for step in course.remaining():
        rng = place.rng(number, step)
        scenes = draw_scenes(rng, plan.pictures, Split.TRAIN)
        pixels, labels = pixels_of(scenes).to(place.device), labels_of(scenes).to(place.device)
        pack = ask_scenes(rng, scenes, plan.questions).to(place.device)
        kept = draw_kept(labels.owner, draw_count(rng, plan.full_share, plan.favour_few), plan.favour)
        cut = draw_cut(labels.owner, kept, plan.favour) if rng.random() < plan.cut_share else None
        with fast(place.device):
            states = encoder_states(model, pixels)
            seen, _ = heads(states, labels)
            logits = answer_logits(model, keep(visual_tokens(model, states[-1]), kept), pack, cut)
        loss, right = answer_loss(logits, pack.targets)
        course.update(loss + VISION_WEIGHT * seen, {"tokens": right})
