"""When a model has made up its mind: two ways to read its next token before all layers have run on everything.

    layers run      0 1 2 3 4      0: the embeddings, 4: all of this model's layers
    likeliest       a c b b b      the final one is b
    agrees          0 0 1 1 1      stable from 2

The *logit lens* applies the final norm and the head to the last row after each layer (nostalgebraist, "interpreting GPT: the
logit lens", 2020). *Blind* runs the rest of the layers without any visual token: what pruning all of them there would say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

import torch

from decoder_service.language.base import LanguageModel, Positions
from decoder_service.request import Prompt
from decoder_service.runner.sequence import PromptRows
from studies.finite import check_finite
from studies.language.walk import side_by_side, walk
from vscan.specs import PositionPolicy
from vscan.transfer import to_device


@dataclass(frozen=True, slots=True)
class Readings:
    """Of one prompt; entry n is after n layers, so there is one more than layers, and the last one is the final prediction."""

    agrees: tuple[bool, ...]  # whether the likeliest token is the final one
    kl_nats: tuple[float, ...]  # KL(final || after n layers)

    @property
    def stable_from(self) -> int:
        """The fewest layers after which the likeliest token is the final one and never changes again."""
        return len(self.agrees) - sum(1 for _ in takewhile(bool, reversed(self.agrees)))


@dataclass(frozen=True, slots=True)
class Reading:
    """Both ways, of one prompt, and the token that the whole model answers it with."""

    token: int
    lens: Readings
    blind: Readings


@torch.inference_mode()
def read(model: LanguageModel, prompt: Prompt) -> Reading:
    """What the model would say next, after each layer. Nothing but what is read is pruned.

    All blind sequences pass a layer together, so that a prompt takes each layer's weights twice, however many layers there are.

    Raises:
        InvalidArgument: the model's numbers overflow.
    """
    text, positions = _without_images(model, prompt)
    places = to_device(positions.places, model.device)
    lens: list[torch.Tensor] = []
    blind = torch.empty(0)  # [layers that ran, text rows, hidden]: sequence n has lost its visual tokens after n layers
    for view in walk(model, prompt):
        lens.append(view.entering[-1])
        entering = view.entering[None, text]
        blind = side_by_side(model, view.layer, torch.cat((blind, entering)) if view.layer else entering, places)
        final = view.leaving[-1]
    last = torch.cat((torch.stack([*lens, final]), blind[:, -1], final[None]))
    predicted = model.logits(last).double().log_softmax(dim=-1).cpu()
    check_finite(predicted[-1], "the prediction of the language model", last.dtype)
    of_lens, of_blind = predicted.chunk(2)
    return Reading(int(of_lens[-1].argmax()), readings(of_lens), readings(of_blind))


def read_answer(model: LanguageModel, prompt: Prompt, tokens: int) -> Iterator[Reading]:
    """The same for each of the first `tokens` tokens of the model's own greedy answer, the end of sequence among them.

    A token is read behind those that the whole model has put before it, whatever a reading would have put there.
    """
    for _ in range(tokens):
        reading = read(model, prompt)
        yield reading
        if reading.token in model.tokens.end_ids:
            return
        prompt = replace(prompt, token_ids=(*prompt.token_ids, reading.token))


def readings(predicted: torch.Tensor) -> Readings:
    """`predicted`: log-probabilities after 0, 1, … layers, [layers + 1, vocabulary]."""
    final = predicted[-1]
    agrees = predicted.argmax(dim=-1) == final.argmax()
    kl = (final.exp() * (final - predicted)).sum(dim=-1).clamp(min=0)
    return Readings(tuple(agrees.tolist()), tuple(kl.tolist()))


def _without_images(model: LanguageModel, prompt: Prompt) -> tuple[torch.Tensor, Positions]:
    """The rows that are text, and where they stand once the others are gone: as the family does it by default."""
    rows = PromptRows(prompt).drop_visual_but(torch.empty(0, dtype=torch.int64))
    if model.default_positions is PositionPolicy.RENUMBER:
        positions = model.text_positions(0, len(rows))
    else:
        positions = model.prompt_positions(prompt).only(rows)
    return to_device(rows, model.device), positions
