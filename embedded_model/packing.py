"""Many questions behind one image: sixteen answers for one pass of the encoder.

A pack is one sequence: the prefix (`<s> user :` and the visual tokens), then the segments one
after the other. A segment sees the prefix and itself; its positions go on from the prefix, so each
answer is the one that a prompt with that question alone would get:

    token      <s> user : v v v v | is there ... : yes | what color ... : red
    segment     0   0   0 0 0 0 0 | 1  1     ... 1  1  | 2    2     ... 2  2
    position    0   1   2 3 4 5 6 | 7  8     ... 14 15 | 7    8     ... 14 15
    target      .   .   . . . . . | .  .  ... yes </s> | .    .     ... red </s>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embedded_model.questions import Question
from embedded_model.tokenizer import BOS, EOS, PAD, VOCABULARY, word_ids

IGNORED = -100
BLOCKED = -1e4  # added to a masked attention score; finite in bfloat16 too
PREFIX_IDS = (VOCABULARY[BOS], *word_ids("user:"))
Segment = Sequence[Question]  # the turns of one conversation, one or more


@dataclass(frozen=True, slots=True)
class Pack:
    """Segments of each picture side by side; all fields are [pictures, tokens] int64."""

    ids: Tensor
    segments: Tensor  # 1, 2, ... ; 0 for padding
    offsets: Tensor  # position within the segment
    targets: Tensor  # the token to be said after this one, or IGNORED

    def to(self, device: torch.device) -> Pack:
        """The same pack on `device`."""
        fields = (self.ids, self.segments, self.offsets, self.targets)
        return Pack(*(field.to(device) for field in fields))


def segment_tokens(turns: Segment) -> tuple[list[int], list[int]]:
    """Ids and targets of a conversation after the image: `question assistant : answer`, joined by `user :`."""
    ids: list[int] = []
    targets: list[int] = []
    for turn in turns:
        lead = word_ids("user:") if ids else []
        prompt = [*lead, *word_ids(f"{turn.text} assistant:")]
        answer = word_ids(turn.answer)
        ids += prompt + answer
        targets += [IGNORED] * (len(prompt) - 1) + answer + [VOCABULARY[EOS]]
    return ids, targets


def pack(pictures: Sequence[Sequence[Segment]]) -> Pack:
    """Packs the segments of each picture; rows are padded to the longest."""
    rows = [_row(segments) for segments in pictures]
    longest = max(len(ids) for ids, *_ in rows)
    fill = (VOCABULARY[PAD], 0, 0, IGNORED)
    padded = (
        [column + [value] * (longest - len(column)) for column in columns]
        for columns, value in zip(zip(*rows, strict=True), fill, strict=True)
    )
    return Pack(*(torch.tensor(field) for field in padded))


def _row(segments: Sequence[Segment]) -> tuple[list[int], list[int], list[int], list[int]]:
    ids: list[int] = []
    numbers: list[int] = []
    offsets: list[int] = []
    targets: list[int] = []
    for number, turns in enumerate(segments, start=1):
        more, wanted = segment_tokens(turns)
        ids += more
        targets += wanted
        numbers += [number] * len(more)
        offsets += range(len(more))
    return ids, numbers, offsets, targets


def pack_mask(segments: Tensor, prefix: int, dtype: torch.dtype) -> Tensor:
    """The additive mask [pictures, 1, prefix + tokens, prefix + tokens] for `segments` [pictures, tokens]."""
    whole = nn.functional.pad(segments, (prefix, 0), value=-1)
    total = whole.shape[1]
    same = whole[:, :, None] == whole[:, None, :]
    to_prefix = torch.arange(total, device=whole.device) < prefix
    causal = torch.ones(total, total, dtype=torch.bool, device=whole.device).tril()
    seen = (same | to_prefix) & causal
    mask = torch.zeros(seen.shape, dtype=dtype, device=whole.device)
    return mask.masked_fill_(~seen, BLOCKED)[:, None]


def pack_positions(offsets: Tensor, prefix: int) -> Tensor:
    """Positions [pictures, prefix + tokens]; each segment goes on from the prefix."""
    before = torch.arange(prefix, device=offsets.device).expand(len(offsets), -1)
    return torch.cat([before, offsets + prefix], dim=1)
