from typing import Any

from decoder_service.answer import Answer
from decoder_service.request import FinishReason, SampledToken, Sampling

WORDS = ["</s>", "yes", " no", " maybe", "\n", "st", "op"]


def answer(**fields: Any) -> Answer:
    sampling = Sampling(**({"max_new_tokens": 10} | fields))
    return Answer(sampling, decode=lambda ids: "".join(WORDS[i] for i in ids if i), end_ids=frozenset({0}))


def run(ids: list[int], **fields: Any) -> tuple[str, FinishReason | None, int]:
    own, text = answer(**fields), ""
    for token_id in ids:
        assert own.reason is None
        delta = own.push(SampledToken(token_id))
        assert [token.token_id for token in delta.tokens] == [token_id]
        text += delta.text
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
