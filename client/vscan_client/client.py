"""The client for programs without an event loop: the asynchronous one, run in a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from opentelemetry import trace

from vscan.specs import ReductionSpec
from vscan_client._loop_thread import LoopThread
from vscan_client.answer import Answer, Place
from vscan_client.async_client import DEFAULT_SERVER, AsyncClient
from vscan_client.content import Message, VisualLike
from vscan_client.description import Description, EncoderDescription
from vscan_client.encoded import Encoded
from vscan_client.options import Affinity, AskOptions, Retry, ServerLike, Timeout, Tls, TokenLike
from vscan_client.stream import AnswerStream


class Client:
    """Asks a deployment questions about images and videos.

        with Client(server="127.0.0.1:7070") as client:
            answer = client.ask("photo.jpg", "What colour is the car?")

    Where an image is wanted a video may stand, and bytes or files that plainly are videos are taken as such (a GIF is an image
    unless it is made a `Video`). What was sent once goes as its digest (32 bytes) the next time; the client sends the bytes by
    itself if the server has lost it. Errors are those of `vscan.errors`. Any number of threads may use one client. Close it, or
    use it in a `with`.

    Args:
        server: address of the decoder, `host:port`; several, or `dns:///name:port` for all addresses of a name: then requests
            that begin with the same image or video go to the same one, and on to the next where that is busy or away.
        encoder: address of the encoder, for `encode` and `lookup`; or several, in the same way.
        tls: encrypt; `None` is plaintext, refused beyond loopback unless `insecure`.
        insecure: allow plaintext beyond loopback, where the network protects itself.
        token: the bearer token that shows who calls, or a function that gives one for each try (it must not block). It is sent
            over TLS, on this machine, or where `insecure` allows plaintext; nowhere else.
        token_file: a file with the token instead; read again when it changes.
        timeout: how long to wait.
        retry: when to try again.
        affinity: how calls are spread over several endpoints.
        remembered_images: how many images and videos to remember as sent; 0 always sends bytes.
        tracer_provider: OpenTelemetry's; `None`: the global one.
    """

    def __init__(
        self,
        *,
        server: ServerLike = DEFAULT_SERVER,
        encoder: ServerLike | None = None,
        tls: Tls | None = None,
        insecure: bool = False,
        token: TokenLike | None = None,
        token_file: Path | None = None,
        timeout: Timeout | None = None,
        retry: Retry | None = None,
        affinity: Affinity | None = None,
        remembered_images: int = 4096,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._client = AsyncClient(
            server=server,
            encoder=encoder,
            tls=tls,
            insecure=insecure,
            token=token,
            token_file=token_file,
            timeout=timeout,
            retry=retry,
            affinity=affinity,
            remembered_images=remembered_images,
            tracer_provider=tracer_provider,
        )
        self._loop = LoopThread("vscan-client")

    def ask(self, images: VisualLike | Sequence[VisualLike], question: str, **options: Unpack[AskOptions]) -> Answer:
        """Asks about one image or video or several, and waits for the whole answer."""
        return self._loop.run(self._client.ask(images, question, **options))

    def chat(self, messages: Sequence[Message], **options: Unpack[AskOptions]) -> Answer:
        """Answers the last message of a conversation, which is the user's."""
        return self._loop.run(self._client.chat(messages, **options))

    def raw(self, prompt: str, images: VisualLike | Sequence[VisualLike] = (), **options: Unpack[AskOptions]) -> Answer:
        """Goes on with a prompt in the model's own syntax: a placeholder for each image or video. Servers may refuse it."""
        return self._loop.run(self._client.raw(prompt, images, **options))

    def stream(self, images: VisualLike | Sequence[VisualLike], question: str, **options: Unpack[AskOptions]) -> AnswerStream:
        """`ask`, event by event."""
        return AnswerStream(self._client.stream(images, question, **options), self._loop)

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[AskOptions]) -> AnswerStream:
        """`chat`, event by event."""
        return AnswerStream(self._client.stream_chat(messages, **options), self._loop)

    def stream_raw(
        self, prompt: str, images: VisualLike | Sequence[VisualLike] = (), **options: Unpack[AskOptions]
    ) -> AnswerStream:
        """`raw`, event by event."""
        return AnswerStream(self._client.stream_raw(prompt, images, **options), self._loop)

    def encode(
        self, image: VisualLike, *, reduction: ReductionSpec | None = None, tokens: bool = False, timeout: float | None = None
    ) -> Encoded:
        """Has the encoder make and cache the tokens of an image or video before anybody asks; `tokens`: they come back too."""
        return self._loop.run(self._client.encode(image, reduction=reduction, tokens=tokens, timeout=timeout))

    def lookup(
        self, images: VisualLike | Sequence[VisualLike], *, reduction: ReductionSpec | None = None, timeout: float | None = None
    ) -> tuple[Place | None, ...]:
        """Where the tokens of images, or of videos of one sampling, are cached, `None` for nowhere; moves and makes nothing.

        Of several encoders one is asked, that of the first image: it sees the shared cache and its own memory.
        """
        return self._loop.run(self._client.lookup(images, reduction=reduction, timeout=timeout))

    def describe(self, *, timeout: float | None = None) -> Description:
        """The deployment's model, limits and defaults."""
        return self._loop.run(self._client.describe(timeout=timeout))

    def describe_encoder(self, *, timeout: float | None = None) -> EncoderDescription:
        """The encoder alone: its model, limits and defaults."""
        return self._loop.run(self._client.describe_encoder(timeout=timeout))

    def close(self) -> None:
        """Ends what is under way (it gets `Cancelled`), the connections and the client's own thread. Safe to call again."""
        if not self._loop.closed:
            self._loop.run(self._client.aclose())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
