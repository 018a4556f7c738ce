"""From a chat, or a raw prompt, to the rows that the language model reads.

chat        user: [image] "is there a star?"
tokenised   <s> user : <image> is there a star ? assistant :       one placeholder for each image or video
laid out    <s> user :  v v v  is there a star ? assistant :       T rows for each
spans       [ImageSpan(image=0, start=3, count=3)]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from decoder_service.chat import Chat, MediaKind, RawPrompt
from decoder_service.chat_template import ChatTemplate
from decoder_service.language.tokens import SpecialTokens
from decoder_service.request import ImageSpan, Prompt
from decoder_service.text_tokenizer import TextTokenizer
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError, FailedPrecondition, InvalidArgument
from vscan.visual_tokens import VisualTokens


class OfAKind(Protocol):
    """What is an image or a video."""

    @property
    def kind(self) -> MediaKind:
        """Which of them."""


M = TypeVar("M", bound=OfAKind)


@dataclass(frozen=True, slots=True)
class PromptWriter:
    """Writes prompts for one checkpoint.

    Args:
        template: None where the checkpoint has none.
        placeholders: ids that stand for an image or a video, and for each of its rows: one row a visual token.
    """

    tokenizer: PreTrainedTokenizerBase
    text: TextTokenizer
    template: ChatTemplate | None
    placeholders: Mapping[int, MediaKind]

    @classmethod
    def open(cls, checkpoint: Checkpoint, special: SpecialTokens) -> PromptWriter:
        """Reads the checkpoint's tokenizer and chat template.

        Raises:
            CheckpointError: there is no tokenizer.json, or a file cannot be read.
        """
        tokenizer = load_tokenizer(checkpoint)
        placeholders = {special.placeholder_id: MediaKind.IMAGE}
        if special.video_placeholder_id is not None:
            placeholders[special.video_placeholder_id] = MediaKind.VIDEO
        meaningful = special.end_ids | {*placeholders, *_configured_ids(checkpoint.config), tokenizer.bos_token_id}
        text = TextTokenizer(
            tokenizer.backend_tokenizer,
            control_ids=special.control_ids | meaningful,
            # The unknown word's id, which any odd text yields, unless it means something else as well.
            harmless_ids={tokenizer.unk_token_id} - meaningful,
        )
        template = ChatTemplate.open(checkpoint.directory, tokenizer)
        return cls(tokenizer, text, template, placeholders)

    def ids(self, question: Chat | RawPrompt) -> list[int]:
        """The tokenised question, one placeholder for each image and each video.

        Raises:
            InvalidArgument: a text that the template or the tokenizer cannot take, or more or fewer placeholders of a kind than
                there are images or videos.
            FailedPrecondition: a chat, and the checkpoint has no chat template.
        """
        return self._chat_ids(question) if isinstance(question, Chat) else self._raw_ids(question)

    def in_prompt_order(self, ids: Sequence[int], media: Sequence[M]) -> list[M]:
        """As the placeholders come (templates may put images first): the k-th of a kind stands for the k-th of that kind."""
        waiting = {kind: iter([one for one in media if one.kind is kind]) for kind in MediaKind}
        return [next(waiting[kind]) for kind in self._placed(ids)]

    def lay_out(self, ids: Sequence[int], images: Sequence[VisualTokens]) -> Prompt:
        """The prompt, its placeholders widened to rows; images and videos in the prompt's order, one for each placeholder."""
        rows: list[int] = []
        spans: list[ImageSpan] = []
        for token in ids:
            if token not in self.placeholders:
                rows.append(token)
                continue
            image = len(spans)
            spans.append(ImageSpan(image=image, start=len(rows), count=images[image].kept_count))
            rows.extend([token] * spans[-1].count)
        return Prompt(token_ids=tuple(rows), spans=tuple(spans), images=tuple(images))

    def _chat_ids(self, chat: Chat) -> list[int]:
        if self.template is None:
            raise FailedPrecondition("messages: this checkpoint has no chat template; send a raw prompt")
        ids = self.text.encode(self.template.render(chat), [part.field for part in chat.texts()])
        for kind in MediaKind:
            placed, parts = self._placed(ids).count(kind), chat.media(kind)
            if placed != len(parts):
                field = parts[0].field if parts else "messages"
                raise InvalidArgument(field, f"this model's chat template places {placed} of {len(parts)} {kind}s")
        return ids

    def _raw_ids(self, raw: RawPrompt) -> list[int]:
        ids = self.text.encode_raw(raw.text)
        for kind in MediaKind:
            placed, sent = self._placed(ids).count(kind), raw.count(kind)
            if placed != sent:
                problem = f"{placed} placeholders for {sent} {kind}s"
                raise InvalidArgument(f"raw.{kind}s", problem, limit=f"one for each {kind}")
        return ids

    def _placed(self, ids: Sequence[int]) -> list[MediaKind]:
        return [self.placeholders[token] for token in ids if token in self.placeholders]


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
