"""Faults that were published of similar systems, tried on this one: each test is one of the table in docs/security.md."""

from __future__ import annotations

import ast
import hashlib
import io
import pickle
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from PIL import Image

from tests.support.asking import PICTURE, ask, chat, decoder_stub, refusal
from tests.support.bad_images import blank, saved
from tests.support.caches import raw_client
from tests.support.decoder import PARITY_CHECKPOINT
from tests.support.encoder import encode_request, refused_start, running_encoder
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, in_process_stack
from vscan.cache.lease import entry_name
from vscan.errors import InvalidArgument, MissingImages
from vscan.v1 import decoder_pb2, encoder_pb2, visual_tokens_pb2

SERVED = ("vscan", "encoder_service", "decoder_service", "client", "embedded_model")
RUNS_WHAT_IT_READS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def stack(fresh_redis: RedisServer) -> AsyncIterator[Stack]:
    async with in_process_stack(redis=fresh_redis) as stack:
        yield stack


def noise(size: tuple[int, int]) -> bytes:
    """The same bytes for every size of as many pixels."""
    return b"".join(hashlib.sha256(bytes([number])).digest() for number in range(256))[: size[0] * size[1] * 3]


def palette_picture(colours: list[int]) -> bytes:
    picture = Image.frombytes("P", (48, 48), bytes(pixel % 2 for pixel in range(48 * 48)))
    picture.putpalette(colours)
    return saved(picture, "PNG")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            saved(Image.frombytes("RGB", (30, 60), noise((30, 60))), "PNG"),
            saved(Image.frombytes("RGB", (60, 30), noise((60, 30))), "PNG"),
            id="another shape",
        ),
        pytest.param(palette_picture([0, 0, 0, 255, 0, 0]), palette_picture([9, 200, 9, 255, 255, 255]), id="another palette"),
        pytest.param(
            saved(Image.frombytes("CMYK", (40, 44), noise((44, 60))[: 40 * 44 * 4]), "TIFF"),
            saved(Image.frombytes("RGBA", (40, 44), noise((44, 60))[: 40 * 44 * 4]), "TIFF"),
            id="another mode",
        ),
    ],
)
async def test_images_whose_pixel_bytes_are_alike_are_two_images(stack: Stack, one: bytes, other: bytes) -> None:
    """CVE-2025-46722 and its like: a hash over the pixels without shape, mode or palette."""
    pixels = [Image.open(io.BytesIO(file)).tobytes() for file in (one, other)]
    assert pixels[0] == pixels[1]
    first, second = [await stack.encoder.encode(file) for file in (one, other)]
    assert first.content_key != second.content_key
    assert second.report.place == visual_tokens_pb2.PLACE_ENCODED
    assert first.visual_tokens.tokens.data != second.visual_tokens.tokens.data


async def test_a_digest_is_whole_wherever_it_identifies(stack: Stack) -> None:
    """Identifiers cut to 64 or 16 bits, which collide by construction or by chance."""
    encoded = await stack.encoder.encode(PICTURE)
    assert encoded.report.sha256 == hashlib.sha256(PICTURE).digest()
    assert len(encoded.content_key) == 32
    for length in (0, 2, 8, 16, 31, 33, 64):
        request = encoder_pb2.EncodeRequest(image=visual_tokens_pb2.Image(sha256=encoded.report.sha256[:length].ljust(length)))
        error = await stack.encoder.refusal(stack.encoder.stub.Encode(request))
        assert (type(error), error.field, error.limit) == (InvalidArgument, "image.sha256", "exactly 32 bytes")


async def test_what_would_run_when_unpickled_does_not(stack: Stack, fresh_redis: RedisServer, tmp_path: Path) -> None:
    """CVE-2025-32444 and its like: a port, a cache or a checkpoint whose bytes are unpickled."""
    trap = Trap(tmp_path / "sprung")
    poison = pickle.dumps(trap)
    known = await stack.encoder.encode(PICTURE)
    async with raw_client(fresh_redis) as redis:
        await redis.set(entry_name(known.content_key), poison)
    for request in (encode_request(poison), encode_request(b"BM" + poison)):
        error = await stack.encoder.refusal(stack.encoder.stub.Encode(request))
        assert isinstance(error, InvalidArgument)
    method = stack.encoder.channel.unary_unary("/vscan.v1.VisionEncoder/Encode", None, None)
    assert isinstance(await stack.encoder.refusal(method(poison)), InvalidArgument)
    async with decoder_stub(stack.decoder_address) as stub:
        await ask(stub, chat("w7", PICTURE))

    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(PARITY_CHECKPOINT, checkpoint)
    for file in checkpoint.glob("*.safetensors*"):
        file.unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(poison)
    code, text = refused_start(model=checkpoint)
    assert code == 1
    assert "safetensors" in text
    assert not trap.path.exists()
    pickle.loads(poison)
    assert trap.path.exists()  # the trap works


def test_nothing_that_is_served_can_unpickle() -> None:
    for package in SERVED:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                assert not imported(node) & RUNS_WHAT_IT_READS, file
                assert not calls_by_name(node) & {"eval", "exec", "torch.load"}, file


