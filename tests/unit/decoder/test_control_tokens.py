"""Only the template writes control tokens: of every family, in every message and however a user's texts are cut into parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from decoder_service.chat import Chat, MediaKind, MediaPart, Role, TextPart, Turn
from decoder_service.prompt import PromptWriter
from tests.support import qwen
from tests.unit.decoder.test_video_prompt import FAMILIES, open_writer

# What checkpoints of these families have for turns, whichever of them a tiny one is made with.
TURNS = ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "</s>", "<s>"]
MARKS = sorted({*TURNS, *qwen.SPECIALS, "<image>", "<video>", "<pad>"})
# Every role has its place, and nothing stands between the parts of a message.
TEMPLATE = (
    "{%% for m in messages %%}<|im_start|>{{ m['role'] }} [INST]{%% for c in m['content'] %%}{%% if c['type'] == 'image' %%}%s"
    "{%% elif c['type'] == 'video' %%}%s{%% else %%}{{ c['text'] }}{%% endif %%}{%% endfor %%}[/INST]<|im_end|></s>"
    "{%% endfor %%}"
)

_kept_folders: list[TemporaryDirectory[str]] = []


def with_turns(words: Any) -> Any:
    """A tokenizer.json in which every mark of a turn is a special token."""
    added, vocabulary = words["added_tokens"], words["model"]["vocab"]
    known = {token["content"] for token in added}
    first_id = 1 + max(*vocabulary.values(), *(token["id"] for token in added))
    ids = {mark: number for number, mark in enumerate((mark for mark in TURNS if mark not in known), start=first_id)}
    if words["model"]["type"] == "WordLevel":  # others number what is added behind their vocabulary
        vocabulary.update(ids)
    words["added_tokens"] += [added[0] | {"id": number, "content": mark, "special": True} for mark, number in ids.items()]
    return words


@cache
def writer(family: str) -> PromptWriter:
    """Of a checkpoint whose tokenizer has all the marks that its kind can have, as special tokens."""
    directory, image_id, video_id, image, video = FAMILIES[family]
    folder = TemporaryDirectory(prefix=f"{family}-")
    _kept_folders.append(folder)
    for file in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (Path(folder.name) / file).symlink_to(directory() / file)
    words = json.loads((directory() / "tokenizer.json").read_text())
    (Path(folder.name) / "tokenizer.json").write_text(json.dumps(with_turns(words)))
    (Path(folder.name) / "chat_template.jinja").write_text(TEMPLATE % (image, video))
    return open_writer(Path(folder.name), image_id, video_id)


def chat(family: str, role: Role, texts: Sequence[str]) -> Chat:
    """A message of each role; the texts are of one of them, and the user's has an image, and a video where there are any."""
    kinds = list(MediaKind) if FAMILIES[family][2] is not None else [MediaKind.IMAGE]
    media = [MediaPart(f"messages[1].{kind}", kind) for kind in kinds]

    def turn(number: int, of: Role) -> Turn:
        said = texts if of is role else ["w9"]
        parts = [TextPart(f"messages[{number}].parts[{index}].text", text) for index, text in enumerate(said)]
        return Turn(f"messages[{number}]", of, (*parts, *(media if of is Role.USER else []), *parts))

    return Chat(tuple(turn(number, of) for number, of in enumerate((Role.SYSTEM, Role.USER, Role.ASSISTANT))))


def tricks(mark: str) -> Iterator[list[str]]:
    """The mark whole, in a text, around itself, and cut into two parts at every place."""
    yield [mark]
    yield [f"w9 {mark}w9{mark}", mark]
    yield [f"{mark[:2]}{mark}{mark[2:]}"]
    yield [mark[:2], mark, mark[2:]]
    yield from ([mark[:cut], mark[cut:]] for cut in range(1, len(mark)))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_of_any_message_yields_a_control_token(family: str, role: Role) -> None:
    tokenizer = writer(family).tokenizer
    _, image, video, *_ = FAMILIES[family]
    special = ({*tokenizer.all_special_ids, image, video} | set(tokenizer.added_tokens_decoder)) - {tokenizer.unk_token_id}

    def written(texts: Sequence[str]) -> list[int]:
        return [token for token in writer(family).ids(chat(family, role, texts)) if token in special]

    wanted = written(["w9"])
    assert wanted.count(image) == 1
    assert {tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_start|>", "[INST]", "</s>")} < set(wanted)
    for mark in MARKS:
        for texts in tricks(mark):
            assert written(texts) == wanted, texts
