"""On a CUDA device: a decode step that cannot be recorded. By its name the last file to run: its fault would harm others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from decoder_service.language.base import LanguageModel
from tests.gpu.engines import TOLERANCE, assert_same, engine_of, language, needs_pages, questions
from tests.support.engines import run_all

pytestmark = pytest.mark.gpu


def test_recording_that_fails_leaves_a_device_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at numbers is refused while a graph is recorded."""
    model = language("llava15", torch.bfloat16)
    needs_pages(model)
    asked = questions(model, (30, 300))
    expected = run_all(engine_of(model, recorded=False), asked)
    before = torch.cuda.current_stream()
    walk = LanguageModel.walk

    def looking(self: LanguageModel, *given: Any, **told: Any) -> torch.Tensor:
        rows = walk(self, *given, **told)
        rows.sum().item()
        return rows

    monkeypatch.setattr(LanguageModel, "walk", looking)
    engine = engine_of(model)
    monkeypatch.undo()
    assert not engine._runner._graphs._steps
    assert torch.cuda.current_stream() == before
    found = run_all(engine, asked)
    for name, events in expected.items():
        assert_same(found[name], events, tolerance=TOLERANCE[torch.bfloat16])
