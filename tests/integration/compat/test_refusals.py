"""What services say to what cannot be met: the client understands an earlier release, and this one says the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
import pytest

from embedded_model import checkpoint_dir
from tests.compat.refusals import ENCODE, GENERATE, refused_requests
from tests.compat.tape import Call, Tape
from tests.compat.wire import Refused, Wire, serving
from tests.support.decoder import in_process_decoder
from tests.support.encoder import running_encoder
from vscan.errors import VScanError
from vscan.rpc.error_details import error_from_rpc
from vscan_client import AsyncClient

SAID = [(name, field) for _, _, name, field in refused_requests()]


def told(error: VScanError) -> tuple[str, str]:
    return type(error).__name__, getattr(error, "field", "")


async def heard(call: Call) -> tuple[str, str]:
    """What the SDK raises where a server refuses so."""

    def refuse(method: str, request: bytes) -> Iterable[bytes]:
        raise Refused(call.code, call.details)

    async with serving(refuse) as address, AsyncClient(server=address, encoder=address) as client:
        with pytest.raises(VScanError) as caught:
            await (client.ask(b"anything", "anything") if call.method == GENERATE else client.encode(b"anything"))
    return told(caught.value)


async def test_the_client_hears_what_the_earlier_services_said(tape: Tape) -> None:
    assert [await heard(call) for call in tape.refused] == SAID
    # By the details, not by the code alone.
    (bare, *_) = tape.refused
    assert await heard(Call(bare.method, bare.request, code=bare.code)) != SAID[0]


async def test_the_services_say_it_as_the_earlier_ones_did(tape: Tape) -> None:
    settings: dict[str, Any] = {"model": checkpoint_dir(), "dtype": "auto", "drain_seconds": 0}
    async with (
        running_encoder(**settings, shallow_layer=None, window=None) as encoder,
        in_process_decoder(encoder.address, model=checkpoint_dir()) as decoder,
        Wire(encoder.address) as to_encoder,
        Wire(decoder.address) as to_decoder,
    ):
        for call, said in zip(tape.refused, SAID, strict=True):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await (to_encoder if call.method == ENCODE else to_decoder).call(call.method, call.request)
            assert refused.value.code().name == call.code
            assert told(error_from_rpc(refused.value)) == said
