"""Packing: each question in a pack gets the logits and the loss of a prompt of its own."""

import pytest
import torch
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from embedded_model.model import Cut, answer_logits, build_model
from embedded_model.packing import IGNORED, PREFIX_IDS, Segment, pack, segment_tokens
from embedded_model.questions import Question, ask_many
from embedded_model.scenes import draw_scene, seeded
from embedded_model.tokenizer import EOS, VOCABULARY, word_ids


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    return build_model().eval()


@pytest.fixture(scope="module")
def pictures() -> list[list[Segment]]:
    rng = seeded(31)
    asked = [ask_many(draw_scene(seed).layout, 7, rng) for seed in (1, 2)]
    return [[tuple(row[:2]), *((q,) for q in row[2:])] for row in asked]


def alone(model: LlavaForConditionalGeneration, visual: torch.Tensor, segment: Segment) -> torch.Tensor:
    """Logits [tokens, vocabulary] of one segment in a prompt of its own, plain causal attention."""
    ids = torch.tensor([segment_tokens(segment)[0]])
    embed = model.get_input_embeddings()
    whole = torch.cat([embed(torch.tensor([PREFIX_IDS])), visual, embed(ids)], dim=1)
    logits: torch.Tensor = model(inputs_embeds=whole).logits[0, -ids.shape[1] :]
    return logits


@torch.no_grad()
def test_packed_logits_and_loss_equal_single_prompts(
    model: LlavaForConditionalGeneration, pictures: list[list[Segment]]
) -> None:
    visual = torch.randn(2, 20, 128)
    together = pack(pictures)
    packed = answer_logits(model, visual, together)
    losses = []
    for row, segments in enumerate(pictures):
        for number, segment in enumerate(segments, start=1):
            single = alone(model, visual[row : row + 1], segment)
            torch.testing.assert_close(packed[row][together.segments[row] == number], single, atol=2e-5, rtol=1e-4)
            targets = torch.tensor(segment_tokens(segment)[1])
            losses.append(functional.cross_entropy(single, targets, ignore_index=IGNORED, reduction="sum"))
    whole = functional.cross_entropy(packed.flatten(0, 1), together.targets.flatten(), reduction="sum")
    torch.testing.assert_close(whole, torch.stack(losses).sum(), rtol=1e-4, atol=1e-3)


def alone_cut(
    model: LlavaForConditionalGeneration, visual: torch.Tensor, segment: Segment, layer: int, kept: list[int]
) -> torch.Tensor:
    """Logits [tokens, vocabulary] of a prompt of its own whose rows outside `kept` end before `layer`."""
    language = model.model.language_model
    ids = torch.tensor([segment_tokens(segment)[0]])
    embed = model.get_input_embeddings()
    hidden = torch.cat([embed(torch.tensor([PREFIX_IDS])), visual, embed(ids)], dim=1)
    lead, after = len(PREFIX_IDS), len(PREFIX_IDS) + visual.shape[1]
    survivors = [*range(lead), *(lead + index for index in kept), *range(after, hidden.shape[1])]
    for number, block in enumerate(language.layers):
        if number == layer:
            hidden = hidden[:, survivors]
        positions = torch.arange(hidden.shape[1])[None]
        future = torch.full((1, 1, hidden.shape[1], hidden.shape[1]), -torch.inf).triu(1)
        turns = language.rotary_emb(hidden, positions)
        hidden = block(hidden, attention_mask=future, position_ids=positions, position_embeddings=turns)
    logits: torch.Tensor = model.lm_head(language.norm(hidden[0, -ids.shape[1] :]))
    return logits


@pytest.mark.parametrize("layer", [0, 4, 7])
@torch.no_grad()
def test_packed_logits_with_a_cut_equal_single_prompts_that_lose_rows(
    model: LlavaForConditionalGeneration, pictures: list[list[Segment]], layer: int
) -> None:
    visual = torch.randn(2, 20, 128)
    kept = [[0, 3, 4, 11, 19], [1, 2, 9, 10, 18]]
    together = pack(pictures)
    packed = answer_logits(model, visual, together, Cut(layer, torch.tensor(kept)))
    whole = answer_logits(model, visual, together)
    for row, segments in enumerate(pictures):
        for number, segment in enumerate(segments, start=1):
            here = together.segments[row] == number
            single = alone_cut(model, visual[row : row + 1], segment, layer, kept[row])
            torch.testing.assert_close(packed[row][here], single, atol=2e-5, rtol=1e-4)
            assert (whole[row][here] - single).abs().max() > 1e-3  # the lost rows did tell


@torch.no_grad()
def test_a_cut_that_keeps_all_changes_nothing_and_one_at_the_first_layer_is_a_shorter_prompt(
    model: LlavaForConditionalGeneration, pictures: list[list[Segment]]
) -> None:
    visual = torch.randn(2, 20, 128)
    together = pack(pictures)
    every = torch.arange(20).expand(2, -1)
    some = every[:, ::3]
    uncut = answer_logits(model, visual, together)
    torch.testing.assert_close(answer_logits(model, visual, together, Cut(4, every)), uncut)
    shorter = answer_logits(model, visual[:, ::3], together)
    torch.testing.assert_close(answer_logits(model, visual, together, Cut(0, some)), shorter)


def test_two_turns_teach_both_answers_and_their_ends() -> None:
    turns = (Question("exist", "is there any star?", "no"), Question("position", "where is the star?", "top left"))
    ids, targets = segment_tokens(turns)
    assert ids == word_ids("is there any star? assistant: no user: where is the star? assistant: top left")
    taught = [(ids[i], target) for i, target in enumerate(targets) if target != IGNORED]
    end = VOCABULARY[EOS]
    no, top, left, colon = (VOCABULARY[word] for word in ("no", "top", "left", ":"))
    assert taught == [(colon, no), (no, end), (colon, top), (top, left), (left, end)]
