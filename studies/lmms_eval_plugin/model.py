"""The two classes that lmms-eval calls; the only file that imports it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.models.model_utils.usage_metrics import log_usage
from loguru import logger
from tqdm import tqdm

from studies.lmms_eval_plugin.arguments import Given, parse_arguments
from studies.lmms_eval_plugin.asking import Prompt, RequestFailed, ask_all
from studies.lmms_eval_plugin.generation import sampling_of, unknown_names
from studies.lmms_eval_plugin.media import visuals_of
from studies.lmms_eval_plugin.prompts import Messages, from_messages, from_text, misses_placeholders
from studies.lmms_eval_plugin.summary import summarize
from vscan_client import Answer, Client
from vscan_client.cli.connection import patient_retry


class _VScan(lmms):  # type: ignore[misc]
    """Asks a deployment. Arguments as `parse_arguments` reads them. Raises a `VScanError` if there is none."""

    def __init__(self, **given: Given) -> None:
        super().__init__()
        self._arguments = parse_arguments(given)
        self._sampling = self._arguments.budgets.frame_sampling()
        self._told: set[str] = set()
        self.device = "cpu"
        with self._client() as client:
            decoder = client.describe().decoder
        self.model_name = decoder.model
        logger.info(f"{decoder.model} ({decoder.family}); by default {decoder.reduction}, {decoder.prune}")

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """The answers, in the questions' order. Raises RequestFailed, which names the document, and scores nothing then."""
        arguments = self._arguments
        with self._client() as client, tqdm(total=len(requests), desc="asking", disable=self.rank != 0) as shown:
            prompts = map(self._prompt, requests)
            answers = ask_all(client, prompts, arguments.budgets.ask_options(), arguments.concurrent, shown.update)
        self._tell(requests, answers)
        return [GenerationResult(answer.text, _counts(answer)) for answer in answers]

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Raises NotImplementedError."""
        raise NotImplementedError(
            f"{_tasks(requests)}: vscan-serve generates answers and does not score given ones; "
            "take the task's variant with `output_type: generate_until`"
        )

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Raises NotImplementedError."""
        raise NotImplementedError(f"{_tasks(requests)}: questions in several rounds are not supported")

    @property
    def chat_template(self) -> NoReturn:
        """Raises NotImplementedError; lmms-eval asks for it with `--apply_chat_template`."""
        raise NotImplementedError("the deployment applies its model's own chat template: leave --apply_chat_template out")

    def _prompt(self, request: Instance) -> Prompt:
        name = f"task {request.task_name}, doc {request.doc_id}"
        try:
            messages, kwargs = self._posed(request, name)
            for unknown in unknown_names(kwargs):
                self._warn_once(
                    f"{request.task_name}: generation_kwargs.{unknown} means nothing to vscan-serve and is left out"
                )
            return Prompt(name, messages, sampling_of(kwargs, seed=self._arguments.budgets.seed))
        except Exception as error:
            raise RequestFailed(name, error) from error

    def _posed(self, request: Instance, name: str) -> tuple[partial[Messages], dict[str, Any]]:
        raise NotImplementedError

    def _document(self, task: str, split: str, doc_id: int) -> Any:
        return self.task_dict[task][split][doc_id]

    def _client(self) -> Client:
        arguments = self._arguments
        return Client(**arguments.connection.client_arguments(None, patient_retry(arguments.concurrent)))

    def _tell(self, requests: Sequence[Instance], answers: Sequence[Answer]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            log_usage(self.model_name, request.task_name, answer.usage.prompt_tokens, answer.usage.completion_tokens)
        summary = summarize(answers)
        log_metrics(summary.seconds, summary.tokens, summary.tokens_per_second, summary.further)
        if summary.empty:
            logger.warning(f"{summary.empty} of {len(answers)} answers are empty: the model ended them at once")

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning(text)


class SimpleVScan(_VScan):
    """For tasks that pose a question as a text beside pictures."""

    is_simple = True

    def _posed(self, request: Instance, name: str) -> tuple[partial[Messages], dict[str, Any]]:
        text, kwargs, doc_to_visual, doc_id, task, split = request.args
        held = doc_to_visual(self._document(task, split, doc_id))
        return partial(self._messages, name, text, held), kwargs

    def _messages(self, name: str, text: str, held: Any) -> Messages:
        visuals = visuals_of(held, self._sampling)
        if misses_placeholders(text, visuals):
            logger.warning(f"{name}: not one placeholder for each of its {len(visuals)} images; they stand before the text")
        return from_text(text, visuals, self._arguments.system_prompt)


class ChatVScan(_VScan):
    """For tasks that pose a question as messages."""

    is_simple = False

    def _posed(self, request: Instance, name: str) -> tuple[partial[Messages], dict[str, Any]]:
        _, doc_to_messages, kwargs, doc_id, task, split = request.args
        messages = doc_to_messages(self._document(task, split, doc_id))
        return partial(from_messages, messages, self._sampling, self._arguments.system_prompt), kwargs


def _counts(answer: Answer) -> TokenCounts:
    return TokenCounts(input_tokens=answer.usage.prompt_tokens, output_tokens=answer.usage.completion_tokens)


def _tasks(requests: Sequence[Instance]) -> str:
    return ", ".join(sorted({str(request.task_name) for request in requests}))
