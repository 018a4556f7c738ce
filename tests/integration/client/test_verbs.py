"""Every verb, sync and async, against a real gRPC server."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.client_decoder import SURVIVORS, TOKENS_AFTER, TOKENS_BEFORE, ScriptedDeployment, digest_of
from vscan.errors import Cancelled, InvalidArgument
from vscan.v1 import decoder_pb2
from vscan_client import (
    Answer,
    AsyncClient,
    Client,
    Finished,
    FinishReason,
    FrameRate,
    Image,
    KeepTokens,
    Message,
    PickedBy,
    Place,
    PruneSpec,
    Rater,
    ReductionMethod,
    ReductionSpec,
    SampledFrames,
    SamplingSpec,
    Started,
    TextDelta,
    TokensPerTile,
    TotalTokens,
    Video,
)

MP4 = b"\x00\x00\x00\x20ftypisom" + bytes(2000)


def timeless(answer: Answer) -> dict[str, Any]:
    """The answer without what differs from run to run."""
    told = answer.to_dict()
    del told["client"]["first_token_ms"], told["client"]["total_ms"], told["request_id"]
    return told


def test_ask_gives_the_whole_answer(address: str) -> None:
    with Client(server=address) as client:
        answer = client.ask(b"cat", "what is it?")
    assert answer.text == "1 image(s): what is it?"
    assert [token.token_id for token in answer.tokens] == [0, 1, 2, 3, 4]
    assert answer.finish_reason is FinishReason.END_OF_SEQUENCE
    assert (answer.usage.visual_tokens, answer.usage.visual_tokens_unreduced) == (TOKENS_AFTER, TOKENS_BEFORE)
    (image,) = answer.images
    assert (image.sha256, image.place, image.kept) == (Image.from_bytes(b"cat").sha256, Place.ENCODED, None)
    (pruning,) = answer.pruning
    assert (pruning.layer, pruning.tokens_before, pruning.tokens_after) == (4, TOKENS_AFTER, SURVIVORS)
    assert answer.client.first_token_ms is not None
    assert 0 < answer.client.first_token_ms <= answer.client.total_ms


def test_kept_patches_are_reported_where_asked_for(address: str) -> None:
    with Client(server=address) as client:
        answer = client.ask([b"cat", b"dog"], "which?", report_kept=True)
    kept = answer.images[1].kept
    assert kept is not None
    assert kept.picked_by == (PickedBy.LOCAL, PickedBy.GLOBAL)
    assert (kept.kept_indices, kept.merged_into, kept.unreduced_count) == ((1, 5), (0, 0, 1, 0, 1, 1), 6)
    assert (kept.tiles[0].rows, kept.tiles[0].columns, kept.tiles[0].kept_count) == (2, 3, 2)
    assert answer.pruning[0].survivors == ((0, 2), (0, 2))


def test_a_video_is_asked_about_like_an_image(deployment: ScriptedDeployment, address: str, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(MP4)
    sampled = Video.from_path(tmp_path / "clip.mp4", frames=4)
    frames = Video.from_frames([b"zero", b"one"], frames_per_second=2)
    with Client(server=address) as client:
        answer = client.ask([b"cat", tmp_path / "clip.mp4"], "what?", reduction=ReductionSpec(budget=TotalTokens(64)))
        client.chat([Message.user(frames, "then?", sampled)])
    assert answer.text == "1 image(s), 1 video(s): what?"
    image, video = answer.images
    assert (image.frames, video.frames) == (None, SampledFrames((0.0, 0.5), 1.0, 0.5))
    assert video.sha256 == sampled.sha256
    assert answer.to_dict()["images"][1]["frames"] == {"seconds": [0, 0.5], "duration_seconds": 1, "interval_seconds": 0.5}
    first, second = deployment.requests
    assert first.reduction.budget.total_tokens == 64
    plain = first.chat.messages[0].parts[1].video
    assert (plain.data, plain.HasField("sampling")) == (MP4, False)
    sent, _, file = second.chat.messages[0].parts
    assert (list(sent.video.frames.images), sent.video.sampling.frames_per_second) == ([b"zero", b"one"], 2)
    assert (file.video.data, file.video.sampling.frames) == (MP4, 4)
    assert digest_of(sent.video) == frames.sha256


def test_a_raw_prompt_has_placeholders_of_both_kinds(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client:
        client.raw("<video> <image> <video>", [MP4, b"cat", Video.from_bytes(b"GIF89a")])
    (request,) = deployment.requests
    assert [image.data for image in request.raw.images] == [b"cat"]
    assert [video.data for video in request.raw.videos] == [MP4, b"GIF89a"]


async def test_sync_and_async_say_and_send_the_same(deployment: ScriptedDeployment, address: str) -> None:
    options: Any = {
        "reduction": ReductionSpec(
            method=ReductionMethod.VSCAN, budget=TokensPerTile(24), local_share=0.5, merge=False, seed=3
        ),
        "prune": PruneSpec(rater=Rater.TEXT_MEAN, budgets=(KeepTokens(8),)),
        "sampling": SamplingSpec(max_new_tokens=3, temperature=0.0, seed=5, stop=("x",)),
        "report_kept": True,
    }
    chat = [Message.user(b"cat", MP4, "what?"), Message.assistant("a cat"), Message.user("and where?")]
    async with AsyncClient(server=address) as client:
        there = [
            await client.ask(b"cat", "what?", **options),
            await client.chat(chat, **options),
            await client.raw("USER: <image> hi", [b"cat"], **options),
        ]
    seen, deployment.requests = deployment.requests, []
    deployment.known.clear()
    with Client(server=address) as client:
        here = [
            client.ask(b"cat", "what?", **options),
            client.chat(chat, **options),
            client.raw("USER: <image> hi", [b"cat"], **options),
        ]
    assert [timeless(answer) for answer in here] == [timeless(answer) for answer in there]
    assert deployment.requests == seen


def test_a_request_carries_what_was_asked(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client:
        client.chat(
            [Message.system("be brief"), Message.user(b"cat", "what?")], sampling=SamplingSpec(top_k=4, stop=("a", "b"))
        )
        client.ask(b"dog", "plain?")
    first, second = deployment.requests
    assert [message.role for message in first.chat.messages] == [decoder_pb2.ROLE_SYSTEM, decoder_pb2.ROLE_USER]
    assert first.chat.messages[1].parts[0].image.data == b"cat"
    assert (first.sampling.top_k, list(first.sampling.stop)) == (4, ["a", "b"])
    assert not first.sampling.HasField("temperature")
    # What was not asked for stays unset, so that the deployment's defaults hold.
    assert not any(second.HasField(field) for field in ("reduction", "prune", "sampling"))


def test_a_stream_is_started_texts_finished(address: str) -> None:
    with Client(server=address) as client:
        stream = client.stream(b"cat", "what is it?")
        with pytest.raises(RuntimeError, match="not whole"):
            _ = stream.answer
        events = list(stream)
        assert [type(event) for event in events] == [Started, *[TextDelta] * 5, Finished]
        assert stream.answer.text == "".join(event.text for event in events if isinstance(event, TextDelta))
        assert list(client.stream_chat([Message.user("hi there")]).texts()) == ["0", " image(s):", " hi", " there"]
        assert "".join(client.stream_raw("<image>", b"cat").texts()) == "1 image(s): <image>"


async def test_a_stream_says_which_sample_goes_on_and_why_it_ended(deployment: ScriptedDeployment, address: str) -> None:
    two = SamplingSpec(n=2)
    with Client(server=address) as client:
        stream = client.stream(b"cat", "what?", sampling=two, priority=7)
        deltas = [event for event in stream if isinstance(event, TextDelta)]
        assert [delta.sample for delta in deltas] == [0, 1] * 3
        assert [delta.reason for delta in deltas] == [None] * 4 + [FinishReason.END_OF_SEQUENCE] * 2
        assert [sample.text for sample in stream.answer.samples] == ["1 image(s): what?", "1 1 image(s): 1 what?"]
        assert list(client.stream(b"cat", "what?", sampling=two).texts(1)) == ["1", " 1 image(s):", " 1 what?"]
    async with AsyncClient(server=address) as other, other.stream(b"cat", "what?", sampling=two) as pieces:
        assert [text async for text in pieces.texts(1)] == ["1", " 1 image(s):", " 1 what?"]
    assert [request.priority for request in deployment.requests] == [7, 0, 0]


async def test_an_async_stream_too(address: str) -> None:
    async with AsyncClient(server=address) as client, client.stream(b"cat", "what?") as stream:
        assert [text async for text in stream.texts()] == ["1", " image(s):", " what?"]
        assert stream.answer.text == "1 image(s): what?"


def test_an_image_may_be_a_path(address: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"cat")
    with Client(server=address) as client:
        assert client.ask(tmp_path / "cat.png", "what?").images[0].sha256 == Image.from_bytes(b"cat").sha256
        with pytest.raises(InvalidArgument, match=r"images\[0\]: .*gone.png"):
            client.ask([tmp_path / "gone.png"], "what?")


def test_encode_prewarms_so_that_the_question_sends_a_digest(deployment: ScriptedDeployment, address: str) -> None:
    image = b"cat" * 1000
    with Client(server=address, encoder=address) as client:
        assert client.lookup([image, b"dog"]) == (None, None)
        encoded = client.encode(image)
        assert (encoded.image.place, encoded.tokens, encoded.kept) == (Place.ENCODED, None, None)
        assert client.lookup(image) == (Place.MEMORY,)
        inline = client.encode(image, tokens=True)
        assert inline.kept is not None
        assert inline.to_dict()["content_key"] == "00" * 32
        client.ask(image, "what?")
    assert deployment.sizes[0] < 200


def test_a_lookup_is_about_images_or_about_videos_of_one_sampling(deployment: ScriptedDeployment, address: str) -> None:
    eight = Video.from_bytes(MP4, frames=8)
    with Client(server=address, encoder=address) as client:
        assert client.encode(eight).image.frames is not None
        assert client.lookup(eight) == client.lookup([eight, eight])[:1] == (Place.MEMORY,)
        assert client.lookup([MP4]) == client.lookup(Image.from_bytes(MP4)) == (None,)
        with pytest.raises(InvalidArgument, match=r"images: of several kinds, limit .*one sampling"):
            client.lookup([eight, MP4])
        with pytest.raises(InvalidArgument, match=r"images: of several kinds"):
            client.lookup([MP4, b"cat"])
    one, _, unset, image = deployment.lookups
    assert (one.video_sampling.frames, one.sha256[0]) == (8, eight.sha256)
    assert unset.HasField("video_sampling")
    assert unset.video_sampling.WhichOneof("amount") is None
    assert not image.HasField("video_sampling")


def test_describe_tells_of_both_services(address: str) -> None:
    with Client(server=address) as alone, Client(server=address, encoder=address) as both:
        assert alone.describe().encoder is None
        description = both.describe()
    assert (description.decoder.model, description.decoder.prune_layers) == ("scripted", (4,))
    assert description.decoder.limits["max_images"] == 16
    assert description.encoder is not None
    assert description.to_dict()["encoder"]["hidden_size"] == 64
    assert description.encoder.frame_sampling == FrameRate(2)
    assert (description.encoder.limits["max_video_frames"], description.encoder.limits["max_video_seconds"]) == (64, 600)
    assert description.decoder.limits["max_videos"] == 0


def test_without_an_address_the_encoder_cannot_be_asked(address: str) -> None:
    with Client(server=address) as client, pytest.raises(InvalidArgument, match="encoder"):
        client.encode(b"cat")


def test_plaintext_stays_on_this_machine() -> None:
    with Client(server="models.example.com:7070") as client, pytest.raises(InvalidArgument, match="beyond this machine"):
        client.ask(b"cat", "what?")


def test_a_closed_client_says_so(address: str) -> None:
    client = Client(server=address)
    client.close()
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        client.ask(b"cat", "what?")


@pytest.mark.parametrize("verb", ["ask", "stream"])
def test_an_option_that_there_is_not_is_refused_and_not_forgotten(
    verb: str, deployment: ScriptedDeployment, address: str
) -> None:
    before = len(deployment.requests)
    misspelt: Any = {"max_new_tokens": 4}
    with (
        Client(server=address) as client,
        pytest.raises(TypeError, match=r"ask\(\) got .*'max_new_tokens'; it takes .*sampling"),
    ):
        getattr(client, verb)(b"cat", "what is it?", **misspelt)
    assert len(deployment.requests) == before


@pytest.mark.parametrize("verb", ["chat", "raw"])
async def test_so_it_is_by_the_other_verbs(verb: str, address: str) -> None:
    misspelt: Any = {"temperature": 0.5}
    async with AsyncClient(server=address) as client:
        with pytest.raises(TypeError, match=rf"{verb}\(\) got an unexpected keyword argument 'temperature'"):
            await getattr(client, verb)("prompt" if verb == "raw" else [Message.user("what is it?")], **misspelt)
