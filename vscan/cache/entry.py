"""A sealed cache entry: what makes bytes from Redis trustworthy before anything parses them.

    offset  0        4           6       8          16      48      80
            | magic  | encoding  | codec | length   | key   | tag   | body ...
            | 4      | u16       | u16   | u64      | 32    | 32    | length bytes

Integers are big-endian. `encoding` says how the body is written (`vscan.cache.body`), `codec` what it means. The tag is
HMAC-SHA-256 over bytes 0 to 48 and the body where a cache secret is set, else SHA-256: the first keeps forgers out, the second
only accidents. The key inside makes an entry worthless under any other name.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import StrEnum

from vscan.cache.body import KNOWN_ENCODINGS, Encoding, EntryBody
from vscan.content_key import DIGEST_BYTES
from vscan.visual_tokens import CODEC_VERSION

MAGIC = b"VSVT"
_FIELDS = struct.Struct(f">4sHHQ{DIGEST_BYTES}s")  # magic, encoding, codec version, body length, content key
HEADER_BYTES = _FIELDS.size + DIGEST_BYTES


class Flaw(StrEnum):
    """Why an entry was rejected. Checked in this order."""

    TRUNCATED = "truncated"  # shorter than a header
    FOREIGN = "foreign"  # not written by this project
    VERSION = "version"  # another version of the body's codec, or an encoding that this release does not know
    LENGTH = "length"  # body shorter or longer than stated
    KEY = "key"  # a valid name of another entry: swapped
    TAG = "tag"  # changed, forged, or sealed with another secret
    BODY = "body"  # rightly sealed, but not visual tokens


@dataclass(frozen=True, slots=True)
class EntrySeal:
    """Seals bodies and opens entries. `secret` is never shown by `repr`."""

    secret: bytes | None = None

    def __repr__(self) -> str:
        return f"EntrySeal({'HMAC-SHA-256' if self.secret else 'SHA-256'})"

    def seal(self, key: bytes, body: EntryBody) -> bytes:
        """The entry of `body` under the content key `key` (32 bytes)."""
        if len(key) != DIGEST_BYTES:
            raise ValueError("a content key has 32 bytes")
        fields = _FIELDS.pack(MAGIC, body.encoding, CODEC_VERSION, len(body.data), key)
        return b"".join((fields, self._tag(fields, body.data), body.data))

    def open(self, key: bytes, entry: bytes) -> EntryBody | Flaw:
        """The body, without a copy, or why the entry is not to be trusted. Never raises on bad bytes."""
        if len(entry) < HEADER_BYTES:
            return Flaw.TRUNCATED
        view = memoryview(entry)
        magic, encoding, version, length, named = _FIELDS.unpack_from(view)
        body = view[HEADER_BYTES:]
        if magic != MAGIC:
            return Flaw.FOREIGN
        if version != CODEC_VERSION or encoding not in KNOWN_ENCODINGS:
            return Flaw.VERSION
        if length != len(body):
            return Flaw.LENGTH
        if named != key:
            return Flaw.KEY
        tag = self._tag(view[: _FIELDS.size], body)
        if not hmac.compare_digest(tag, view[_FIELDS.size : HEADER_BYTES]):
            return Flaw.TAG
        return EntryBody(body, Encoding(encoding))

    def _tag(self, fields: bytes | memoryview, body: bytes | memoryview) -> bytes:
        # The header's fields have a fixed length, so the concatenation is unambiguous.
        digest = hmac.new(self.secret, digestmod=hashlib.sha256) if self.secret else hashlib.sha256()
        digest.update(fields)
        digest.update(body)
        return digest.digest()
