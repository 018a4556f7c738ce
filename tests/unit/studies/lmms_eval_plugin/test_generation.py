"""`generation_kwargs` of lmms-eval's tasks."""

from __future__ import annotations

from typing import Any

import pytest

from studies.lmms_eval_plugin.generation import sampling_of, unknown_names
from vscan.errors import InvalidArgument
from vscan.specs import SamplingSpec


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, SamplingSpec(temperature=0.0)),
        ({"max_new_tokens": 16, "temperature": 0, "num_beams": 1}, SamplingSpec(max_new_tokens=16, temperature=0.0)),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, SamplingSpec(temperature=0.0)),
        ({"do_sample": True}, SamplingSpec(temperature=1.0, seed=4)),
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 20}, SamplingSpec(temperature=0.7, top_p=0.9, top_k=20, seed=4)),
        ({"do_sample": True, "temperature": 0.2, "seed": 9}, SamplingSpec(temperature=0.2, seed=9)),
        ({"until": ["\n\n", "", "ASSISTANT:", "\n\n"]}, SamplingSpec(temperature=0.0, stop=("\n\n", "ASSISTANT:"))),
        ({"until": "\n"}, SamplingSpec(temperature=0.0, stop=("\n",))),
        ({"until": None}, SamplingSpec(temperature=0.0)),
    ],
)  # fmt: skip
def test_what_a_task_asks_is_asked(given: dict[str, Any], asked: SamplingSpec) -> None:
    assert sampling_of(given, seed=4) == asked


@pytest.mark.parametrize("given", [{"num_beams": 4}, {"n": 2}, {"until": [1]}])
def test_what_the_service_has_not_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="generation_kwargs"):
        sampling_of(given)


def test_what_means_nothing_here_is_told() -> None:
    assert unknown_names({"image_aspect_ratio": "original", "until": "\n", "modality": None}) == ["image_aspect_ratio"]
