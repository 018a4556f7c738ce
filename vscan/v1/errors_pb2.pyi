from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorDetail(_message.Message):
    __slots__ = ("name", "field", "limit", "retryable", "retry_delay_ms", "missing_sha256", "trace_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    MISSING_SHA256_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    field: str
    limit: str
    retryable: bool
    retry_delay_ms: int
    missing_sha256: _containers.RepeatedScalarFieldContainer[bytes]
    trace_id: str
    def __init__(self, name: _Optional[str] = ..., field: _Optional[str] = ..., limit: _Optional[str] = ..., retryable: bool = ..., retry_delay_ms: _Optional[int] = ..., missing_sha256: _Optional[_Iterable[bytes]] = ..., trace_id: _Optional[str] = ...) -> None: ...
