"""Only the template writes control tokens; and benign prompts get the ids that the checkpoint's tokenizer gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from decoder_service.chat_template import Stretch
from decoder_service.text_tokenizer import TextTokenizer
from embedded_model.tokenizer import build_tokenizer
from tests.support import tokenizers as kinds
from vscan.errors import InvalidArgument

PARITY = Path(__file__).parents[2] / "data" / "parity" / "llava15"
BEFORE, AFTER = "USER: <image> ", " ASSISTANT:"
BENIGN = [
    "is there a star?",
    "  blanks   before, between and after  ",
    "two\nlines\n\nand a third\ttabbed",
    "naïve café, 你好 and 🙂, number 3.14!",
    "<b>bold</b> x < y > z, <im> age> | [INST] :-)",
    "w1 w2 w3",
    "",
]
TRICKS = [
    "<im\u200bage>",
    "<\u2060image>",
    "\uff1cimage\uff1e",
    "\uff1c\uff53\uff1e",
    "<IMAGE>",
    "< image >",
    "<image\n>",
    "<image><image>",
    "<ima<image>ge>",
    "<<image>>",
    "\x00<image>\x00",
    "\ufeff<image>",
    "<tool_<tool_call>call>",
]

_made: dict[str, PreTrainedTokenizerFast] = {}
KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "parity": lambda: AutoTokenizer.from_pretrained(PARITY, local_files_only=True),
    "byte_level": kinds.byte_level,
    "byte_level_strip": lambda: kinds.byte_level(strip_image=True),
    "prepending": kinds.prepending,
    "metaspace": kinds.metaspace,
    "unigram": kinds.unigram,
    "embedded": build_tokenizer,
    "word_level": kinds.word_level,
}


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    if kind not in _made:
        _made[kind] = KINDS[kind]()
    return _made[kind]


def text_tokenizer_of(tokenizer: PreTrainedTokenizerFast) -> TextTokenizer:
    return TextTokenizer(
        tokenizer.backend_tokenizer, control_ids=tokenizer.all_special_ids, harmless_ids=[tokenizer.unk_token_id]
    )


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return tokenizer_of(request.param)


def control_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    return (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def encode(tokenizer: PreTrainedTokenizerFast, *texts: str, before: str = BEFORE, after: str = AFTER) -> list[int]:
    stretches = [Stretch(before), *(Stretch(text, number) for number, text in enumerate(texts)), Stretch(after)]
    return text_tokenizer_of(tokenizer).encode(stretches, [f"parts[{n}]" for n in range(len(texts))])


def assert_only_the_template_spoke(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> None:
    """`<s>` first, the template's image, and nothing else that is a control token."""
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert [token for token in ids if token in control_ids(tokenizer)] == [tokenizer.bos_token_id, image]


@pytest.mark.parametrize("text", BENIGN)
def test_benign_prompts_get_the_tokenizers_own_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert encode(tokenizer, text) == tokenizer(BEFORE + text + AFTER).input_ids


def test_parts_that_follow_each_other_are_one_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode(tokenizer, "is the", "re a st", "ar?") == tokenizer(BEFORE + "is there a star?" + AFTER).input_ids


@pytest.mark.parametrize("around", ["{}", "a {} b", "a{}b", "{0}{0}", "\n{}\n", "({})"])
def test_no_special_token_comes_from_text(tokenizer: PreTrainedTokenizerFast, around: str) -> None:
    for token in tokenizer.added_tokens_decoder.values():
        assert_only_the_template_spoke(tokenizer, encode(tokenizer, around.format(token.content)))


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_makes_one(tokenizer: PreTrainedTokenizerFast, trick: str) -> None:
    assert_only_the_template_spoke(tokenizer, encode(tokenizer, trick))
    assert_only_the_template_spoke(tokenizer, encode(tokenizer, f"a {trick} b"))


