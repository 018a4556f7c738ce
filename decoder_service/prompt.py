"""From a chat, or a raw prompt, to the rows that the language model reads.

chat        user: [image] "is there a star?"
tokenised   <s> user : <image> is there a star ? assistant :       one placeholder for each image
laid out    <s> user :  v v v  is there a star ? assistant :       T rows for each image
spans       [ImageSpan(image=0, start=3, count=3)]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from decoder_service.chat import Chat, RawPrompt
from decoder_service.chat_template import ChatTemplate
from decoder_service.language.tokens import SpecialTokens
from decoder_service.request import ImageSpan, Prompt
from decoder_service.text_tokenizer import TextTokenizer
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError, FailedPrecondition, InvalidArgument
from vscan.visual_tokens import VisualTokens


class ImageLayout(Protocol):
    """How a family writes an image into a prompt."""

    @property
    def placeholder_id(self) -> int:
        """The id that stands for an image, and for each of its rows."""

    def rows(self, image: VisualTokens) -> int:
        """Rows of the prompt that the image takes."""


@dataclass(frozen=True, slots=True)
class RowPerToken:
    """One row for each visual token, and nothing around them: the LLaVA family."""

    placeholder_id: int

    def rows(self, image: VisualTokens) -> int:
        """T."""
        return image.kept_count


@dataclass(frozen=True, slots=True)
class PromptWriter:
    """Writes prompts for one checkpoint. `template` is None where the checkpoint has none."""

    tokenizer: PreTrainedTokenizerBase
    text: TextTokenizer
    template: ChatTemplate | None
    layout: ImageLayout

    @classmethod
    def open(cls, checkpoint: Checkpoint, special: SpecialTokens, layout: ImageLayout | None = None) -> PromptWriter:
        """Reads the checkpoint's tokenizer and chat template.

        Raises:
            CheckpointError: there is no tokenizer.json, or a file cannot be read.
        """
        tokenizer = load_tokenizer(checkpoint)
        meaningful = special.end_ids | {special.placeholder_id, *_configured_ids(checkpoint.config), tokenizer.bos_token_id}
        text = TextTokenizer(
            tokenizer.backend_tokenizer,
            control_ids=special.control_ids | meaningful,
            # The unknown word's id, which any odd text yields, unless it means something else as well.
            harmless_ids={tokenizer.unk_token_id} - meaningful,
        )
        template = ChatTemplate.open(checkpoint.directory, tokenizer)
        return cls(tokenizer, text, template, layout or RowPerToken(special.placeholder_id))

    def ids(self, question: Chat | RawPrompt) -> list[int]:
        """The tokenised question, one placeholder for each image.

        Raises:
            InvalidArgument: a text that the template or the tokenizer cannot take, or more or fewer placeholders than images.
            FailedPrecondition: a chat, and the checkpoint has no chat template.
        """
        return self._chat_ids(question) if isinstance(question, Chat) else self._raw_ids(question)

    def lay_out(self, ids: Sequence[int], images: Sequence[VisualTokens]) -> Prompt:
        """The prompt, its placeholders widened to the images' rows; `ids` has one for each image."""
        rows: list[int] = []
        spans: list[ImageSpan] = []
        for token in ids:
            if token != self.layout.placeholder_id:
                rows.append(token)
                continue
            image = len(spans)
            spans.append(ImageSpan(image=image, start=len(rows), count=self.layout.rows(images[image])))
            rows.extend([token] * spans[-1].count)
        return Prompt(token_ids=tuple(rows), spans=tuple(spans), images=tuple(images))

    def _chat_ids(self, chat: Chat) -> list[int]:
        if self.template is None:
            raise FailedPrecondition("messages: this checkpoint has no chat template; send a raw prompt")
        ids = self.text.encode(self.template.render(chat), [part.field for part in chat.texts()])
        placed, images = ids.count(self.layout.placeholder_id), chat.images()
        if placed != len(images):
            field = images[0].field if images else "messages"
            raise InvalidArgument(field, f"this model's chat template places {placed} of {len(images)} images")
        return ids

    def _raw_ids(self, raw: RawPrompt) -> list[int]:
        ids = self.text.encode_raw(raw.text)
        placed = ids.count(self.layout.placeholder_id)
        if placed != raw.images:
            raise InvalidArgument("raw.images", f"{placed} placeholders for {raw.images} images", limit="one for each image")
        return ids


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, without any remote code. Raises CheckpointError."""
    directory = checkpoint.directory
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for a bad file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{directory}: its tokenizer cannot be read: {reason}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{directory}: no tokenizer.json; only tokenizers in that form are read")
    return tokenizer


def _configured_ids(config: PretrainedConfig) -> Iterator[int]:
    """Every `…_token_id` and `…_token_index` of the configuration and of its language half, but not padding's."""
    for part in (config, config.get_text_config()):
        for name, value in part.to_dict().items():
            if name.endswith(("_token_id", "_token_index")) and name != "pad_token_id":
                yield from (entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, int))
