"""Many questions at once, their answers in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from studies.lmms_eval_plugin.prompts import Messages
from vscan.specs import SamplingSpec
from vscan_client import Answer, AskOptions, Client


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question on its way.

    Attributes:
        name: how it is called where it fails: its task, and its place in there.
        messages: makes its messages; called in a thread of its own, since encoding pictures takes time.
        sampling: how its answer's tokens are chosen.
    """

    name: str
    messages: Callable[[], Messages]
    sampling: SamplingSpec


class RequestFailed(RuntimeError):
    """A question that could not be posed or was not answered: no score can be made of the others. Its cause is the error."""

    def __init__(self, name: str, cause: BaseException) -> None:
        super().__init__(f"{name}: {cause}" if str(cause) else f"{name}: {type(cause).__name__}")


def ask_all(
    client: Client, prompts: Iterable[Prompt], options: AskOptions, concurrent: int, advance: Callable[[], object] | None = None
) -> list[Answer]:
    """Asks every question, `concurrent` at a time, and gives the answers in the questions' order.

    `prompts` is drawn from as places become free, never far ahead, so that a task's pictures are not all in memory.

    Raises:
        RequestFailed: a question failed. None is asked after it, and those under way are waited for.
    """
    answers: dict[int, Answer] = {}
    waiting: dict[Future[Answer], tuple[int, str]] = {}
    left = iter(enumerate(prompts))
    with ThreadPoolExecutor(concurrent, thread_name_prefix="vscan-ask") as threads:
        try:
            while _fill(waiting, left, 2 * concurrent, lambda prompt: threads.submit(_ask, client, prompt, options)):
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    place, name = waiting.pop(done)
                    answers[place] = _result(done, name)
                    if advance is not None:
                        advance()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return [answers[place] for place in range(len(answers))]


def _fill(
    waiting: dict[Future[Answer], tuple[int, str]],
    left: Iterator[tuple[int, Prompt]],
    limit: int,
    submit: Callable[[Prompt], Future[Answer]],
) -> bool:
    """Whether any is under way, after as many were begun as there is room for."""
    while len(waiting) < limit and (drawn := next(left, None)) is not None:
        place, prompt = drawn
        waiting[submit(prompt)] = place, prompt.name
    return bool(waiting)


def _ask(client: Client, prompt: Prompt, options: AskOptions) -> Answer:
    asked: AskOptions = {**options, "sampling": prompt.sampling}
    return client.chat(prompt.messages(), **asked)


def _result(done: Future[Answer], name: str) -> Answer:
    try:
        return done.result()
    except Exception as error:
        raise RequestFailed(name, error) from error
