"""A deployment of this project, asked through the SDK as any program does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studies.load.album import Album
from studies.load.targets.base import Seen
from studies.load.workload import Ask
from vscan.specs import SamplingSpec
from vscan_client import AsyncClient, Retry, Started, TextDelta
from vscan_client.options import AskOptions

# A retry would hide a failure, and put more load on a server that has too much.
NO_RETRY = Retry(attempts=1)


class Deployment:
    """Sends each image once, then its digest, as the SDK does; no call is tried again.

    Args:
        client_arguments: of `AsyncClient`.
        album: the images.
        styles: for each style of the mix how the request is reduced and pruned.
    """

    def __init__(self, client_arguments: Mapping[str, Any], album: Album, styles: Sequence[AskOptions]) -> None:
        self._client = AsyncClient(**{**client_arguments, "retry": NO_RETRY})
        self._album, self._styles = album, styles

    async def check(self) -> None:
        """Raises VScanError where the server cannot be reached."""
        await self._client.describe()

    async def ask(self, ask: Ask, seen: Seen) -> None:
        """See `Target`."""
        options: AskOptions = {**self._styles[ask.style], "sampling": _length(ask.answer_tokens)}
        async with self._client.stream([self._album[number] for number in ask.images], ask.question, **options) as stream:
            async for event in stream:
                if isinstance(event, Started):
                    before, after = (
                        sum(getattr(image, f"tokens_{side}") for image in event.images) for side in ("before", "after")
                    )
                    places = [str(image.place) for image in event.images]
                    seen.visual(before=before, after=after, average=None, places=places)
                elif isinstance(event, TextDelta) and (event.text or event.tokens):
                    seen.content()
            usage = stream.answer.usage
        seen.usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)
        seen.visual(before=before, after=after, average=usage.visual_tokens_average, places=places)

    async def close(self) -> None:
        """See `Target`."""
        await self._client.aclose()


def _length(tokens: int | None) -> SamplingSpec:
    return SamplingSpec() if tokens is None else SamplingSpec(max_new_tokens=tokens, ignore_eos=True)