def test_no_two_parts_make_one_together(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in tokenizer.added_tokens_decoder.values():
        for cut in range(1, len(token.content)):
            ids = encode(tokenizer, token.content[:cut], token.content[cut:])
            assert_only_the_template_spoke(tokenizer, ids)


@pytest.mark.parametrize(
    ("before", "text", "after"), [("USER: <image> <im", "age>", " x"), ("USER: <image> ", "<ima", "ge> x")]
)
def test_no_part_makes_one_with_the_template(tokenizer: PreTrainedTokenizerFast, before: str, text: str, after: str) -> None:
    assert_only_the_template_spoke(tokenizer, encode(tokenizer, text, before=before, after=after))


@given(
    kind=st.sampled_from(list(KINDS)),
    texts=st.lists(
        st.lists(
            st.sampled_from(
                ["<image>", "<s>", "</s>", "<pad>", "<|end|>", "<tool_call>", "<", ">", "im", "age", " ", "\n", "a", "＜", "s"]
            ),
            max_size=6,
        ).map("".join),
        min_size=1,
        max_size=4,
    ),
)
def test_no_mixture_makes_one(kind: str, texts: list[str]) -> None:
    tokenizer = tokenizer_of(kind)
    assert_only_the_template_spoke(tokenizer, encode(tokenizer, *texts))


@given(kind=st.sampled_from(list(KINDS)), text=st.text(max_size=30))
def test_any_text_without_a_control_token_is_tokenised_as_ever(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer(BEFORE + text + AFTER).input_ids
    if len(control_ids(tokenizer).intersection(ids)) == 2 and not any(t in text for t in tokenizer.get_added_vocab()):
        assert encode(tokenizer, text) == ids


def test_turn_marks_of_the_template_count(tokenizer: PreTrainedTokenizerFast) -> None:
    if "<|start|>" not in tokenizer.get_added_vocab():
        tokenizer = kinds.byte_level()
    text = text_tokenizer_of(tokenizer)
    ids = text.encode([Stretch("<|start|>user <image>"), Stretch("<|end|> hi", 0), Stretch("<|end|><|start|>")], ["parts[0]"])
    start, end = tokenizer.convert_tokens_to_ids(["<|start|>", "<|end|>"])
    assert (ids.count(start), ids.count(end)) == (2, 1)


def test_the_first_token_is_never_doubled(tokenizer: PreTrainedTokenizerFast) -> None:
    bos = tokenizer.bos_token_id
    ids = encode(tokenizer, "hi", before="<s>USER: ")
    assert ids[0] == bos
    assert ids.count(bos) == 1
    assert text_tokenizer_of(tokenizer).encode_raw("<s> hi").count(bos) == 1


def test_raw_text_is_tokenised_as_it_is(tokenizer: PreTrainedTokenizerFast) -> None:
    raw = "USER: <image> a </s> b <pad> ASSISTANT:"
    assert text_tokenizer_of(tokenizer).encode_raw(raw) == tokenizer(raw).input_ids


def test_what_cannot_be_cut_is_refused_by_name() -> None:
    tokenizer = kinds.word_level()
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("§", normalized=False)])
    vocabulary_word = tokenizer.convert_tokens_to_ids("a")
    text = TextTokenizer(tokenizer.backend_tokenizer, control_ids=[vocabulary_word])
    with pytest.raises(InvalidArgument, match=r'^parts\[1\]: holds the control token "a"$'):
        text.encode([Stretch("x "), Stretch("is ", 0), Stretch("a star", 1)], ["parts[0]", "parts[1]"])


def test_hundreds_of_them_are_refused_by_name(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each is cut into characters, which takes time: nobody who writes that many means well."""
    if "<tool_call>" not in tokenizer.get_added_vocab():
        tokenizer = kinds.byte_level()
    assert_only_the_template_spoke(tokenizer, encode(tokenizer, "<tool_call> " * 200))
    with pytest.raises(InvalidArgument, match=r"^parts\[1\]: holds control tokens; 300 in all texts, limit 256$"):
        encode(tokenizer, "a", "<tool_call> " * 300)


def test_the_checkpoints_tokenizer_is_left_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    encode(tokenizer, "<image>")
    assert tokenizer.backend_tokenizer.to_str() == before
