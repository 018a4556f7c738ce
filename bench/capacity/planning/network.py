"""Bytes on the wire: what is sent, and the frames around it.

A gRPC message has a prefix of 5 bytes and travels in HTTP/2 DATA frames (9 bytes of header, RFC 9113) of at most 16 KiB, in TLS
1.3 records (22 bytes, RFC 8446), in TCP segments (Ethernet 38 with preamble and gap, IP 20, TCP 32) of 1448 bytes. A token is a
message of ten bytes in a packet of its own: what is around it is more than ten times as much.
"""

from __future__ import annotations

from math import ceil

_PREFIX, _FRAME, _RECORD, _PACKET = 5, 9, 22, 38 + 20 + 32
_MOST_IN_FRAME, _MOST_IN_PACKET = 1 << 14, 1448


def on_the_wire(message_bytes: float) -> float:
    """Of a message sent alone, with TLS; acknowledgements in the other direction aside.

    10 → 10 + 5 + 9 + 22 + 90 = 136        1,000,000 → about 1,066,000
    """
    framed = message_bytes + _PREFIX
    sent = framed + ceil(framed / _MOST_IN_FRAME) * (_FRAME + _RECORD)
    return sent + ceil(sent / _MOST_IN_PACKET) * _PACKET
