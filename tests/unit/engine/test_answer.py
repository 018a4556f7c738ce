from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.answer import Answer
from decoder_service.request import FinishReason, SampledToken, Sampling
from tests.support import tokenizers as kinds
from vscan.errors import InvalidArgument

WORDS = ["</s>", "yes", " no", " maybe", "\n", "st", "op"]


def answer(**fields: Any) -> Answer:
    sampling = Sampling(**({"max_new_tokens": 10} | fields))
    return Answer(sampling, decode=lambda ids: "".join(WORDS[i] for i in ids if i), end_ids=frozenset({0}))


def run(ids: list[int], **fields: Any) -> tuple[str, FinishReason | None, int]:
    own, text, told = answer(**fields), "", []
    for token_id in ids:
        assert own.reason is None
        delta = own.push(SampledToken(token_id))
        told += [token.token_id for token in delta.tokens]
        text += delta.text
    assert told == ids
    return text, own.reason, own.tokens


def test_the_end_token_ends_the_answer_and_counts_as_a_token() -> None:
    assert run([1, 2, 0]) == ("yes no", FinishReason.END_OF_SEQUENCE, 3)


def test_an_ignored_end_token_does_not() -> None:
    assert run([1, 0, 2], ignore_eos=True, max_new_tokens=3) == ("yes no", FinishReason.LENGTH, 3)


def test_the_length_ends_the_answer() -> None:
    assert run([1, 2, 3], max_new_tokens=3) == ("yes no maybe", FinishReason.LENGTH, 3)


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it() -> None:
    assert run([1, 5, 6], stop=("stop",)) == ("yes", FinishReason.STOP_STRING, 3)


def test_what_might_have_become_a_stop_string_comes_out_at_the_end() -> None:
    assert run([1, 5, 0], stop=("stop",)) == ("yesst", FinishReason.END_OF_SEQUENCE, 3)
    assert run([1, 5], stop=("stop",), max_new_tokens=2) == ("yesst", FinishReason.LENGTH, 2)


def test_a_stop_string_on_the_last_token_wins_over_the_length() -> None:
    assert run([1, 5, 6], stop=("stop",), max_new_tokens=3) == ("yes", FinishReason.STOP_STRING, 3)


def deltas(ids: list[int], **fields: Any) -> list[tuple[str, list[int]]]:
    own = answer(**fields)
    made = [own.push(SampledToken(token_id)) for token_id in ids]
    return [(delta.text, [token.token_id for token in delta.tokens]) for delta in made]


def test_tokens_come_with_the_last_of_their_text() -> None:
    assert deltas([1, 2, 3]) == [("yes", [1]), (" no", [2]), (" maybe", [3])]
    # "st" may become "stop", then it does not.
    assert deltas([2, 5, 5, 2], stop=("stop",)) == [(" no", [2]), ("", []), ("st", [5]), ("st no", [5, 2])]
    # " maybe" is out but for its last letter.
    assert deltas([3, 2], stop=("end",)) == [(" mayb", []), ("e no", [3, 2])]


def test_no_token_of_a_stop_string_comes_before_the_end() -> None:
    assert deltas([2, 5, 6], stop=("stop",)) == [(" no", [2]), ("", []), ("", [5, 6])]
    assert deltas([2, 5, 0], stop=("stop",)) == [(" no", [2]), ("", []), ("st", [5, 0])]


def test_tokens_of_an_incomplete_character_wait_for_it() -> None:
    ids = BYTES.encode("a🙂b", add_special_tokens=False).ids
    own = Answer(Sampling(max_new_tokens=10), decode=lambda some: BYTES.decode(list(some)), end_ids=frozenset({2}))
    made = [own.push(SampledToken(token)) for token in ids]
    assert [(delta.text, len(delta.tokens)) for delta in made] == [("a", 1), ("", 0), ("", 0), ("", 0), ("🙂", 4), ("b", 1)]


def test_a_stop_token_ends_the_answer_and_its_text_is_not_part_of_it() -> None:
    assert run([1, 2, 3], stop_token_ids=(3, 5)) == ("yes no", FinishReason.STOP_TOKEN, 3)
    assert run([1, 3], stop_token_ids=(3,), ignore_eos=True) == ("yes", FinishReason.STOP_TOKEN, 2)
    assert run([1, 0], stop_token_ids=(0,), ignore_eos=True) == ("yes", FinishReason.STOP_TOKEN, 2)


def test_what_a_stop_string_held_comes_out_before_a_stop_token() -> None:
    assert run([1, 5, 3], stop=("stop",), stop_token_ids=(3,)) == ("yesst", FinishReason.STOP_TOKEN, 3)


def test_a_whole_answer_ends() -> None:
    own = answer()
    own.push(SampledToken(1))
    assert own.push(SampledToken(2, complete=True)).text == " no"
    assert own.reason is FinishReason.CONSTRAINT


def test_the_last_token_of_a_whole_answer_is_not_cut_off_by_its_length() -> None:
    own = answer(max_new_tokens=1)
    own.push(SampledToken(2, complete=True))
    assert own.reason is FinishReason.CONSTRAINT


def test_an_answer_that_cannot_go_on_fails_unless_it_ends_anyhow() -> None:
    problem = InvalidArgument("sampling.regex", "no way on")
    with pytest.raises(InvalidArgument, match="no way on"):
        answer().push(SampledToken(1, problem=problem))
    ended = answer(max_new_tokens=1)
    ended.push(SampledToken(1, problem=problem))
    assert ended.reason is FinishReason.LENGTH


BYTES = kinds.byte_level().backend_tokenizer
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd") | st.sampled_from("ab🙂é"), max_size=12)


@settings(deadline=None)
@given(text=TEXTS, stops=st.lists(TEXTS.filter(bool), max_size=3))
def test_an_answer_of_any_tokens_is_cut_right_before_a_stop_string(text: str, stops: list[str]) -> None:
    """Nothing of the stop string that ends it comes out, no character comes in halves, and nothing else is lost."""
    ids = BYTES.encode(text, add_special_tokens=False).ids
    whole = BYTES.decode(ids)
    own = Answer(
        Sampling(max_new_tokens=100, stop=tuple(stops)), decode=lambda some: BYTES.decode(list(some)), end_ids=frozenset({2})
    )
    pieces: list[str] = []
    told: list[int] = []
    for token in [*ids, 2]:
        delta = own.push(SampledToken(token))
        pieces.append(delta.text)
        told += [each.token_id for each in delta.tokens]
        said = BYTES.decode(told)
        assert own.reason is not None or "".join(pieces).startswith(said)
        if own.reason is not None:
            break
    assert told == [*ids, 2][: own.tokens]
    out = "".join(pieces)
    assert not any("\ufffd" in piece for piece in pieces)
    if own.reason is FinishReason.STOP_STRING:
        assert any((out + stop) == whole[: len(out) + len(stop)] for stop in stops)
    else:
        assert out == whole
    assert not any(stop in out for stop in stops)
    assert (own.reason is FinishReason.STOP_STRING) == any(stop in whole for stop in stops)
