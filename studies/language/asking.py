"""A study's questions as prompts, each picture encoded once for the questions that follow each other about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from studies.inputs import Question
from vscan.config import load_settings
from vscan.errors import InvalidArgument
from vscan.specs import ReductionMethod, ReductionSpec

if TYPE_CHECKING:
    from decoder_service.request import Prompt
    from studies.study import Task
    from vscan.visual_tokens import VisualTokens

# Of how many pictures the tokens are held.
_HELD = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and its prompt with the visual tokens that the encoder hands over."""

    question: Question
    prompt: Prompt

    @property
    def pictures(self) -> str:
        """Tells the question's pictures from those of others."""
        return ",".join(map(str, self.question.pictures))


def prompts(task: Task, answer_tokens: int = 1) -> Iterator[Asked]:
    """Every question of the task, in order; advances behind each.

    Args:
        answer_tokens: of each answer that are to be read; all but the last stand behind the prompt.

    Raises:
        InvalidArgument: a question or a picture that cannot be read, by its name; a prompt that, with its answer, is longer
            than the model's context.
    """
    reduction = asked_reduction(task)
    model, most = task.model.language.model, task.model.language.model.shape.max_context_tokens

    @lru_cache(maxsize=_HELD)
    def tokens(picture: int) -> VisualTokens:
        vision = task.model.vision
        return vision.encode(vision.see(task.inputs.pictures[picture]), reduction)

    for question in task.inputs.questions:
        prompt = task.model.language.prompt(question.text, [tokens(picture) for picture in question.pictures])
        taken = max(model.positions_taken(prompt), prompt.rows) + answer_tokens - 1
        if taken > most:
            raise InvalidArgument(f"question {question.id}", f"{taken:,} tokens", limit=f"{most:,}")
        yield Asked(question, prompt)
        task.advance()


def prune_layers(task: Task) -> tuple[int, ...]:
    """Before which layers a decoder prunes this model, by the settings in the environment. Raises StartupError."""
    from decoder_service.config import DecoderSettings

    return load_settings(DecoderSettings).prunes_before(task.model.language.model.shape.layers)


def asked_reduction(task: Task) -> ReductionSpec:
    """What stage 1 is to do: nothing, unless `--reduction` says so, within `--budget` or what an encoder keeps by default.

    Raises:
        InvalidArgument: a budget, and nothing that reads it.
    """
    method, budget = task.options.get("reduction", ReductionMethod.NONE), task.options.get("budget")
    if budget is not None and method is ReductionMethod.NONE:
        raise InvalidArgument("--budget", "nothing is reduced", limit="with --reduction")
    return ReductionSpec(method=method, budget=budget).filled_from(task.model.default_reduction)
