"""Against what the authors' released code computes on the parity checkpoint, given its visual tokens."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from decoder_service.request import Pruning, Result
from tests.support.engines import make_engine, run_all, tokens_of
from tests.support.language_models import (
    PARITY,
    PARITY_PATCHES,
    PLACEHOLDER,
    ask,
    lay_out,
    parity_language,
    parity_tokenizer,
    visual_tokens,
)
from vscan.specs import KeepTokens, Rater

TOLERANCE = 1e-4
CASES = ["llava15_96_32", "llava15_192_64", "llava15_full"]


@pytest.mark.parametrize("case", CASES)
def test_ids_and_log_probabilities_equal_the_released_code(case: str) -> None:
    stated = json.loads((PARITY / "expected" / f"{case}.json").read_text())
    expected = load_file(PARITY / "expected" / f"{case}.safetensors")
    kept = expected["kept_mask"][0].nonzero()[:, 0]
    image = visual_tokens(expected["visual_tokens"], unreduced=PARITY_PATCHES, kept=kept)
    ids = parity_tokenizer().encode(stated["prompt"]).ids
    place = ids.index(PLACEHOLDER)
    prompt = lay_out([ids[:place], image, ids[place + 1 :]], placeholder=PLACEHOLDER)
    budgets = tuple(KeepTokens(count) for count in stated["prune_keep"])
    pruning = Pruning(layers=tuple(stated["prune_layers"]), budgets=budgets, rater=Rater.LAST_TOKEN) if budgets else Pruning()

    request = ask(prompt, max_new_tokens=12, logprobs=5, pruning=pruning)
    engine = make_engine(parity_language(), prune_layers=(3,))
    events = run_all(engine, [request])[request.request_id]

    tokens = tokens_of(events)
    assert [token.token_id for token in tokens] == stated["output_token_ids"]
    top = expected["logits"].log_softmax(dim=-1).topk(5)
    assert [[token_id for token_id, _ in token.top] for token in tokens] == top.indices.tolist()
    ours = torch.tensor([[logprob for _, logprob in token.top] for token in tokens])
    assert (ours - top.values).abs().max() < TOLERANCE
    result = events[-1]
    assert isinstance(result, Result)
    assert [done.tokens_after for done in result.pruning] == stated["prune_keep"]
