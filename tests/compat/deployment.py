"""An encoder, a decoder and a client, each of whatever checkout; the same pictures and questions for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded_model.album import draw_album
from tests.compat.checkout import Checkout
from tests.compat.tap import tapped
from tests.compat.tape import Call
from tests.support.redis_server import RedisServer, free_port

ASKER = Path(__file__).parent / "asker.py"
_SEED, _PICTURES, _QUESTIONS = 11, 3, 2
_COMMON: dict[str, Any] = {"torch_threads": 1, "drain_seconds": 0}


@dataclass(frozen=True, slots=True)
class Parts:
    """Which code is which."""

    encoder: Checkout
    decoder: Checkout
    client: Checkout


def draw_questions(folder: Path) -> None:
    """Pictures as files, and `questions.json`: pairs of a file's name and a question."""
    asked = []
    for number, picture in enumerate(draw_album(_SEED, pictures=_PICTURES, questions=_QUESTIONS)):
        name = f"{number}.png"
        (folder / name).write_bytes(picture.png())
        asked += [[name, question.text] for question in picture.questions]
    (folder / "questions.json").write_text(json.dumps(asked))


@dataclass(frozen=True, slots=True)
class Running:
    """A deployment of embedded models over one Redis."""

    parts: Parts
    decoder: str
    encoder: str

    def ask(self, questions: Path) -> list[dict[str, Any]]:
        """What the client makes of the answers to all questions."""
        said = self.parts.client.run(ASKER, self.decoder, self.encoder, str(questions))
        return [json.loads(line) for line in said.splitlines()]


@contextmanager
def running(
    parts: Parts,
    folder: Path,
    *,
    redis: RedisServer | None = None,
    asked: list[Call] | None = None,
    encoded: list[Call] | None = None,
) -> Iterator[Running]:
    """Both services, ready. Into `asked` and `encoded` goes what each of them is asked, where they are given."""
    common = {**_COMMON, "redis_url": redis.url if redis else ""}
    encoder_service = parts.encoder.service("encoder", folder, common)
    encoder_service.address = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        encoder = encoder_service.address if encoded is None else stack.enter_context(tapped(encoder_service.address, encoded))
        decoder_service = parts.decoder.service("decoder", folder, {**common, "encoder_address": encoder})
        for service in (encoder_service, decoder_service):
            stack.callback(service.stop)
            service.launch()
        encoder_service.wait_ready()
        decoder_service.wait_ready()
        address = decoder_service.address
        decoder = address if asked is None else stack.enter_context(tapped(address, asked))
        yield Running(parts, decoder, encoder)
