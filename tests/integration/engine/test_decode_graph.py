"""Steps on fixed tensors, as they are recorded on a GPU; here they run as they are, over a kernel written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from decoder_service.request import Pruning
from decoder_service.runner import varlen
from decoder_service.runner.batch import Part
from decoder_service.runner.decode_graph import DecodeGraphs, DecodeStep
from tests.support.engines import ids_of, make_engine, run_all, tokens_of
from tests.support.language_models import ask, lay_out, random_image, random_language
from tests.support.varlen import plain_varlen
from vscan.specs import KeepTokens, Rater


@pytest.mark.parametrize("prune_layers", [(), (3,), (2, 4)])
def test_answers_are_those_of_other_steps(prune_layers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_language(dtype=torch.float64)

    def requests() -> list[Any]:
        made = []
        for number, new in enumerate((3, 9, 5, 7)):
            image = random_image(9, hidden=32, seed=number, dtype=torch.float64)
            layers = prune_layers if number else ()
            budgets = (KeepTokens(5), KeepTokens(2))[: len(layers)]
            pruning = Pruning(layers=layers, budgets=budgets, rater=Rater.LAST_TOKEN) if layers else Pruning()
            prompt = lay_out([[1, 5], image, [9, 11 + number]])
            made.append(ask(prompt, name=f"q{number}", max_new_tokens=new, pruning=pruning, logprobs=1))
        return made

    expected = run_all(make_engine(model, prune_layers=prune_layers), requests())
    counts: list[int] = []
    monkeypatch.setattr(varlen, "_KERNEL", plain_varlen)
    monkeypatch.setattr(varlen, "serves", lambda device, dtype: True)
    monkeypatch.setattr(varlen, "pages_serve", lambda storage, dtype: True)
    fill = DecodeStep.fill

    def counting_fill(step: DecodeStep, parts: Sequence[Part]) -> None:
        counts.append(len(parts))
        fill(step, parts)

    monkeypatch.setattr(DecodeStep, "fill", counting_fill)
    engine = make_engine(model, prune_layers=prune_layers)
    assert isinstance(engine._runner._graphs, DecodeGraphs)
    found = run_all(engine, requests())
    assert counts == [4, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1]  # the first of a number fills twice: to be recorded, and to run
    for name, events in expected.items():
        assert ids_of(found[name]) == ids_of(events)
        for one, other in zip(tokens_of(found[name]), tokens_of(events), strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-9)
