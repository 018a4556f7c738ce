"""A decoder with two encoders behind one target: what one of them refuses, since it stops, the other answers."""

from __future__ import annotations

from typing import Any

from tests.support.asking import OTHER_PICTURE, PICTURE, ask, chat, decoder_stub, refusal
from tests.support.decoder import in_process_decoder
from tests.support.stack import in_process_stack
from tests.support.toy_services import ToyEncoder, serving_encoder
from vscan.errors import Unavailable
from vscan.v1 import encoder_pb2

FEW = 3  # refusals after which a test has seen enough


class StoppingEncoder(ToyEncoder):
    """Says who it is, as another one would, and encodes nothing any more."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self._other = other
        self.refused = 0

    async def Describe(self, request: encoder_pb2.DescribeEncoderRequest, context: Any) -> Any:
        """The other one's description."""
        return await self._other.Describe(request)

    async def Encode(self, request: encoder_pb2.EncodeRequest, context: Any) -> encoder_pb2.EncodeResponse:
        """As the gate of a server that drains."""
        self.refused += 1
        raise Unavailable("the service is stopping")


async def test_a_decoder_asks_the_other_encoder_while_one_stops() -> None:
    async with in_process_stack() as stack:
        stopping = StoppingEncoder(stack.encoder.stub)
        async with (
            serving_encoder(stopping) as (_, address),
            in_process_decoder(f"ipv4:{stack.encoder_address},{address}", cache_memory_bytes=0) as decoder,
            decoder_stub(decoder.address) as stub,
        ):
            while stopping.refused < FEW:
                for picture in (PICTURE, OTHER_PICTURE):
                    assert (await ask(stub, chat("w7", picture))).ids


async def test_encoders_that_all_refuse_are_asked_a_few_times() -> None:
    async with in_process_stack() as stack:
        stopping = StoppingEncoder(stack.encoder.stub)
        async with (
            serving_encoder(stopping) as (_, address),
            in_process_decoder(address) as decoder,
            decoder_stub(decoder.address) as stub,
        ):
            assert isinstance(await refusal(stub, chat("w7", PICTURE)), Unavailable)
            assert stopping.refused == 6
