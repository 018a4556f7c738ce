"""A prompt walked through the layers gives transformers' hidden states, and the right answer."""

from __future__ import annotations

import torch
from transformers import LlavaForConditionalGeneration

import embedded_model
from encoder_service.reduction.budget import plan_reduction
from studies.inputs import draw_scenes
from studies.language.walk import walk
from studies.loading import open_model
from vscan.specs import ReductionSpec, TokensPerTile
from vscan.visual_tokens import PickedBy


@torch.inference_mode()
def test_a_walk_is_that_of_transformers() -> None:
    model = open_model(None, device="cpu")
    reference = LlavaForConditionalGeneration.from_pretrained(embedded_model.checkpoint_dir(), dtype=torch.float32).eval()
    inputs = draw_scenes(7, seed=1)
    right = 0
    for question in inputs.questions:
        seen = model.vision.see(inputs.pictures[question.pictures[0]])
        prompt = model.language.prompt(question.text, [model.vision.encode(seen)])
        steps = list(walk(model.language.model, prompt))
        assert [step.layer for step in steps] == list(range(len(steps)))
        theirs = reference(
            input_ids=torch.tensor([prompt.token_ids]), pixel_values=seen.prepared.pixels, output_hidden_states=True
        )
        for step, hidden in zip(steps, theirs.hidden_states, strict=False):
            torch.testing.assert_close(step.entering, hidden[0], rtol=1e-3, atol=1e-3)
        logits = model.language.model.logits(steps[-1].leaving)
        torch.testing.assert_close(logits, theirs.logits[0], rtol=1e-3, atol=1e-3)
        right += model.language.writer.tokenizer.decode([int(logits[-1].argmax())]).strip() == question.answers[0].split()[0]
    assert right >= 6, "of seven questions that this model was trained for"


def test_tokens_are_reduced_as_the_encoder_does_it() -> None:
    model = open_model(None, device="cpu")
    seen = model.vision.see(draw_scenes(1, seed=0).pictures[0])
    spec = ReductionSpec(budget=TokensPerTile(24)).filled_from(model.default_reduction)
    reduced, whole = model.vision.encode(seen, spec), model.vision.encode(seen)
    assert (reduced.kept_count, whole.kept_count) == (24, 144)
    assert set(reduced.picked_by.tolist()) == {PickedBy.LOCAL, PickedBy.GLOBAL}
    plan = plan_reduction(spec, model.vision.model.grid, model.vision.model.scan.window)
    assert int((reduced.picked_by == PickedBy.LOCAL).sum()) == plan.local_tokens == 12
    assert reduced.tokens.shape[1] == model.language.model.shape.hidden_size
