"""What clients of all sorts do, mixed: well-behaved ones, hasty ones, and ones that send rubbish."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random

from PIL import Image as Pillow

from embedded_model.album import draw_album
from vscan.errors import (
    DeadlineExceeded,
    InvalidArgument,
    MissingImages,
    ResourceExhausted,
    VScanError,
)
from vscan.specs import JsonSchema, SamplingSpec
from vscan_client import AsyncClient, Image, Message, Retry, Text

_SEED, _PICTURES, _QUESTIONS = 23, 6, 3
_NEW_SIDE = 96  # pixels
_SCHEMAS = 12  # more than the decoder remembers
_HURRIED_SECONDS = (0.002, 0.05)
# More than any of them should ever need: one that waits longer has been forgotten.
_PATIENCE_SECONDS = 120.0
# Saturation is the aim: a refusal is an end like any other, and tried again by asking the next question.
_RETRY = Retry(attempts=2, budget=10)
_AFTER_A_REFUSAL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Done:
    """One request. `error`: the class of what it ended with; empty for an answer (or a stream that was left)."""

    kind: str
    began_s: float
    took_s: float
    error: str


class Caller:
    """One client, with a random mind of its own."""

    def __init__(self, server: str, number: int) -> None:
        self._client = AsyncClient(server=server, retry=_RETRY, remembered_images=64)
        self._random = Random(number)
        pictures = draw_album(_SEED, pictures=_PICTURES, questions=_QUESTIONS)
        self._album = [(picture.png(), [each.text for each in picture.questions]) for picture in pictures]
        self._new = number << 32

    async def aclose(self) -> None:
        """Closes the client."""
        await self._client.aclose()

    async def once(self) -> Done:
        """One request of a random kind."""
        (kind,) = self._random.choices(list(KINDS), [each.share for each in KINDS.values()])
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await KINDS[kind].act(self)
            error = ""
        except Exception as raised:
            error = type(raised).__name__
            if isinstance(raised, ResourceExhausted):
                await asyncio.sleep(_AFTER_A_REFUSAL_SECONDS)
        return Done(kind, began_s, time.monotonic() - began_s, error)

    async def repeated(self) -> None:
        """A picture that others ask about too."""
        png, texts = self._random.choice(self._album)
        await self._client.ask(png, self._random.choice(texts))

    async def fresh(self) -> None:
        """A picture that nobody has seen."""
        await self._client.ask(self._fresh_png(), "What is this?", sampling=SamplingSpec(max_new_tokens=4))

    async def text_only(self) -> None:
        """No picture."""
        await self._client.chat([Message.user(Text("What colour is it?"))], sampling=SamplingSpec(max_new_tokens=8))

    async def several(self) -> None:
        """Several answers to one question."""
        png, texts = self._random.choice(self._album)
        sampling = SamplingSpec(n=3, temperature=1.0, max_new_tokens=8, seed=self._random.randrange(2**31))
        await self._client.ask(png, texts[0], sampling=sampling)

    async def left(self) -> None:
        """Leaves after the first event, or the second."""
        png, texts = self._random.choice(self._album)
        events = self._random.choice((1, 2))
        async with self._client.stream(png, texts[1], sampling=SamplingSpec(max_new_tokens=64, ignore_eos=True)) as stream:
            for _ in range(events):
                await anext(stream)

    async def hurried(self) -> None:
        """Has no time."""
        await self._client.ask(self._fresh_png(), "What is this?", timeout=self._random.uniform(*_HURRIED_SECONDS))

    async def unknown(self) -> None:
        """Names a picture that nobody has sent."""
        await self._client.ask(Image.from_digest(self._random.randbytes(32)), "What is this?")

    async def rubbish(self) -> None:
        """Sends what is no picture, or asks for what there is not."""
        if self._random.random() < 0.5:
            await self._client.ask(Image.from_bytes(self._random.randbytes(2000)), "What is this?")
        else:
            await self._client.ask(self._album[0][0], "What is this?", sampling=SamplingSpec(temperature=-1.0))

    async def schema(self) -> None:
        """Wants JSON."""
        png, texts = self._random.choice(self._album)
        wanted = {"type": "integer", "minimum": 0, "maximum": 9 + self._random.randrange(_SCHEMAS)}  # the model knows digits
        await self._client.ask(png, texts[0], sampling=SamplingSpec(constraint=JsonSchema.of(wanted), max_new_tokens=24))

    def _fresh_png(self) -> bytes:
        self._new += 1
        picture = Pillow.frombytes("RGB", (8, 8), Random(self._new).randbytes(8 * 8 * 3))
        file = io.BytesIO()
        picture.resize((_NEW_SIDE, _NEW_SIDE), Pillow.Resampling.NEAREST).save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to ask: its share of all requests, and the errors that it may end with besides a refusal for want of room."""

    act: Callable[[Caller], Awaitable[None]]
    share: int
    errors: tuple[type[VScanError], ...] = ()
    must_fail: bool = False

    def expects(self, error: str) -> bool:
        """Whether a request of this kind may end so."""
        if not error:
            return not self.must_fail
        allowed: tuple[type[VScanError], ...] = (ResourceExhausted, *self.errors)
        return error in {each.__name__ for each in allowed}


KINDS: Mapping[str, Kind] = {
    "repeated": Kind(Caller.repeated, 30),
    "fresh": Kind(Caller.fresh, 20),
    "text only": Kind(Caller.text_only, 8),
    "several samples": Kind(Caller.several, 8),
    "stream left": Kind(Caller.left, 10),
    "deadline missed": Kind(Caller.hurried, 8, (DeadlineExceeded,)),
    "digest unknown": Kind(Caller.unknown, 5, (MissingImages,), must_fail=True),
    "bad input": Kind(Caller.rubbish, 5, (InvalidArgument,), must_fail=True),
    "JSON schema": Kind(Caller.schema, 6),
}
