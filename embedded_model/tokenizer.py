"""The word-level tokenizer: every word of the questions is one token.

"USER: <image> is there any star? ASSISTANT:"
 <s> user : <image> is there any star ? assistant :        (letter case is folded)
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from embedded_model.questions import WORDS

UNK, BOS, EOS, PAD, IMAGE = "<unk>", "<s>", "</s>", "<pad>", "<image>"
SPECIALS = (UNK, BOS, EOS, PAD, IMAGE)
VOCABULARY: dict[str, int] = {word: i for i, word in enumerate((*SPECIALS, *WORDS))}
MAX_TOKENS = 1024


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer as transformers loads it; `<s>` is put before each text."""
    core = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNK))
    core.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # joins "star ?" to "star?"
    core.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, VOCABULARY[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=MAX_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def word_ids(text: str) -> list[int]:
    """Ids of a lower-case text without `<s>`; every word must be in the vocabulary."""
    return [VOCABULARY[word] for word in text.replace("?", " ?").replace(":", " :").split()]
