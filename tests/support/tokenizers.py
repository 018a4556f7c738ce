"""Small tokenizers of the kinds that checkpoints come with, trained on a few lines."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    "is there a star in the picture? what colour is the small circle above the blue square?",
    "USER: <image> how many triangles are there? ASSISTANT: three. ASSISTANT: yes. USER: and now?",
    'a quick brown fox jumps over the lazy dog, 0123456789 times! (really: it does; "so it says") <b>bold</b>',
] * 4
SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
# Llama's manner: marks for turns, matched by the tokenizer; one token that is added but not special; runs of blanks.
MARKS = ("<|start|>", "<|end|>")
TOOL = "<tool_call>"
BLANKS = "\n\n"


def byte_level(*, strip_image: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have; `<s>` is put before each text."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(LINES, trainer)
    core.add_special_tokens([AddedToken("<image>", lstrip=strip_image, rstrip=strip_image, normalized=False)])
    return _finished(core)


def prepending() -> PreTrainedTokenizerFast:
    """Llama 2's manner: a normalizer writes blanks as ▁ and puts one first; bytes for unknown characters."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    core.train_from_iterator(LINES, trainer)
    return _finished(_without_byte_tokens(core))


def metaspace() -> PreTrainedTokenizerFast:
    """Llama 2's newer manner: the pre-tokenizer puts ▁ before the first word of the text only."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    core.train_from_iterator(LINES, trainer)
    return _finished(_without_byte_tokens(core))


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's unigram with its NFKC, as T5 and XLM-R have."""
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=list(SPECIALS), unk_token="<unk>", show_progress=False)
    core.train_from_iterator(LINES, trainer)
    return _finished(core)


def word_level() -> PreTrainedTokenizerFast:
    """Whole words, letter case and width folded; special tokens are words of the vocabulary too: plain look-up finds them."""
    words = sorted({word for line in LINES for word in line.lower().split()} - set(SPECIALS))
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIALS, *words])}, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _finished(core)


def _without_byte_tokens(core: Tokenizer) -> Tokenizer:
    """Byte pieces belong to the vocabulary, but are not added tokens."""
    state = json.loads(core.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(state))


def _finished(core: Tokenizer) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    core.add_tokens([AddedToken(TOOL, normalized=False), AddedToken(BLANKS, normalized=False)])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
