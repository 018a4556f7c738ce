"""`v1` is additive only: whatever a client could rely on once holds for ever.

A contract is written down as facts, a line each. Additive means that every fact of the snapshot is still a fact:

    field vscan.v1.Image 1 data: bytes, one of source
    value vscan.v1.Place 2 = PLACE_MEMORY
    method vscan.v1.Decoder.Generate: vscan.v1.GenerateRequest -> stream vscan.v1.GenerateEvent

A removed, renumbered, renamed or retyped thing takes its line away; a new thing adds one.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from scripts.protos import ROOT, elements_of

SNAPSHOT = ROOT / "tests" / "contract" / "v1.txt"


def facts_of(descriptors: FileDescriptorSet) -> set[str]:
    """All facts of the contracts."""
    facts = set()
    for file in descriptors.file:
        for element in elements_of(file):
            scope, declared = element.name, element.descriptor
            if element.kind == "message":
                facts.add(f"message {scope}")
                facts.update(_field_fact(scope, field, declared) for field in declared.field)
            elif element.kind == "enum":
                facts.add(f"enum {scope}")
                facts.update(_value_facts(scope, declared))
            elif element.kind == "service":
                facts.add(f"service {scope}")
                facts.update(_method_facts(scope, declared))
    return facts


def broken_facts(snapshot: set[str], now: set[str]) -> list[str]:
    """What clients relied on and is no more."""
    return sorted(snapshot - now)


def read_snapshot() -> set[str]:
    """The facts as they were last written down; none if they never were."""
    return set(SNAPSHOT.read_text().splitlines()) if SNAPSHOT.exists() else set()


def extend_snapshot(descriptors: FileDescriptorSet) -> list[str]:
    """Adds what is new to the snapshot, and returns it.

    Raises:
        ValueError: something of the snapshot no longer holds; nothing is written.
    """
    snapshot, now = read_snapshot(), facts_of(descriptors)
    if broken := broken_facts(snapshot, now):
        raise ValueError("v1 is additive only, and these no longer hold:\n  " + "\n  ".join(broken))
    SNAPSHOT.write_text("".join(f"{fact}\n" for fact in sorted(now)))
    return sorted(now - snapshot)


def _field_fact(scope: str, field: FieldDescriptorProto, message: DescriptorProto) -> str:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    words = [field.type_name.removeprefix(".") or kind]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        words.append("repeated")
    if field.proto3_optional:
        words.append("optional")
    elif field.HasField("oneof_index"):
        words.append(f"one of {message.oneof_decl[field.oneof_index].name}")
    return f"field {scope} {field.number} {field.name}: {', '.join(words)}"


def _value_facts(scope: str, enum: EnumDescriptorProto) -> list[str]:
    return [f"value {scope} {value.number} = {value.name}" for value in enum.value]


def _method_facts(scope: str, service: ServiceDescriptorProto) -> list[str]:
    return [f"method {scope}.{method.name}: {_signature(method)}" for method in service.method]


def _signature(method: MethodDescriptorProto) -> str:
    asked = _streamed(method.client_streaming, method.input_type)
    return f"{asked} -> {_streamed(method.server_streaming, method.output_type)}"


def _streamed(stream: bool, message: str) -> str:
    return ("stream " if stream else "") + message.removeprefix(".")
