"""Bad input over real gRPC: each is refused by field and limit, and the next request works."""

import math
from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest

from tests.support.bad_images import blank, png_bomb, truncated
from tests.support.encoder import RunningEncoder, encode_request, png, running_encoder, tokens_per_tile
from vscan.errors import FailedPrecondition, InvalidArgument, MissingImages, VScanError
from vscan.v1 import encoder_pb2 as pb
from vscan.v1 import visual_tokens_pb2 as tokens_pb

MAX_IMAGE_BYTES = 500_000


def budget(**amount: Any) -> pb.EncodeRequest:
    return encode_request(png(1), budget=tokens_pb.Budget(**amount))


def named(digest: bytes) -> pb.EncodeRequest:
    return pb.EncodeRequest(image=tokens_pb.Image(sha256=digest))


# What is asked, and the whole refusal.
REFUSED: dict[str, tuple[Callable[[], pb.EncodeRequest], str]] = {
    "neither image nor video": (pb.EncodeRequest, "image: neither image nor video is set"),
    "no image": (lambda: pb.EncodeRequest(image=tokens_pb.Image()), "image: not set"),
    "empty": (lambda: encode_request(b""), "image: empty"),
    "not an image": (
        lambda: encode_request(b"hello"),
        "image: not an image of a known format, limit PNG, JPEG, GIF, TIFF, WebP, BMP",
    ),
    "ICO": (
        lambda: encode_request(blank("ICO", (32, 32))),
        "image: not an image of a known format, limit PNG, JPEG, GIF, TIFF, WebP, BMP",
    ),
    "PPM": (
        lambda: encode_request(blank("PPM", (32, 32))),
        "image: not an image of a known format, limit PNG, JPEG, GIF, TIFF, WebP, BMP",
    ),
    "truncated PNG": (lambda: encode_request(truncated("PNG")), "image: not a readable PNG file: truncated or damaged"),
    "truncated JPEG": (lambda: encode_request(truncated("JPEG")), "image: not a readable JPEG file: truncated or damaged"),
    "1 x 1": (lambda: encode_request(blank("PNG", (1, 1))), "image: 1 x 1 pixels, limit at least 8 pixels a side"),
    "thin": (lambda: encode_request(blank("PNG", (900, 9))), "image: 900 x 9 pixels, limit aspect ratio of 20 to 1"),
    "a bomb": (lambda: encode_request(png_bomb(40_000)), "image: 1,600 MP, limit 50 MP"),
    "too many bytes": (lambda: encode_request(bytes(MAX_IMAGE_BYTES + 1)), "image: 500,001 bytes, limit 500,000 bytes"),
    "a budget of 0": (
        lambda: budget(tokens_per_tile=0),
        "reduction.budget.tokens_per_tile: 0, limit 1 to the tokens of a tile",
    ),
    "a budget above N": (
        lambda: budget(tokens_per_tile=577),
        "reduction.budget.tokens_per_tile: 577, limit 576 tokens of a tile",
    ),
    "a ratio of NaN": (lambda: budget(ratio=math.nan), "reduction.budget.ratio: nan, limit over 0 to 1"),
    "a ratio over 1": (lambda: budget(ratio=1.5), "reduction.budget.ratio: 1.5, limit over 0 to 1"),
    "an average of 0": (lambda: budget(target_average=0), "reduction.budget.target_average: 0, limit over 0 to 1"),
    "a local share of NaN": (
        lambda: encode_request(png(1), local_share=math.nan),
        "reduction.local_share: nan, limit 0 to 1",
    ),
    "an unknown method": (lambda: encode_request(png(1), method=99), "reduction.method: unknown value 99"),
    "a short digest": (lambda: named(b"short"), "image.sha256: 5 bytes, limit exactly 32 bytes"),
    "an unknown reply form": (
        lambda: pb.EncodeRequest(image=tokens_pb.Image(data=png(1)), reply_form=9),  # type: ignore[arg-type]
        "reply_form: unknown value 9",
    ),
}


async def refusal(encoder: RunningEncoder, request: pb.EncodeRequest) -> VScanError:
    error = await encoder.refusal(encoder.stub.Encode(request, timeout=60))
    assert isinstance(error, VScanError)
    return error


async def test_each_bad_request_is_refused_by_name_and_limit_and_the_next_one_works() -> None:
    async with running_encoder(max_image_bytes=MAX_IMAGE_BYTES) as encoder:
        for case, (make, text) in REFUSED.items():
            error = await refusal(encoder, make())
            assert isinstance(error, InvalidArgument), case
            assert error.message == text, case
            assert error.field == text.partition(":")[0], case
            response = await encoder.encode(png(2), budget=tokens_per_tile(7))
            assert response.report.tokens_after == 7, case


async def test_an_unknown_digest_is_a_failed_precondition() -> None:
    async with running_encoder() as encoder:
        error = await refusal(encoder, named(bytes(32)))
        assert isinstance(error, MissingImages)
        assert isinstance(error, FailedPrecondition)
        assert error.sha256 == (bytes(32),)


@pytest.mark.parametrize(
    ("digests", "text"),
    [
        ([], "sha256: 0 digests, limit 1 to 2"),
        ([bytes(32)] * 3, "sha256: 3 digests, limit 1 to 2"),
        ([bytes(32), b"?"], "sha256[1]: 1 bytes, limit exactly 32 bytes"),
    ],
)
async def test_bad_lookups_are_refused(digests: list[bytes], text: str) -> None:
    async with running_encoder(max_lookup_digests=2) as encoder:
        error = await encoder.refusal(encoder.stub.Lookup(pb.LookupRequest(sha256=digests)))
        assert isinstance(error, InvalidArgument)
        assert error.message == text


async def test_a_refused_image_is_not_remembered() -> None:
    async with running_encoder() as encoder:
        for _ in range(2):
            assert isinstance(await refusal(encoder, encode_request(truncated("PNG"))), InvalidArgument)


async def test_a_caller_that_gives_up_leaves_a_working_service() -> None:
    async with running_encoder(max_batch_tiles=2, batch_wait_ms=50) as encoder:
        for seed in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await encoder.stub.Encode(encode_request(png(seed)), timeout=0.01)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await encoder.encode(png(99))).report.tokens_after == 96
