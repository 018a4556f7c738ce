"""From token ids to text, as they come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from vscan.errors import CheckpointError

# ids → text, control tokens left out
TokenDecoder = Callable[[Sequence[int]], str]

_REPLACEMENT = "\ufffd"  # what a decoder writes for the bytes of a character that is not complete
_REPLACEMENT_BYTES = "ï¿½"  # the same as a token of bytes spells it
_MOST_SILENT = 8  # ids without a new character: those of one are four bytes at most, each at least an id
_WINDOW = 6
_LONGEST_CHARACTER = 4


class CheckpointDecoder:
    """The decoder of a checkpoint's tokenizer.json. Immutable; used by any thread.

    Attributes:
        spelling: tokens that say U+FFFD themselves; where others leave one at the end, a character is incomplete.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        spellings = (_REPLACEMENT, _REPLACEMENT_BYTES)
        self.spelling = frozenset(
            token_id for token, token_id in tokenizer.get_vocab().items() if any(each in token for each in spellings)
        )

    def __call__(self, ids: Sequence[int]) -> str:
        """Their text, control tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def read_decoder(directory: Path) -> CheckpointDecoder:
    """The decoder of a checkpoint. Raises CheckpointError if there is none that can be read."""
    try:
        return CheckpointDecoder(Tokenizer.from_file(str(directory / "tokenizer.json")))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{directory}: tokenizer.json cannot be read") from error


class TextStream:
    """Turns one answer's ids into text, piece by piece; each id costs the same, whatever came before.

    A token's text depends on its neighbours (spaces between words, characters of several tokens), so each piece is what the
    text of the last few ids has more than it had. These few move on where a character ends:

        ids      h a | l l | o        their text so far "hall", with the new id "hallo": the piece is "o"
                 └─ window ──┘        beyond six ids the window begins anew with those of the last piece
    """

    def __init__(self, decode: TokenDecoder) -> None:
        self.complete = True  # whether the text of all ids so far is out
        self._decode = decode
        self._spelling = decode.spelling if isinstance(decode, CheckpointDecoder) else frozenset()
        self._ids: list[int] = []  # the window
        self._out = 0  # characters of its text that are out
        self._whole = 0  # of its ids, those of the pieces that did not end within a character
        self._silent = 0  # ids since the last piece

    def push(self, token_id: int) -> str:
        """The text that is complete with this token; empty while a character is not.

        Bytes that do not become a character are given up after a few ids, and come as U+FFFD.
        """
        self._ids.append(token_id)
        self._silent += 1
        text = self._decode(self._ids)
        whole = text.rstrip(_REPLACEMENT)
        self.complete = len(whole) == len(text)
        if len(whole) > self._out:
            return self._piece(whole)
        return self._give_up(text) if self._silent == _MOST_SILENT else ""

    def flush(self) -> str:
        """The rest, at the end of the answer; a character that stayed incomplete is left out."""
        said = max((place + 1 for place, token_id in enumerate(self._ids) if token_id in self._spelling), default=0)
        rest = self._decode(self._ids[:said])[self._out :]
        self.complete = True
        self._move_to(self._ids[-1:])
        return rest

    def _piece(self, whole: str) -> str:
        start, self._out, self._silent = self._out, len(whole), 0
        if self.complete:
            before, self._whole = self._whole, len(self._ids)
            if len(self._ids) > _WINDOW:
                self._move_to(self._ids[before:])
        elif len(self._ids) > _WINDOW * _LONGEST_CHARACTER:  # as each piece ends within a character
            self._move_to(self._ids[-_LONGEST_CHARACTER:])
        return whole[start:]

    def _give_up(self, text: str) -> str:
        """What there is, U+FFFD and all; ids without any text are as if they had not come."""
        piece, self.complete = text[self._out :], True
        if piece:
            self._move_to(self._ids[-1:])
        else:
            del self._ids[-self._silent :]
            self._silent = 0
        return piece

    def _move_to(self, ids: list[int]) -> None:
        """These ids lead in from here on."""
        text = self._decode(ids)
        self._ids, self._silent = ids, 0
        self._out = len(text if self.complete else text.rstrip(_REPLACEMENT))
        self._whole = len(ids) if self.complete else 0


class StopFilter:
    """Lets text through up to the first stop string; holds back what may yet become one.

    stop "END"    push "the E"  → "the "      "E" is held
                  push "N"      → ""          "EN" is held
                  push "T."     → "ENT."      or push "D": stopped, nothing of "END" ever came out
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that may go out now. After a stop string `stopped` is true, and nothing more comes."""
        if self.stopped:
            return ""
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._possible_start())

    def flush(self) -> str:
        """What was held, when the answer ends otherwise."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, count: int) -> str:
        out, self._held = self._held[:count], self._held[count:]
        return out

    def _possible_start(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        return max((_overlap(self._held, stop) for stop in self._stops), default=0)


def _overlap(text: str, stop: str) -> int:
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
