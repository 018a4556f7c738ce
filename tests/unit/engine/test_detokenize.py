import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders

from decoder_service.detokenize import CheckpointDecoder, StopFilter, TextStream, read_decoder
from tests.support import tokenizers as kinds
from tests.support.language_models import PARITY
from vscan.errors import CheckpointError

TEXTS = [
    "is there a star in the picture?",
    "Straße, naïve café: 你好 мир",
    "emoji 🙂🙃 and a family 👨‍👩‍👧 end",
    "  two blanks,\n\na new paragraph ",
]


def with_byte_fallback() -> Tokenizer:
    """Llama 2's manner in full: bytes for unknown characters, and the decoder that puts them together again."""
    core: Tokenizer = kinds.prepending().backend_tokenizer
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return core


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": lambda: kinds.byte_level().backend_tokenizer,
    "byte_fallback": with_byte_fallback,
    "metaspace": lambda: kinds.metaspace().backend_tokenizer,
    "word_level": lambda: kinds.word_level().backend_tokenizer,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def streamed(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    stream = TextStream(lambda some: decoded(tokenizer, some))
    return [*(stream.push(token) for token in ids), stream.flush()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_decoded_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(streamed(tokenizer, ids)) == decoded(tokenizer, ids)


def test_pieces_of_random_ids_join_to_the_decoded_whole(tokenizer: Tokenizer) -> None:
    generator = random.Random(1)
    words = [
        token_id
        for token, token_id in tokenizer.get_vocab().items()
        if token_id not in tokenizer.get_added_tokens_decoder() and not token.startswith("<0x") and token.isascii()
    ]
    for _ in range(30):
        ids = [generator.choice(words) for _ in range(generator.randint(1, 12))]
        assert "".join(streamed(tokenizer, ids)) == decoded(tokenizer, ids)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_a_character_of_several_tokens_comes_whole(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode("a🙂b", add_special_tokens=False).ids
    assert len(ids) > 4  # the emoji alone takes four bytes
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == "a🙂b"
    assert not any("�" in piece for piece in pieces)
    assert any("🙂" in piece for piece in pieces)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_a_character_cut_off_by_the_end_is_left_out(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    whole = tokenizer.encode("a🙂", add_special_tokens=False).ids
    assert "".join(streamed(tokenizer, whole[:-1])) == "a"


class Counting:
    """A decoder that counts the ids it is given."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self.ids = 0

    def __call__(self, ids: Sequence[int]) -> str:
        self.ids += len(ids)
        return self._decode(ids)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
@pytest.mark.parametrize("kind", ["no text", "lone bytes", "text"])
def test_no_answer_costs_more_for_each_token_the_longer_it_is(name: str, kind: str) -> None:
    tokenizer = TOKENIZERS[name]()
    first = tokenizer.encode("🙂", add_special_tokens=False).ids
    end = tokenizer.encode("</s>", add_special_tokens=False).ids
    more = {"no text": end, "lone bytes": first[-4:-3], "text": first[-4:]}[kind]
    ids = tokenizer.encode("is there 🙂", add_special_tokens=False).ids + more * 1000
    decode = Counting(lambda some: decoded(tokenizer, some))
    stream = TextStream(decode)
    pieces = [*(stream.push(token) for token in ids), stream.flush()]
    assert "".join(pieces).startswith("is there 🙂")
    assert decode.ids <= 12 * len(ids)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_bytes_that_become_no_character_are_given_up_and_text_goes_on(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    byte, text = (
        tokenizer.encode("🙂", add_special_tokens=False).ids[-4],
        tokenizer.encode(" is there", add_special_tokens=False),
    )
    pieces = streamed(tokenizer, [*text.ids, *[byte] * 20, *text.ids])
    joined = "".join(pieces)
    assert joined.startswith(decoded(tokenizer, text.ids) + "\ufffd" * 20)
    assert joined.replace("\ufffd", "") == decoded(tokenizer, [*text.ids, *text.ids])
    assert max(map(len, pieces)) <= 12  # they came on the way


def of_bytes(cut: int) -> tuple[Callable[[Sequence[int]], str], Callable[[str], list[int]]]:
    """A decoder of tokens that are so many bytes, wherever characters end, and how a text is written with it."""
    vocabulary: list[bytes] = []

    def decode(ids: Sequence[int]) -> str:
        return b"".join(vocabulary[token] for token in ids).decode(errors="replace")

    def encode(text: str) -> list[int]:
        data = text.encode()
        vocabulary[:] = [data[low : low + cut] for low in range(0, len(data), cut)]
        return list(range(len(vocabulary)))

    return decode, encode


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("text", ["世界" * 100, "é" * 200 + "a", "a" + "é" * 200, "🙂" * 100, "a🙂bé世" * 50])
def test_tokens_that_end_within_characters_lose_none(cut: int, text: str) -> None:
    plain, encode = of_bytes(cut)
    ids, decode = encode(text), Counting(plain)
    stream = TextStream(decode)
    pieces = [stream.push(token) for token in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + stream.flush() == text
    assert decode.ids <= 30 * len(ids)


@pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
def test_a_replacement_character_that_the_answer_says_itself_stays_at_its_end(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    spelling = {"byte_level": "ï¿½", "byte_fallback": "\ufffd"}[name]
    tokenizer.add_tokens([AddedToken(spelling, normalized=False)] if name == "byte_fallback" else [spelling])
    said, byte = tokenizer.token_to_id(spelling), tokenizer.encode("🙂", add_special_tokens=False).ids[-4]
    assert said is not None
    ids = tokenizer.encode("a", add_special_tokens=False).ids
    decode = CheckpointDecoder(tokenizer)
    assert decode([said]) == "\ufffd"
    tails: list[tuple[list[int], int]] = [([said], 1), ([byte], 0), ([said, byte], 1), ([said, said], 2)]
    for tail, left in tails:
        stream = TextStream(decode)
        text = "".join([*(stream.push(token) for token in [*ids, *tail]), stream.flush()])
        assert text == "a" + "\ufffd" * left


def test_control_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id("</s>")
    assert end is not None
    ids = tokenizer.encode("is there", add_special_tokens=False).ids
    assert "".join(streamed(tokenizer, [*ids[:1], end, *ids[1:], end])) == decoded(tokenizer, ids)


def test_a_checkpoints_decoder_is_read_from_its_file(tmp_path: Path) -> None:
    assert read_decoder(PARITY / "llava15")([10, 1, 11]) == "w10 w11"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_decoder(tmp_path)


def test_a_stop_string_across_borders_never_leaks() -> None:
    stop = StopFilter(["END"])
    assert [stop.push(piece) for piece in ("the E", "N", "T E", "ND", "after")] == ["the ", "", "ENT ", "", ""]
    assert stop.stopped
    assert stop.flush() == ""


def test_held_text_comes_out_at_the_end() -> None:
    stop = StopFilter(["\n\n"])
    assert stop.push("yes\n") == "yes"
    assert stop.flush() == "\n"
    assert not stop.stopped


def test_the_earliest_stop_string_counts() -> None:
    stop = StopFilter(["later", "soon"])
    assert stop.push("now soon later") == "now "


@given(
    text=st.text(alphabet="ab\n", max_size=30),
    stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=10),
)
def test_any_cutting_gives_what_the_whole_gives(text: str, stops: list[str], cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[low:high] for low, high in pairwise(borders)]
    stop = StopFilter(stops)
    out = "".join([stop.push(piece) for piece in pieces])
    out += stop.flush()
    # A stop string is met as soon as its last character is there; of those that end together, the one that begins first cuts.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    assert stop.stopped == bool(ends)
    if ends:
        assert text.startswith(out)
        assert not any(s in out for s in stops)
        assert len(out) <= min(end for end, _ in ends)
    else:
        assert out == text
