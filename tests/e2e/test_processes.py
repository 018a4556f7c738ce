"""Encoder, decoder and Redis as processes of their own, on the embedded model: what one of them found out, all know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded_model.album import draw_album
from tests.support.asking import Reply, ask, chat, decoder_stub
from tests.support.redis_server import RedisServer
from tests.support.stack import ProcessStack, process_stack

PICTURE = draw_album(3, pictures=1, questions=1)[0]
QUESTION = PICTURE.questions[0].text


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[ProcessStack]:
    with RedisServer() as redis, process_stack(tmp_path, redis=redis) as stack:
        yield stack


async def answer(stack: ProcessStack, image: bytes) -> Reply:
    async with decoder_stub(stack.decoder_address) as stub:
        # Channels to one address share their back-off: after a restart even a new one may wait before it connects.
        return await ask(stub, chat(image, QUESTION, ignore_eos=False), wait_for_ready=True)


async def test_an_image_is_encoded_once_whoever_restarts(stack: ProcessStack) -> None:
    digest = hashlib.sha256(PICTURE.png()).digest()
    cold = await answer(stack, PICTURE.png())
    assert cold.places == ["ENCODED"]
    repeated = await answer(stack, digest)
    assert (repeated.places, repeated.text) == (["MEMORY"], cold.text)

    assert stack.stop() == (0, 0)
    stack.start()
    after = await answer(stack, digest)
    assert (after.places, after.text) == (["REDIS"], cold.text)

    stack.encoder.kill()
    without_encoder = await answer(stack, digest)
    assert (without_encoder.places, without_encoder.text) == (["MEMORY"], cold.text)
