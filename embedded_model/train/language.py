"""Stage 2: the language model alone, on oracle visual tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from embedded_model.model import answer_logits, build_model
from embedded_model.packing import IGNORED
from embedded_model.scenes import Split
from embedded_model.train.batches import ask_scenes, draw_scenes, labels_of
from embedded_model.train.course import Course, Place
from embedded_model.train.dropout import draw_count, draw_kept, keep
from embedded_model.train.oracle import NOISE, Oracle
from embedded_model.train.plan import PLANS
from embedded_model.train.precision import fast

NUMBER = 2


def answer_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    """Mean cross entropy over the answers' tokens, and the share of them that is right."""
    said = targets != IGNORED
    chosen, wanted = logits[said].float(), targets[said]
    right = (chosen.argmax(-1) == wanted).float().mean().item()
    return functional.cross_entropy(chosen, wanted), right


def train_language(place: Place) -> None:
    """Trains the language model and the oracle's terms; saves both as `language`."""
    plan = PLANS["language"]
    place.rng(NUMBER)  # seeds the fresh weights
    model = build_model().to(place.device)
    oracle = Oracle().to(place.device)
    place.prepare(model)
    whole = nn.ModuleDict({"language": model.model.language_model, "oracle": oracle})
    course = Course(place, "language", plan.steps, whole, [(whole, 1.0)])
    for step in course.remaining():
        rng = place.rng(NUMBER, step)
        scenes = draw_scenes(rng, plan.pictures, Split.TRAIN)
        labels = labels_of(scenes).to(place.device)
        pack = ask_scenes(rng, scenes, plan.questions).to(place.device)
        kept = draw_kept(labels.owner, draw_count(rng, plan.full_share))
        with fast(place.device):
            tokens = keep(oracle(model.get_input_embeddings(), labels, NOISE), kept)
            logits = answer_logits(model, tokens, pack)
        loss, right = answer_loss(logits, pack.targets)
        course.update(loss, {"tokens": right})