async def test_an_error_about_an_image_tells_nothing_of_the_process(stack: Stack) -> None:
    """CVE-2026-22778: the imaging library's own message, which held an address."""
    broken = [b"\x89PNG\r\n\x1a\n" + bytes(40), b"nothing that is an image", blank("PNG", (32, 32))[:60], b"GIF89a", b"BM\x00"]
    async with decoder_stub(stack.decoder_address) as stub:
        for data in broken:
            errors = [
                await stack.encoder.refusal(stack.encoder.stub.Encode(encode_request(data))),
                await refusal(stub, chat("w7", data)),
            ]
            for error in errors:
                assert isinstance(error, InvalidArgument)
                assert not {word for word in ("0x", "<", "object at", "Traceback", "/") if word in str(error)}, str(error)


async def test_an_image_of_one_pixel_is_refused_and_where_allowed_harmless() -> None:
    """CVE-2026-22773: one pixel that a model's preprocessing was not made for ended the engine."""
    files = [blank("PNG", size) for size in ((1, 1), (1, 64), (64, 1), (2, 3))]
    async with in_process_stack() as strict, decoder_stub(strict.decoder_address) as stub:
        for file in files:
            error = await refusal(stub, chat("w7", file))
            assert isinstance(error, InvalidArgument)
            assert (error.field, bool(error.limit)) == ("messages[0].parts[1].image", True)
        expected = (await ask(stub, chat("w7", PICTURE))).ids
    async with (
        in_process_stack(encoder={"min_image_side_pixels": 1, "max_aspect": 100}) as lax,
        decoder_stub(lax.decoder_address) as stub,
    ):
        for file in files:
            assert len((await ask(stub, chat("w7", file))).ids) == 6
        assert (await ask(stub, chat("w7", PICTURE))).ids == expected


async def test_frames_that_are_sent_are_counted_before_they_are_decoded() -> None:
    """Frames of one video without a bound (vllm-project/vllm pull request 38636)."""
    async with running_encoder(model=ROOT / "tests/data/parity/qwen25vl", shallow_layer=None, window=None) as encoder:
        not_even_images = [b"x"] * (encoder.service.encoder.limits.video.max_frames + 1)
        video = visual_tokens_pb2.Video(frames=visual_tokens_pb2.VideoFrames(images=not_even_images))
        error = await encoder.refusal(encoder.stub.Encode(encoder_pb2.EncodeRequest(video=video)))
        assert (type(error), error.field) == (InvalidArgument, "video.frames.images")
        assert error.limit == f"1 to {len(not_even_images) - 1}"


def test_no_message_lets_a_client_choose_a_cache_name() -> None:
    """vllm-project/vllm issues 55547 and 57219: an identifier of the client's own was the cache's key, of any length."""
    image, video = visual_tokens_pb2.Image.DESCRIPTOR, visual_tokens_pb2.Video.DESCRIPTOR
    assert {field.name for field in image.fields} == {"data", "sha256"}
    assert {field.name for field in video.oneofs_by_name["source"].fields} == {"data", "frames", "sha256"}
    named = {field.name for message in requests() for field in message.fields}
    assert not {name for name in named if "uuid" in name or "salt" in name or "key" in name or "tenant" in name}


async def test_a_digest_names_nothing_that_was_not_computed_here(stack: Stack) -> None:
    """A client that claims another image's digest gets it or nothing, and puts nothing under it."""
    theirs = hashlib.sha256(PICTURE).digest()
    both = (
        visual_tokens_pb2.Image(sha256=theirs).SerializeToString()
        + visual_tokens_pb2.Image(data=blank("PNG", (40, 40))).SerializeToString()
    )  # of a oneof the last one counts
    request = encoder_pb2.EncodeRequest(image=visual_tokens_pb2.Image.FromString(both))
    encoded = await stack.encoder.stub.Encode(request)
    assert encoded.report.sha256 == hashlib.sha256(blank("PNG", (40, 40))).digest()
    named = encoder_pb2.EncodeRequest(image=visual_tokens_pb2.Image(sha256=theirs))
    assert isinstance(await stack.encoder.refusal(stack.encoder.stub.Encode(named)), MissingImages)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {name.name.partition(".")[0] for name in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def calls_by_name(node: ast.AST) -> set[str]:
    return {ast.unparse(node.func)} if isinstance(node, ast.Call) else set()


def requests() -> list[Descriptor]:
    """The messages that a client may send, and all that is within them."""
    found: dict[str, Descriptor] = {}
    left: list[Any] = [
        encoder_pb2.EncodeRequest.DESCRIPTOR,
        encoder_pb2.LookupRequest.DESCRIPTOR,
        decoder_pb2.GenerateRequest.DESCRIPTOR,
    ]
    while left:
        message = left.pop()
        if message.full_name not in found:
            found[message.full_name] = message
            left += [field.message_type for field in message.fields if field.message_type]
    return list(found.values())
