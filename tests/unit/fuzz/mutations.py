"""Files a little or much changed: what fuzzers do to a good one."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

_EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]


@st.composite
def mutated(draw: Any, files: list[bytes]) -> bytes:
    """One of these files after one to six changes: a bit, a number, bytes inserted, cut out, repeated, or of another file."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("bit", "number", "insert", "cut", "repeat", "splice", "end"))):
            case "bit" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "number":
                form = draw(st.sampled_from((">I", "<I", ">H", "<H", "B")))
                value = draw(st.sampled_from(_EDGES)) & (256 ** struct.calcsize(form) - 1)
                data[place : place + struct.calcsize(form)] = struct.pack(form, value)
            case "insert":
                data[place:place] = draw(st.binary(max_size=16))
            case "cut":
                del data[place : place + draw(st.integers(1, 64))]
            case "repeat":
                piece = data[place : place + draw(st.integers(1, 64))]
                data[place:place] = piece * draw(st.integers(1, 20))
            case "splice":
                other = draw(st.sampled_from(files))
                at = draw(st.integers(0, len(other)))
                data[place:] = other[at:]
            case "end":
                del data[place:]
    return bytes(data)
