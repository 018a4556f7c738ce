"""What comes beside a message: names of tenants, traces, salts, deadlines, and a lot of it."""

from __future__ import annotations

from functools import partial

from grpc import StatusCode

from tests.hostile.case import ANSWERED, DESCRIBE, ENCODE, QUESTION, Case, Expected, Family, Metadata, Target, refused
from tests.hostile.image_files import file_of
from tests.hostile.wire_bytes import sub
from tests.support.asking import chat

_TENANT = refused("metadata.x-vscan-tenant")
# gRPC itself draws the line, at the size that the service gives, and at random between a soft and a hard one.
_TOO_MUCH = Expected((StatusCode.RESOURCE_EXHAUSTED, StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.UNAVAILABLE))
_STATE = ",".join(f"k{n}=v" for n in range(500))
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def metadata_cases() -> list[Case]:
    """All of them."""
    family = Family("metadata")
    for name, metadata, expected in _SENT:
        make = partial(chat, QUESTION, max_new_tokens=2)
        family.call(name, make, expected, metadata=metadata)
    family.call("a tenant, to Describe", bytes, _TENANT, method=DESCRIBE, metadata=(("x-vscan-tenant", "a"),))
    image = sub(1, sub(1, file_of("PNG")))
    family.call(
        "a tenant, to the encoder", lambda: image, _TENANT, target=Target.ENCODER, method=ENCODE,
        metadata=(("x-vscan-tenant", "a" * 8000),),
    )  # fmt: skip
    return family.cases


_SENT: tuple[tuple[str, Metadata, Expected], ...] = (
    ("a tenant", (("x-vscan-tenant", "default"),), _TENANT),
    ("no tenant's name", (("x-vscan-tenant", ""),), _TENANT),
    ("a giant tenant", (("x-vscan-tenant", "t" * 15_000),), _TENANT),
    ("a tenant twice", (("x-vscan-tenant", "a"), ("x-vscan-tenant", "b")), _TENANT),
    ("a tenant that climbs", (("x-vscan-tenant", "../../default"),), _TENANT),
    ("a giant salt", (("x-vscan-salt", "s" * 7000),), ANSWERED),
    ("a cache id", (("x-vscan-cache-id", "c" * 64), ("cache-salt", "x")), ANSWERED),
    ("a trace of nothing", (("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),), ANSWERED),
    ("a trace that is none", (("traceparent", "not a trace ~" * 100),), ANSWERED),
    ("a trace of the future", (("traceparent", "ff" + _TRACE[2:] + "-more"),), ANSWERED),
    ("100 traces", (("traceparent", _TRACE),) * 100, ANSWERED),
    (
        "a trace state of 500 entries",
        (("traceparent", _TRACE), ("tracestate", _STATE)),
        ANSWERED,
    ),
    ("baggage of 6 kB", (("traceparent", _TRACE), ("baggage", ",".join(f"k{n}=" + "v" * 50 for n in range(100)))), ANSWERED),
    ("binary nonsense", (("grpc-trace-bin", b"\xff" * 1000), ("grpc-status-details-bin", b"\xff" * 1000)), ANSWERED),
    ("100 kB in one", (("x-large", "x" * 100_000),), _TOO_MUCH),
    ("100 kB in 1,000", tuple((f"x-{index}", "x" * 90) for index in range(1000)), _TOO_MUCH),
    ("a megabyte", (("x-large", "x" * 10**6),), _TOO_MUCH),
)
