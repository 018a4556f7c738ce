"""Tokens on the caller's side: where they come from, and that nothing shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vscan.errors import InvalidArgument
from vscan.rpc.bearer import MAX_TOKEN_CHARS, Bearer, TokenFile

TOKEN = "tok-en_1.2~3+4/5="
BAD = ["", " ", "two words", f"{TOKEN}\n", f"{TOKEN}\t", "ü", "a,b", "=", "a=b", "x" * (MAX_TOKEN_CHARS + 1), "\x00"]


def test_a_token_and_what_gives_one() -> None:
    tokens = iter(["one", "two"])
    assert Bearer(TOKEN).metadata() == (("authorization", f"Bearer {TOKEN}"),)
    bearer = Bearer(lambda: next(tokens))
    assert [bearer.metadata()[0][1] for _ in range(2)] == ["Bearer one", "Bearer two"]
    assert Bearer(None).metadata() == ()


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_token_is_not_sent_and_not_shown(bad: str) -> None:
    """gRPC would not end a call with a header that may not be one."""
    with pytest.raises(InvalidArgument) as caught:
        Bearer(bad)
    assert caught.value.field == "token"
    assert not bad.strip(" =") or bad not in caught.value.message
    with pytest.raises(InvalidArgument):
        Bearer(lambda: bad).metadata()


def test_what_is_not_even_a_text() -> None:
    nothing: Any = None
    with pytest.raises(InvalidArgument):
        Bearer(lambda: nothing).metadata()


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\r\n")
    token = TokenFile(path, "token_file")
    assert token() == "one"
    path.write_text("another")
    assert token() == "another"


def test_the_last_token_holds_where_the_new_one_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    token = TokenFile(path, "token_file")
    path.write_text("")
    assert token() == "one"
    path.unlink()
    assert token() == "one"
    path.write_text("two")
    assert token() == "two"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff", b"x" * 10_000, b"one\ntwo\n", None])
def test_a_file_without_a_token_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidArgument) as caught:
        TokenFile(path, "encoder_token_file")
    assert caught.value.message.startswith(f"encoder_token_file: {path} ")
    assert "words" not in caught.value.message


def test_nothing_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    for one in (Bearer(TOKEN), Bearer(lambda: TOKEN), TokenFile(path, "f"), Bearer(TokenFile(path, "f"))):
        assert TOKEN not in f"{one!r} {one}"
