"""Whatever a contract declares says what it means."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from scripts.protos import Element, elements_of, load_descriptors

FILES = load_descriptors().file
ELEMENTS = [element for file in FILES for element in elements_of(file)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_everything_has_a_comment(file: FileDescriptorProto) -> None:
    # A oneof's meaning stands on the oneof; its fields have their own.
    silent = [f"{file.name}:{element.line + 1} {element.name}" for element in elements_of(file) if not element.comment]
    assert silent == []


def test_nothing_is_overlooked() -> None:
    by_kind = {kind: sum(element.kind == kind for element in ELEMENTS) for kind in {e.kind for e in ELEMENTS}}
    assert by_kind["service"] == 2
    assert by_kind["method"] == sum(len(service.method) for file in FILES for service in file.service)
    assert by_kind["field"] == sum(len(message.field) for file in FILES for message in file.message_type)
    assert by_kind["value"] == sum(len(enum.value) for file in FILES for enum in file.enum_type)


@pytest.mark.parametrize("enum", [e for e in ELEMENTS if e.kind == "enum"], ids=lambda element: element.name)
def test_enums_start_unspecified(enum: Element) -> None:
    first = enum.descriptor.value[0]
    assert first.number == 0
    assert first.name.endswith("_UNSPECIFIED")
    prefix = first.name.removesuffix("UNSPECIFIED")
    assert all(value.name.startswith(prefix) for value in enum.descriptor.value)


@pytest.mark.parametrize("method", [e for e in ELEMENTS if e.kind == "method"], ids=lambda element: element.name)
def test_a_method_that_can_fail_says_how(method: Element) -> None:
    assert "Errors:" in method.comment or "No effect" in method.comment
