"""Requests over a limit are refused before any work, naming the field and the limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

from decoder_service.chat import Chat, MediaKind, MediaPart, RawPrompt, Role, TextPart
from decoder_service.limits import Limits, SamplingDefaults
from decoder_service.media import ImageInput, VideoInput
from decoder_service.question import Question, read_question
from vscan.errors import InvalidArgument
from vscan.specs import FrameCount, FrameRate, KeepTokens, Rater, SamplingSpec, TokensPerTile
from vscan.v1 import decoder_pb2 as pb
from vscan.v1.visual_tokens_pb2 import FrameSampling as Sampling
from vscan.v1.visual_tokens_pb2 import Image, Video, VideoFrames

LIMITS = Limits(
    max_message_bytes=2**20, max_images=16, max_context_tokens=100, max_new_tokens=40, max_messages=4, max_parts=20,
    max_text_chars=50, max_stop_strings=2, max_stop_chars=10, max_logprobs=5, max_queue=8, max_positions=100, max_videos=2,
    max_stop_token_ids=3, max_constraint_chars=30, max_samples=4,
)  # fmt: skip
DIGEST = bytes(range(32))


def text(content: str) -> pb.Part:
    return pb.Part(text=content)


def image(source: Image | None = None) -> pb.Part:
    return pb.Part(image=source or Image(data=b"png"))


def message(*parts: pb.Part, role: pb.Role = pb.ROLE_USER) -> pb.Message:
    return pb.Message(role=role, parts=parts)


def chat(*messages: pb.Message) -> pb.GenerateRequest:
    return pb.GenerateRequest(chat=pb.Chat(messages=messages))


def sampled(**fields: object) -> pb.GenerateRequest:
    request = chat(message(text("hello")))
    request.sampling.CopyFrom(pb.SamplingParams(**fields))  # type: ignore[arg-type]
    return request


def urgent(priority: int) -> pb.GenerateRequest:
    request = chat(message(text("hello")))
    request.priority = priority
    return request


def video(**content: object) -> pb.Part:
    return pb.Part(video=Video(**content or {"data": b"mp4"}))  # type: ignore[arg-type]


def read(request: pb.GenerateRequest, videoless: str | None = None) -> Question:
    return read_question(request, LIMITS, videoless=videoless)


def test_a_chat_is_read_with_its_paths() -> None:
    request = chat(
        message(text("be brief"), role=pb.ROLE_SYSTEM),
        message(image(), text("what?"), image(Image(sha256=DIGEST))),
        message(text("a star"), role=pb.ROLE_ASSISTANT),
        message(text("sure?")),
    )
    request.prune.CopyFrom(pb.PruneSpec(rater=pb.RATER_RANDOM, budgets=[pb.PruneBudget(tokens=8)]))
    request.reduction.budget.tokens_per_tile = 16
    request.sampling.stop.append("END")
    question = read(request)
    assert isinstance(question.prompt, Chat)
    assert [turn.role for turn in question.prompt.turns] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    assert question.prompt.turns[1].parts == (
        MediaPart("messages[1].parts[0].image"),
        TextPart("messages[1].parts[1].text", "what?"),
        MediaPart("messages[1].parts[2].image"),
    )
    assert [(i.field, i.data, i.sha256) for i in question.media] == [
        ("messages[1].parts[0].image", b"png", None),
        ("messages[1].parts[2].image", None, DIGEST),
    ]
    assert (question.prune.rater, question.prune.budgets) == (Rater.RANDOM, (KeepTokens(8),))
    assert question.reduction.budget == TokensPerTile(16)
    assert question.sampling.stop == ("END",)
    assert question.text_chars == len("be briefwhat?a starsure?")


def test_a_chat_needs_no_image() -> None:
    assert read(chat(message(text("hello")))).media == ()


def test_a_raw_prompt_is_read() -> None:
    question = read(pb.GenerateRequest(raw=pb.RawPrompt(text="<image> x", images=[Image(data=b"png")])))
    assert question.prompt == RawPrompt("<image> x", 1)
    assert [i.field for i in question.media] == ["raw.images[0]"]


def test_videos_are_read_beside_images() -> None:
    question = read(
        chat(
            message(video(data=b"mp4", sampling=Sampling(frames=3)), text("a"), image()),
            message(video(frames=VideoFrames(images=[b"1", b"2"]), sampling=Sampling(frames_per_second=0.5))),
        )
    )
    assert isinstance(question.prompt, Chat)
    assert question.prompt.media(MediaKind.VIDEO) == (
        MediaPart("messages[0].parts[0].video", MediaKind.VIDEO),
        MediaPart("messages[1].parts[0].video", MediaKind.VIDEO),
    )
    assert question.media == (
        VideoInput("messages[0].parts[0].video", data=b"mp4", sampling=FrameCount(3)),
        ImageInput("messages[0].parts[2].image", data=b"png"),
        VideoInput("messages[1].parts[0].video", frames=(b"1", b"2"), sampling=FrameRate(0.5)),
    )


def test_videos_of_a_raw_prompt_are_read() -> None:
    question = read(pb.GenerateRequest(raw=pb.RawPrompt(text="x", images=[Image(data=b"png")], videos=[Video(sha256=DIGEST)])))
    assert question.prompt == RawPrompt("x", 1, 1)
    assert question.media[1] == VideoInput("raw.videos[0]", sha256=DIGEST)


def test_a_family_without_videos_says_so_however_many_come() -> None:
    for request, field in (
        (chat(message(text("a"), *[video()] * 3)), "messages[0].parts[1].video"),
        (pb.GenerateRequest(raw=pb.RawPrompt(text="a", videos=[Video(data=b"x")])), "raw.videos[0]"),
    ):
        with pytest.raises(InvalidArgument) as refusal:
            read(request, "llava")
        assert str(refusal.value) == f"{field}: llava takes no videos"


SYSTEM_LATER = chat(message(text("a")), message(text("b"), role=pb.ROLE_SYSTEM))
REFUSED: dict[str, tuple[pb.GenerateRequest, str]] = {
    "no prompt": (pb.GenerateRequest(), "prompt: not set; a chat or a raw prompt is needed"),
    "no message": (chat(), "messages: 0 messages, limit 1 to 4"),
    "many messages": (chat(*[message(text("a"))] * 5), "messages: 5 messages, limit 1 to 4"),
    "no part": (chat(message()), "messages[0].parts: 0 parts, limit 1 to 20"),
    "many parts": (chat(message(*[text("a")] * 21)), "messages[0].parts: 21 parts, limit 1 to 20"),
    "an empty part": (chat(message(text("a"), pb.Part())), "messages[0].parts[1]: neither text, image nor video"),
    "more parts than are looked at": (chat(message(*[image()] * 81)), "messages[0].parts: 81 parts, limit 1 to 20"),
    "80 images in a message": (chat(message(*[image()] * 80)), "messages: 80 images, limit 16"),
    "80 images": (chat(*[message(*[image()] * 20)] * 4), "messages: 80 images, limit 16"),
    "17 images": (chat(message(*[image()] * 17)), "messages: 17 images, limit 16"),
    "long text": (chat(message(text("a" * 51))), "messages: 51 characters of text, limit 50"),
    "long texts": (chat(message(text("a" * 26), text("b" * 25))), "messages: 51 characters of text, limit 50"),
    "no role": (chat(message(text("a"), role=pb.ROLE_UNSPECIFIED)), "messages[0].role: not set"),
    "an unknown role": (chat(message(text("a"), role=9)), "messages[0].role: unknown value 9"),  # type: ignore[arg-type]
    "a late system": (SYSTEM_LATER, "messages[1].role: a system message, limit the first message only"),
    "a last answer": (
        chat(message(text("a")), message(text("b"), role=pb.ROLE_ASSISTANT)),
        "messages[1].role: the last message must be the user's",
    ),
    "no source": (chat(message(pb.Part(image=Image()))), "messages[0].parts[0].image: neither data nor sha256"),
    "no bytes": (chat(message(image(Image(data=b"")))), "messages[0].parts[0].image.data: 0 bytes"),
    "a short digest": (
        chat(message(text("a"), image(Image(sha256=DIGEST[:31])))),
        "messages[0].parts[1].image.sha256: 31 bytes, limit 32 bytes",
    ),
    "no raw text": (pb.GenerateRequest(raw=pb.RawPrompt()), "raw.text: 0 characters, limit 1 to 50"),
    "long raw text": (pb.GenerateRequest(raw=pb.RawPrompt(text="a" * 51)), "raw.text: 51 characters, limit 1 to 50"),
    "many raw images": (
        pb.GenerateRequest(raw=pb.RawPrompt(text="a", images=[Image(data=b"x")] * 17)),
        "raw.images: 17 images, limit 16",
    ),
    "a raw image without source": (
        pb.GenerateRequest(raw=pb.RawPrompt(text="a", images=[Image()])),
        "raw.images[0]: neither data nor sha256",
    ),
    "3 videos": (chat(message(*[video()] * 3)), "messages: 3 videos, limit 2"),
    "3 raw videos": (
        pb.GenerateRequest(raw=pb.RawPrompt(text="a", videos=[Video(data=b"x")] * 3)),
        "raw.videos: 3 videos, limit 2",
    ),
    "no source of a video": (
        chat(message(pb.Part(video=Video()))),
        "messages[0].parts[0].video: neither data, frames nor sha256",
    ),
    "no bytes of a video": (chat(message(video(data=b""))), "messages[0].parts[0].video.data: 0 bytes"),
    "no frames": (chat(message(video(frames=VideoFrames()))), "messages[0].parts[0].video.frames.images: 0 frames"),
    "a short name": (chat(message(video(sha256=b"x"))), "messages[0].parts[0].video.sha256: 1 bytes, limit 32 bytes"),
    "0 frames": (
        chat(message(video(data=b"x", sampling=Sampling(frames=0)))),
        "messages[0].parts[0].video.sampling.frames: 0, limit at least 1",
    ),
    "NaN frames a second of a raw video": (
        pb.GenerateRequest(
            raw=pb.RawPrompt(text="a", videos=[Video(data=b"x", sampling=Sampling(frames_per_second=math.nan))])
        ),
        "raw.videos[0].sampling.frames_per_second: nan, limit over 0 to 1000",
    ),
    "temperature -1": (sampled(temperature=-1), "sampling.temperature: -1, limit 0 to 2"),
    "temperature NaN": (sampled(temperature=float("nan")), "sampling.temperature: nan, limit 0 to 2"),
    "temperature 2.1": (sampled(temperature=2.1), "sampling.temperature: 2.1, limit 0 to 2"),
    "top_p 0": (sampled(top_p=0), "sampling.top_p: 0, limit over 0 to 1"),
    "top_p NaN": (sampled(top_p=float("nan")), "sampling.top_p: nan, limit over 0 to 1"),
    "no new tokens": (sampled(max_new_tokens=0), "sampling.max_new_tokens: 0, limit 1 to 40"),
    "many new tokens": (sampled(max_new_tokens=41), "sampling.max_new_tokens: 41, limit 1 to 40"),
    "many logprobs": (sampled(logprobs=6), "sampling.logprobs: 6, limit 0 to 5"),
    "min_p 1.1": (sampled(min_p=1.1), "sampling.min_p: 1.1, limit 0 to 1"),
    "min_p NaN": (sampled(min_p=float("nan")), "sampling.min_p: nan, limit 0 to 1"),
    "repetition 0": (sampled(repetition_penalty=0), "sampling.repetition_penalty: 0, limit 0.01 to 2"),
    "repetition NaN": (sampled(repetition_penalty=float("nan")), "sampling.repetition_penalty: nan, limit 0.01 to 2"),
    "repetition 2.5": (sampled(repetition_penalty=2.5), "sampling.repetition_penalty: 2.5, limit 0.01 to 2"),
    "repetition 1e-310": (sampled(repetition_penalty=1e-310), "sampling.repetition_penalty: 1e-310, limit 0.01 to 2"),
    "presence 3": (sampled(presence_penalty=3), "sampling.presence_penalty: 3, limit -2 to 2"),
    "presence NaN": (sampled(presence_penalty=float("nan")), "sampling.presence_penalty: nan, limit -2 to 2"),
    "frequency -3": (sampled(frequency_penalty=-3), "sampling.frequency_penalty: -3, limit -2 to 2"),
    "frequency inf": (sampled(frequency_penalty=float("inf")), "sampling.frequency_penalty: inf, limit -2 to 2"),
    "many stop tokens": (sampled(stop_token_ids=[1, 2, 3, 4]), "sampling.stop_token_ids: 4 stop tokens, limit 3"),
    "an empty schema": (sampled(json_schema=""), "sampling.json_schema: 0 characters, limit 1 to 30"),
    "a long schema": (sampled(json_schema="a" * 31), "sampling.json_schema: 31 characters, limit 1 to 30"),
    "a long expression": (sampled(regex="a" * 31), "sampling.regex: 31 characters, limit 1 to 30"),
    "no samples": (sampled(n=0), "sampling.n: 0, limit 1 to 4"),
    "many samples": (sampled(n=5), "sampling.n: 5, limit 1 to 4"),
    "low priority": (urgent(-101), "priority: -101, limit -100 to 100"),
    "high priority": (urgent(101), "priority: 101, limit -100 to 100"),
    "many stops": (sampled(stop=["a", "b", "c"]), "sampling.stop: 3 stop strings, limit 2"),
    "an empty stop": (sampled(stop=["a", ""]), "sampling.stop[1]: 0 characters, limit 1 to 10"),
    "a long stop": (sampled(stop=["a" * 11]), "sampling.stop[0]: 11 characters, limit 1 to 10"),
}


@pytest.mark.parametrize(("request_", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_over_a_limit_is_refused_by_name(request_: pb.GenerateRequest, words: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        read(request_)
    assert str(refusal.value) == words


def with_budget(change: Callable[[pb.GenerateRequest], None]) -> pb.GenerateRequest:
    request = chat(message(text("a")))
    change(request)
    return request


@pytest.mark.parametrize("ratio", [0.0, 1.1, float("nan"), -0.5])
def test_bad_budgets_are_refused(ratio: float) -> None:
    def reduction(request: pb.GenerateRequest) -> None:
        request.reduction.budget.ratio = ratio

    def prune(request: pb.GenerateRequest) -> None:
        request.prune.budgets.add().ratio = ratio

    with pytest.raises(InvalidArgument, match=r"^reduction\.budget\.ratio: "):
        read(with_budget(reduction))
    with pytest.raises(InvalidArgument, match=r"^prune\.budgets\[0\]\.ratio: "):
        read(with_budget(prune))


def test_the_edges_of_the_limits_are_taken() -> None:
    read(chat(*[message(*[image()] * 4, text("a" * 12))] * 4))
    read(sampled(temperature=2, top_p=1, top_k=0, logprobs=5, max_new_tokens=40, stop=["a" * 10, "b"], seed=2**64 - 1))
    read(sampled(temperature=0, max_new_tokens=1, logprobs=0, n=4))
    assert [read(urgent(priority)).priority for priority in (-100, 0, 100)] == [-100, 0, 100]
    read(sampled(min_p=0, repetition_penalty=2, presence_penalty=-2, frequency_penalty=2, stop_token_ids=[0, 1, 2**32 - 1]))
    read(sampled(min_p=1, repetition_penalty=0.01, presence_penalty=2, frequency_penalty=-2, regex="a" * 30))


def test_a_prompt_must_leave_room_for_its_answer() -> None:
    LIMITS.check_prompt(99, SamplingSpec(), field="messages")
    LIMITS.check_prompt(90, SamplingSpec(max_new_tokens=10), field="messages")
    with pytest.raises(InvalidArgument, match=r"^raw\.text: 100 tokens, limit 100 tokens of prompt and answer together$"):
        LIMITS.check_prompt(100, SamplingSpec(), field="raw.text")
    with pytest.raises(InvalidArgument, match=r"^sampling\.max_new_tokens: 11 after 90 of prompt, limit 100 tokens"):
        LIMITS.check_prompt(90, SamplingSpec(max_new_tokens=11), field="messages")


def test_positions_are_limited_beside_rows() -> None:
    LIMITS.check_prompt(10, SamplingSpec(max_new_tokens=10), field="messages", positions=90)
    with pytest.raises(InvalidArgument, match=r"^messages: 100 positions, limit 100 positions of prompt and answer together$"):
        LIMITS.check_prompt(10, SamplingSpec(), field="messages", positions=100)
    with pytest.raises(InvalidArgument, match=r"^sampling\.max_new_tokens: 11 after 90 of prompt, limit 100 positions"):
        LIMITS.check_prompt(10, SamplingSpec(max_new_tokens=11), field="messages", positions=90)
    assert SamplingDefaults(max_new_tokens=16).fill(SamplingSpec(), rows=10, positions=97, limits=LIMITS).max_new_tokens == 3


def test_unset_sampling_is_filled_in() -> None:
    defaults = SamplingDefaults(max_new_tokens=16)
    filled = defaults.fill(SamplingSpec(), rows=10, positions=10, limits=LIMITS)
    assert (filled.max_new_tokens, filled.temperature, filled.top_p, filled.top_k, filled.logprobs) == (16, 0.0, 1.0, 0, 0)
    assert filled.n == 1
    assert (filled.min_p, filled.repetition_penalty, filled.presence_penalty, filled.frequency_penalty) == (0.0, 1.0, 0.0, 0.0)
    assert defaults.fill(SamplingSpec(), rows=95, positions=95, limits=LIMITS).max_new_tokens == 5
    seeds = {defaults.fill(SamplingSpec(), rows=10, positions=10, limits=LIMITS).seed for _ in range(8)}
    assert len(seeds) == 8
    given = SamplingSpec(
        max_new_tokens=3, temperature=0.5, top_p=0.9, top_k=4, seed=0, stop=("x",), ignore_eos=True, logprobs=2, min_p=0.1,
        repetition_penalty=1.5, presence_penalty=-1.0, frequency_penalty=0.5, stop_token_ids=(7,), n=3,
    )  # fmt: skip
    decided = dataclasses.asdict(defaults.fill(given, rows=10, positions=10, limits=LIMITS))
    assert decided | {"constraint": None} == dataclasses.asdict(given)
