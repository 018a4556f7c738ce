"""The encoder or Redis away, and back; an encoder that does not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.asking import OTHER_PICTURE, PICTURE, ask, chat, decoder_stub, refusal
from tests.support.decoder import PARITY_CHECKPOINT, in_process_decoder
from tests.support.encoder import running_encoder
from tests.support.redis_server import RedisServer, free_port
from tests.support.service_process import health_of
from tests.support.stack import in_process_stack
from tests.support.until import until
from vscan.errors import Unavailable

SERVICE = "vscan.v1.Decoder"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def test_a_decoder_waits_for_its_encoder_and_survives_it() -> None:
    """Not there yet → not ready; there → ready; gone → cached images go on, new ones are told; back → all works again."""
    address = f"127.0.0.1:{free_port()}"
    async with in_process_decoder(address, ready=False) as decoder, decoder_stub(decoder.address) as stub:
        assert "encoder has not been reached" in decoder.readiness.why_not
        assert isinstance(await refusal(stub, chat(PICTURE, "w1")), Unavailable)

        async with running_encoder(bind=address):
            await decoder.readiness.wait_ready()
            first = await ask(stub, chat(PICTURE, "w1"))
            assert first.places == ["ENCODED"]

        again = await ask(stub, chat(PICTURE, "w1"))
        assert (again.places, again.ids) == (["MEMORY"], first.ids)
        error = await refusal(stub, chat(OTHER_PICTURE, "w1"))
        assert isinstance(error, Unavailable)
        assert "encoder" in error.message

        async with running_encoder(bind=address):

            async def works_again() -> bool:
                try:
                    return (await ask(stub, chat(OTHER_PICTURE, "w1"))).places == ["ENCODED"]
                except Unavailable:
                    return False

            await until(works_again, what="the encoder to be found again")


async def test_an_encoder_that_does_not_fit_is_named_in_health_and_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = shutil.copytree(PARITY_CHECKPOINT, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["rope_parameters"]["rope_theta"] = 20000.0
    (other / "config.json").write_text(json.dumps(config))
    async with (
        running_encoder(model=other) as encoder,
        in_process_decoder(encoder.address, ready=False) as decoder,
        decoder_stub(decoder.address) as stub,
    ):
        await until(lambda: "another checkpoint" in decoder.readiness.why_not, what="the misfit to be seen")
        serving, why = await _health(decoder.address)
        assert not serving
        assert "another checkpoint" in why
        assert "'other'" in why
        assert any("another checkpoint" in record.getMessage() for record in caplog.records)
        error = await refusal(stub, chat(PICTURE, "w1"))
        assert isinstance(error, Unavailable)
        assert "another checkpoint" in error.message


async def test_redis_killed_mid_run_costs_nothing_but_speed(redis: RedisServer) -> None:
    """Answers go on without it, and it is used again when it is back."""
    quick = {"redis_breaker_pause_ms": 20}
    async with (
        in_process_stack(redis=redis, encoder=quick, decoder=quick | {"cache_memory_bytes": 0}) as stack,
        decoder_stub(stack.decoder_address) as stub,
    ):
        cold = await ask(stub, chat(PICTURE, "w1"))
        assert cold.places == ["ENCODED"]
        assert (await ask(stub, chat(PICTURE, "w1"))).places == ["REDIS"]
        redis.kill()
        without = await ask(stub, chat(PICTURE, "w1"))
        assert without.ids == cold.ids
        assert without.places == ["ENCODER_MEMORY"]
        assert (await ask(stub, chat(OTHER_PICTURE, "w1"))).places == ["ENCODED"]
        redis.start()

        async def found_in_redis() -> bool:
            """Nobody has written this picture yet, so the encoder must."""
            request = chat(PICTURE, "w1")
            request.reduction.budget.tokens_per_tile = 32
            return (await ask(stub, request)).places == ["REDIS"]

        await until(found_in_redis, what="Redis to be used again")


async def test_redis_away_at_start_is_no_reason_not_to_answer() -> None:
    redis = RedisServer()
    quick = {"redis_breaker_pause_ms": 20}
    async with (
        in_process_stack(redis=redis, encoder=quick, decoder=quick) as stack,
        decoder_stub(stack.decoder_address) as stub,
    ):
        assert (await ask(stub, chat(PICTURE, "w1"))).places == ["ENCODED"]
        named = await ask(stub, chat(hashlib.sha256(PICTURE).digest(), "w1"))
        assert named.places == ["MEMORY"]


async def _health(address: str) -> tuple[bool, str]:
    import asyncio

    return await asyncio.to_thread(health_of, address, SERVICE)
