"""`docs/api.md`: the contracts, from their own comments."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from scripts.pages.markdown import code, generated_from, page, table
from scripts.protos import Element, elements_of, load_descriptors

_SYNTAX = (12,)  # where protoc keeps the comment at the top of a file
PACKAGE = "vscan.v1"


def api_page() -> str:
    """The whole page."""
    intro = (
        "The gRPC contracts, package `vscan.v1`. They are additive only: nothing listed here goes away or changes its meaning. "
        "How a failed call tells its reason: [errors.md](errors.md)."
    )
    files = sorted(load_descriptors().file, key=lambda file: not file.service)
    blocks = [generated_from("`proto/vscan/v1/*.proto`"), "# API", intro]
    for file in files:
        blocks += _file_blocks(file)
    return page(blocks)


def _file_blocks(file: FileDescriptorProto) -> list[str]:
    tops = [place.leading_comments for place in file.source_code_info.location if tuple(place.path) == _SYNTAX]
    blocks = [f"## {file.name}", " ".join("".join(tops).split())]
    elements = elements_of(file)
    for element in elements:
        if render := _RENDERERS.get(element.kind):
            blocks += [f"### {_short(element.name)}", element.comment, render(element, elements)]
    return blocks


def _service(service: Element, elements: list[Element]) -> str:
    methods = [e for e in elements if e.kind == "method" and e.parent == service.name]
    rows = [[code(_short(m.name)), _asked(m), _answered(m), m.comment] for m in methods]
    return table(["Method", "Takes", "Returns", "Meaning"], rows)


def _message(message: Element, elements: list[Element]) -> str:
    fields = [e for e in elements if e.kind == "field" and e.parent == message.name]
    if not fields:
        return ""
    rows = [[code(_short(f.name)), str(f.descriptor.number), _field_type(f, message), f.comment] for f in fields]
    oneofs = [e for e in elements if e.kind == "oneof" and e.parent == message.name]
    notes = [f"One of {code(_short(oneof.name))}: {oneof.comment}" for oneof in oneofs]
    return "\n\n".join([*notes, table(["Field", "No.", "Type", "Meaning"], rows)])


def _enum(enum: Element, elements: list[Element]) -> str:
    values = [e for e in elements if e.kind == "value" and e.parent == enum.name]
    return table(["Value", "No.", "Meaning"], [[code(_short(v.name)), str(v.descriptor.number), v.comment] for v in values])


_RENDERERS: dict[str, Callable[[Element, list[Element]], str]] = {"service": _service, "message": _message, "enum": _enum}


def _field_type(field: Element, message: Element) -> str:
    declared: FieldDescriptorProto = field.descriptor
    scalar = FieldDescriptorProto.Type.Name(declared.type).removeprefix("TYPE_").lower()
    text = _link(declared.type_name) if declared.type_name else code(scalar)
    if declared.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {text}"
    if declared.proto3_optional:
        return f"optional {text}"
    if declared.HasField("oneof_index"):
        return f"{text}, one of {code(message.descriptor.oneof_decl[declared.oneof_index].name)}"
    return text


def _asked(method: Element) -> str:
    return ("stream of " if method.descriptor.client_streaming else "") + _link(method.descriptor.input_type)


def _answered(method: Element) -> str:
    return ("stream of " if method.descriptor.server_streaming else "") + _link(method.descriptor.output_type)


def _link(type_name: str) -> str:
    name = _short(type_name)
    return f"[{name}](#{name.lower()})"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
