"""From token ids to text, as they come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from vscan.errors import CheckpointError

# ids → text, control tokens left out
TokenDecoder = Callable[[Sequence[int]], str]

_REPLACEMENT = "�"  # what a decoder writes for the bytes of a character that is not complete


def read_decoder(directory: Path) -> TokenDecoder:
    """The decoder of a checkpoint's tokenizer.json. Raises CheckpointError if there is none that can be read."""
    try:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{directory}: tokenizer.json cannot be read") from error

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    return decode


class TextStream:
    """Turns one answer's ids into text, piece by piece.

    A token's text depends on its neighbours (spaces between words, characters of several tokens), so each piece is the
    difference of two decodings that begin a few tokens back:

        ids      h a | l l | o         text so far "ha"
                 └ context ┘ new       decode(context + new) less decode(context)
    """

    def __init__(self, decode: TokenDecoder) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0  # ids from here to _done lead in
        self._done = 0  # ids before this are text already

    def push(self, token_id: int) -> str:
        """The text that is complete with this token; empty while a character is not."""
        self._ids.append(token_id)
        known, text = self._both()
        if len(text) <= len(known) or text.endswith(_REPLACEMENT):
            return ""
        self._context, self._done = self._done, len(self._ids)
        return text[len(known) :]

    def flush(self) -> str:
        """The rest, at the end of the answer; a character that stayed incomplete is left out."""
        known, text = self._both()
        self._context = self._done = len(self._ids)
        return text[len(known) :].rstrip(_REPLACEMENT)

    def _both(self) -> tuple[str, str]:
        lead = self._ids[self._context : self._done]
        return self._decode(lead), self._decode(self._ids[self._context :])


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
