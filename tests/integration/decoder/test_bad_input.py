"""Bad input: a clear error that names the field and the limit, and the next request works."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from PIL import Image

from tests.support.asking import PICTURE, ask, chat, decoder_stub, part, raw, refusal
from tests.support.stack import in_process_stack
from vscan.errors import FailedPrecondition, InvalidArgument, MissingImages, PermissionDenied
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc, visual_tokens_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")
Stub = decoder_pb2_grpc.DecoderStub
IMAGE = "messages[0].parts[0].image"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    async with in_process_stack(decoder={"max_text_chars": 40_000}) as stack, decoder_stub(stack.decoder_address) as stub:
        yield stub


def picture(size: tuple[int, int], form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, form)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is side x side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def reduced(**budget: float) -> pb.GenerateRequest:
    request = chat(PICTURE, "w1")
    request.reduction.budget.CopyFrom(visual_tokens_pb2.Budget(**budget))  # type: ignore[arg-type]
    return request


def pruned(*budgets: pb.PruneBudget) -> pb.GenerateRequest:
    request = chat(PICTURE, "w1")
    request.prune.budgets.extend(budgets)
    return request


def with_part(bad: pb.Part) -> pb.GenerateRequest:
    request = chat("w1")
    request.chat.messages[0].parts.append(bad)
    return request


def with_system_message() -> pb.GenerateRequest:
    request = chat("w1")
    request.chat.messages.insert(0, pb.Message(role=pb.ROLE_SYSTEM, parts=[part("w2")]))
    return request


def images(*counts: int) -> pb.GenerateRequest:
    """So many images in each message."""
    messages = [pb.Message(role=pb.ROLE_USER, parts=[part(PICTURE)] * count) for count in counts]
    return pb.GenerateRequest(chat=pb.Chat(messages=messages))


# What is asked, the field that is named, and words of the message.
INVALID: dict[str, tuple[pb.GenerateRequest, str, str]] = {
    "not an image": (chat(b"this is no image at all", "w1"), IMAGE, ""),
    "truncated": (chat(PICTURE[: len(PICTURE) // 2], "w1"), IMAGE, ""),
    "1x1": (chat(picture((1, 1)), "w1"), IMAGE, "limit"),
    "a decompression bomb": (chat(bomb(40_000), "w1"), IMAGE, "limit"),
    "an unsupported format": (chat(picture((64, 64), "PPM"), "w1"), IMAGE, ""),
    "an image without source": (with_part(pb.Part(image=visual_tokens_pb2.Image())), "messages[0].parts[1].image", "neither"),
    "an empty part": (with_part(pb.Part()), "messages[0].parts[1]", "neither text, image nor video"),
    "100 images": (images(50, 50), "messages", "100 images, limit 16"),
    "100 images in one message": (images(100), "messages", "100 images, limit 16"),
    "a prompt over the context": (chat("w1 " * 4200, max_new_tokens=4), "messages", "limit 4096 tokens"),
    "an image over the context": (chat(PICTURE, "w1 " * 4085, max_new_tokens=1), "messages", "limit 4096 tokens"),
    "a raw prompt over the context": (raw("w1 " * 4200, max_new_tokens=4), "raw.text", "limit 4096 tokens"),
    "an answer over the context": (chat("w1", max_new_tokens=4096), "sampling.max_new_tokens", "limit 4096 tokens"),
    "2 placeholders, 1 image": (raw("<image> <image> w1", PICTURE), "raw.images", "2 placeholders for 1 images, limit one"),
    "no placeholder": (raw("w1", PICTURE), "raw.images", "0 placeholders for 1 images, limit one for each image"),
    "temperature -1": (chat("w1", temperature=-1), "sampling.temperature", "-1, limit 0 to 2"),
    "temperature NaN": (chat("w1", temperature=float("nan")), "sampling.temperature", "nan, limit 0 to 2"),
    "top_p NaN": (chat("w1", top_p=float("nan")), "sampling.top_p", "nan, limit over 0 to 1"),
    "a budget of 0": (reduced(tokens_per_tile=0), "reduction.budget.tokens_per_tile", "0, limit"),
    "a budget above N": (reduced(tokens_per_tile=577), "reduction.budget.tokens_per_tile", "577, limit 576"),
    "a ratio of NaN": (reduced(ratio=float("nan")), "reduction.budget.ratio", "nan, limit over 0 to 1"),
    "an average over 1": (reduced(target_average=1.5), "reduction.budget.target_average", "1.5, limit over 0 to 1"),
    "a prune budget of 0": (pruned(pb.PruneBudget(tokens=0)), "prune.budgets[0].tokens", "0, limit at least 1"),
    "a prune ratio of NaN": (pruned(pb.PruneBudget(ratio=float("nan"))), "prune.budgets[0].ratio", "nan"),
    "too many prune budgets": (pruned(*[pb.PruneBudget(tokens=4)] * 2), "prune.budgets", "2, limit one for each"),
    "no prompt": (pb.GenerateRequest(), "prompt", "not set"),
    "no messages": (pb.GenerateRequest(chat=pb.Chat()), "messages", "0 messages"),
    "long text": (chat("w" * 40_001), "messages", "40,001 characters of text, limit 40,000"),
    "a short digest": (
        with_part(pb.Part(image=visual_tokens_pb2.Image(sha256=b"abc"))),
        "messages[0].parts[1].image.sha256",
        "3 bytes, limit 32 bytes",
    ),
    "a system message": (with_system_message(), "messages[0].role", "no place for system messages"),
}


@pytest.mark.parametrize(("request_", "field", "words"), INVALID.values(), ids=INVALID)
async def test_bad_input_is_named_and_the_next_request_works(
    stub: Stub, request_: pb.GenerateRequest, field: str, words: str
) -> None:
    error = await refusal(stub, request_)
    assert isinstance(error, InvalidArgument)
    assert error.field == field
    assert words in error.message
    assert len((await ask(stub, chat(PICTURE, "w1"))).ids) == 6


async def test_an_unknown_digest_asks_for_the_bytes_and_the_next_request_works(stub: Stub) -> None:
    error = await refusal(stub, chat("w1", bytes(32)))
    assert isinstance(error, MissingImages)
    assert isinstance(error, FailedPrecondition)
    assert error.sha256 == (bytes(32),)
    assert error.field == "messages[0].parts[1].image"
    assert len((await ask(stub, chat(PICTURE, "w1"))).ids) == 6


async def test_bytes_that_are_no_message_are_refused_and_the_next_request_works(stub: Stub) -> None:
    async with in_process_stack() as stack:
        async with grpc.aio.insecure_channel(stack.decoder_address) as channel:
            generate = channel.unary_stream("/vscan.v1.Decoder/Generate", request_serializer=None, response_deserializer=None)
            call = generate(b"\xff\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                [event async for event in call]
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with decoder_stub(stack.decoder_address) as own:
            assert len((await ask(own, chat("w1"))).ids) == 6


async def test_raw_prompts_are_a_permission() -> None:
    async with in_process_stack(decoder={"raw_prompts": False}) as stack, decoder_stub(stack.decoder_address) as stub:
        error = await refusal(stub, raw("USER: w1 ASSISTANT:"))
        assert isinstance(error, PermissionDenied)
        assert "raw" in error.message
        assert not (await stub.Describe(pb.DescribeDecoderRequest())).raw_prompts
        assert len((await ask(stub, chat("w1"))).ids) == 6


@pytest.mark.parametrize(
    ("encoder", "decoder", "words"),
    [
        ({"max_message_bytes": 100_000}, {}, "147,456 bytes of tokens, limit 100,000 bytes of a message; keep fewer"),
        ({}, {"max_message_bytes": 100_000}, "limit 100,000 bytes"),
    ],
)
async def test_more_tokens_than_a_message_holds_are_the_reductions_fault(
    encoder: dict[str, int], decoder: dict[str, int], words: str
) -> None:
    """Whichever side takes no more."""
    small = {"max_image_bytes": 50_000, "max_video_bytes": 50_000}
    async with in_process_stack(encoder=small | encoder, decoder=decoder) as stack, decoder_stub(stack.decoder_address) as stub:
        whole, fewer = chat(picture((64, 64)), "w1"), chat(picture((64, 64)), "w1")
        whole.reduction.method = visual_tokens_pb2.REDUCTION_METHOD_NONE
        error = await refusal(stub, whole)
        assert isinstance(error, InvalidArgument)
        assert error.field == "reduction"
        assert words in error.message
        assert len((await ask(stub, fewer)).ids) == 6
