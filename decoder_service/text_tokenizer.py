"""Tokenises prompts so that only the template writes control tokens, never a user's text.

A private copy of the checkpoint's tokenizer matches no special token in text. Where the *template* wrote one, an unguessable
stand-in is put, which the copy does match, and its id is turned back into the real one. So the prompt is still tokenised as one
string, and benign prompts get the very ids that the checkpoint's tokenizer gives them.

    template "USER: <image> "   user "an <image>?"   template " ASSISTANT:"
             USER: ⟦9c..-0⟧ an <image>? ASSISTANT:           one string
             4     900      17 3        9                    ids; 900 stands for <image>
             4     255      17 3        9                    the prompt
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Encoding, Tokenizer

from decoder_service.chat_template import Stretch
from vscan.errors import InternalError, InvalidArgument

# Cutting a control token out may let its neighbours form another; nothing needs more than a few rounds.
_MAX_CUTS = 4
# Cutting costs about as much as tokenising a hundred ordinary characters for each character that is cut.
_MAX_FOUND = 256

_Found = tuple[int, int, int]  # id, start, end


class TextTokenizer:
    """Tokenises stretches of known authorship, and raw prompts.

    Args:
        backend: the checkpoint's tokenizer; copied, never changed.
        control_ids: ids that no user text may yield, beside the tokenizer's own control tokens.
        harmless_ids: ids that any text may yield (the unknown word's).
    """

    def __init__(self, backend: Tokenizer, *, control_ids: Collection[int] = (), harmless_ids: Collection[int] = ()) -> None:
        self._plain = _private_copy(backend)
        added = _control_tokens(backend)
        self._control_ids = ({*added, *control_ids}) - {*harmless_ids}
        self._stand_ins = _StandIns(backend, added)
        self._before, self._after = _frame(self._plain)

    def encode_raw(self, text: str) -> list[int]:
        """The ids of a prompt in the model's own syntax: every special token counts, the tokenizer's frame is added."""
        return self._framed(self._plain.encode(text, add_special_tokens=False).ids)

    def encode(self, stretches: Sequence[Stretch], fields: Sequence[str]) -> list[int]:
        """The ids of a rendered chat, framed as the tokenizer frames a text (`<s>` first, but never twice).

        A user's text that would yield a control token is cut into characters there.

        Args:
            stretches: the prompt, in order.
            fields: for each text part its path, for errors.

        Raises:
            InvalidArgument: a text part yields a control token however it is cut, or hundreds of them.
        """
        pieces = self._stand_ins.put_into(stretches)
        encoding, found = self._scan(pieces)
        for _ in range(_MAX_CUTS):
            if not found:
                break
            _check_few(pieces, fields, found)
            pieces = _cut_apart(pieces, [(start, end) for _, start, end in found], self._stand_ins.cut)
            encoding, found = self._scan(pieces)
        if found:
            raise self._refusal(pieces, fields, *found[0])
        return self._framed(self._stand_ins.real_ids(encoding.ids))

    def _scan(self, pieces: Sequence[_Piece]) -> tuple[Encoding, list[_Found]]:
        """Encodes; also finds each control token that is not wholly the template's."""
        encoding = self._stand_ins.encode(pieces)
        written = _user_characters(pieces)
        found = [
            (token, start, end)
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token in self._control_ids and (start == end or any(written[start:end]))
        ]
        return encoding, found

    def _refusal(self, pieces: Sequence[_Piece], fields: Sequence[str], token: int, start: int, end: int) -> InvalidArgument:
        field = _field_at(pieces, fields, start, end)
        return InvalidArgument(field, f'holds the control token "{self._plain.id_to_token(token)}"')

    def _framed(self, ids: list[int]) -> list[int]:
        before = [] if ids[: len(self._before)] == self._before else self._before
        return [*before, *ids, *self._after]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Characters of the string that is tokenised. `part`: the user's part that they come from, None for the template's."""

    text: str
    part: int | None = None


class _StandIns:
    """A tokenizer that knows an unguessable word for each control token, and one that only separates."""

    def __init__(self, backend: Tokenizer, added: dict[int, AddedToken]) -> None:
        nonce = secrets.token_hex(16)
        words = {token_id: f"⟦{nonce}-{token_id}⟧" for token_id in added}
        self.cut = f"⟦{nonce}-cut⟧"
        self._words = {added[token_id].content: word for token_id, word in words.items()}
        # Longest first, as the tokenizer matches them.
        self._matcher = re.compile("|".join(map(re.escape, sorted(self._words, key=len, reverse=True))) or r"(?!)")
        self._tokenizer = _with_words(backend, added, words, self.cut)
        self._real = {self._tokenizer.token_to_id(word): token_id for token_id, word in words.items()}
        self._cut_id = self._tokenizer.token_to_id(self.cut)

    def put_into(self, stretches: Iterable[Stretch]) -> list[_Piece]:
        """The stretches, with a stand-in for each control token that the template wrote."""
        return [
            _Piece(stretch.text, stretch.part)
            if stretch.part is not None
            else _Piece(self._matcher.sub(lambda match: self._words[match[0]], stretch.text))
            for stretch in stretches
        ]

    def encode(self, pieces: Sequence[_Piece]) -> Encoding:
        """One encoding of all pieces. Raises InternalError if a stand-in was not recognised, or one too many was."""
        text = "".join(piece.text for piece in pieces)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        wanted = [word for piece in pieces if piece.part is None for word in re.findall(r"⟦[0-9a-f]{32}-\w+⟧", piece.text)]
        got = [self._tokenizer.id_to_token(token) for token in encoding.ids if token in self._real or token == self._cut_id]
        if got != wanted:
            raise InternalError("a prompt could not be tokenised")
        return encoding

    def real_ids(self, ids: Iterable[int]) -> list[int]:
        """The ids with every stand-in replaced by what it stands for, and no separators."""
        return [self._real.get(token, token) for token in ids if token != self._cut_id]


def _private_copy(backend: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _control_tokens(backend: Tokenizer) -> dict[int, AddedToken]:
    """The added tokens, but for ordinary runs of white space, which some vocabularies add to be compact."""
    added: dict[int, AddedToken] = backend.get_added_tokens_decoder()
    return {token_id: token for token_id, token in added.items() if token.special or token.content.strip()}


def _with_words(backend: Tokenizer, added: dict[int, AddedToken], words: dict[int, str], cut: str) -> Tokenizer:
    """A copy that matches `words` as it would have matched the tokens they stand for, and no special token."""
    for keep_normalized in (True, False):
        copy = _private_copy(backend)
        copy.encode_special_tokens = True
        copy.add_tokens([AddedToken(cut, normalized=False, special=False)])
        for token_id, word in words.items():
            token = added[token_id]
            normalized = token.normalized and keep_normalized
            copy.add_tokens([AddedToken(word, lstrip=token.lstrip, rstrip=token.rstrip, normalized=normalized, special=False)])
        # Some normalizers hide a word that stands right after another character; matched before them, it is always found.
        if all(copy.token_to_id(word) in copy.encode(f"a{word}b", add_special_tokens=False).ids for word in words.values()):
            break
    return copy


def _frame(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text, as ids."""
    encoding = backend.encode("a")
    added = encoding.special_tokens_mask
    before = next((place for place, mark in enumerate(added) if not mark), len(added))
    after = next((place for place, mark in enumerate(reversed(added)) if not mark), 0)
    return encoding.ids[:before], encoding.ids[len(added) - after :]


def _places(pieces: Iterable[_Piece]) -> Iterator[tuple[_Piece, int, int]]:
    """Each piece with its first and its last place plus one."""
    start = 0
    for piece in pieces:
        yield piece, start, start + len(piece.text)
        start += len(piece.text)


def _field_at(pieces: Iterable[_Piece], fields: Sequence[str], start: int, end: int) -> str:
    """The path of the first part of a user's between two places."""
    stop = max(end, start + 1)
    parts = (piece.part for piece, first, last in _places(pieces) if first < stop and last > start)
    return next((fields[part] for part in parts if part is not None), "messages")


def _check_few(pieces: Iterable[_Piece], fields: Sequence[str], found: Sequence[_Found]) -> None:
    if len(found) > _MAX_FOUND:
        _, start, end = found[-1]
        problem = f"holds control tokens; {len(found)} in all texts"
        raise InvalidArgument(_field_at(pieces, fields, start, end), problem, limit=f"{_MAX_FOUND}")


def _user_characters(pieces: Iterable[_Piece]) -> list[bool]:
    """For each character whether a user wrote it."""
    return [piece.part is not None for piece in pieces for _ in piece.text]


def _cut_apart(pieces: Sequence[_Piece], ranges: Sequence[tuple[int, int]], cut: str) -> list[_Piece]:
    """Puts `cut` around every character of the users' that lies in one of the ranges."""
    chosen = {place for start, end in ranges for place in range(start, end)}
    result: list[_Piece] = []
    for piece, start, end in _places(pieces):
        if piece.part is None or chosen.isdisjoint(range(start, end)):
            result.append(piece)
            continue
        for place, character in enumerate(piece.text, start):
            apart = [_Piece(cut)] if place in chosen else []
            result.extend([*apart, _Piece(character, piece.part), *apart])
    return result
