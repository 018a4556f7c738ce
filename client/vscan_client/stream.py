"""An answer while it is made, for programs without an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from vscan_client._loop_thread import LoopThread
from vscan_client.answer import Answer, Event, TextDelta
from vscan_client.async_stream import AsyncAnswerStream


class AnswerStream:
    """Iterates over `Started`, `TextDelta`…, `Finished`; then `answer` is there. Asking for the first event sends the request.

        with client.stream("photo.jpg", "What is this?") as stream:
            for piece in stream.texts():
                print(piece, end="")
        print(stream.answer.usage)

    Leaving early cancels the request on the server. `close` may be called from another thread.
    """

    def __init__(self, stream: AsyncAnswerStream, loop: LoopThread) -> None:
        self._stream = stream
        self._loop = loop

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has ended. Before that: RuntimeError."""
        return self._stream.answer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self._loop.run(_next(self._stream))
        if event is None:
            raise StopIteration
        return event

    def texts(self, sample: int = 0) -> Iterator[str]:
        """The answer's text, piece by piece; of one sample where there are several. Those of the others are passed over."""
        for event in self:
            if isinstance(event, TextDelta) and event.text and event.sample == sample:
                yield event.text

    def close(self) -> None:
        """Ends the stream; the server stops working on it. A thread that is waiting for its next event gets `Cancelled`."""
        if not self._loop.closed:
            self._loop.run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


async def _next(stream: AsyncAnswerStream) -> Event | None:
    return await anext(stream, None)
