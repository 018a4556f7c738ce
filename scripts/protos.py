"""The contracts in `proto/`: their descriptors with comments, and the Python code made of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
PROTO_ROOT = ROOT / "proto"
GENERATED = Path("vscan/v1")


def proto_files() -> list[str]:
    """Paths of all contracts, relative to `proto/`, sorted."""
    return sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))


def load_descriptors() -> FileDescriptorSet:
    """All contracts as protoc reads them, with the places of their comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        _protoc(f"--descriptor_set_out={out}", "--include_source_info")
        return FileDescriptorSet.FromString(out.read_bytes())


def generate(into: Path) -> None:
    """Writes messages, type stubs and service stubs below `into`; `ROOT` is where they are committed."""
    _protoc(f"--python_out={into}", f"--pyi_out={into}", f"--grpc_python_out={into}")


def stale_files() -> list[str]:
    """Committed files that differ from what protoc makes now, are missing, or are left over."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = _generated_below(Path(folder))
    committed = _generated_below(ROOT)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def _generated_below(root: Path) -> dict[str, bytes]:
    files = (root / GENERATED).glob("*_pb2*.py*")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def _protoc(*arguments: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO_ROOT}", *arguments, *proto_files()]
    subprocess.run(command, cwd=PROTO_ROOT, check=True)


@dataclass(frozen=True, slots=True)
class Element:
    """One thing that a contract declares.

    Attributes:
        kind: `service`, `method`, `message`, `field`, `enum`, `value` or `oneof`.
        name: full name with the package, for instance `vscan.v1.Image.data`.
        comment: the text before it, on one line; empty if there is none.
        line: where it stands in its file, from 0.
        descriptor: what protoc says of it.
    """

    kind: str
    name: str
    comment: str
    line: int
    descriptor: Any

    @property
    def parent(self) -> str:
        """Full name of what it is declared in."""
        return self.name.rpartition(".")[0]


def elements_of(file: FileDescriptorProto) -> list[Element]:
    """Everything that a file declares, in the order of its lines."""
    places = {tuple(location.path): location for location in file.source_code_info.location}
    found = []
    for kind, name, path, descriptor in _walk_file(file):
        place = places.get(path)  # none for what a program added to the descriptors
        comment = " ".join(place.leading_comments.split()) if place else ""
        found.append(Element(kind, name, comment, place.span[0] if place else 0, descriptor))
    return sorted(found, key=lambda element: element.line)


# The numbers are field numbers of descriptor.proto: that is how protoc addresses a declaration.
_Walk = Iterator[tuple[str, str, tuple[int, ...], Any]]


def _walk_file(file: FileDescriptorProto) -> _Walk:
    for index, message in enumerate(file.message_type):
        yield from _walk_message(message, file.package, (4, index))
    for index, enum in enumerate(file.enum_type):
        yield from _walk_parts("enum", enum, file.package, (5, index), {"value": (2, enum.value)})
    for index, service in enumerate(file.service):
        yield from _walk_parts("service", service, file.package, (6, index), {"method": (2, service.method)})


def _walk_message(message: DescriptorProto, scope: str, path: tuple[int, ...]) -> _Walk:
    # protoc makes a oneof of its own for each `optional` field; those are in no file.
    real_oneofs = len({f.oneof_index for f in message.field if f.HasField("oneof_index") and not f.proto3_optional})
    parts = {"field": (2, message.field), "oneof": (8, message.oneof_decl[:real_oneofs])}
    yield from _walk_parts("message", message, scope, path, parts)
    inner = f"{scope}.{message.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _walk_message(nested, inner, (*path, 3, index))
    for index, enum in enumerate(message.enum_type):
        yield from _walk_parts("enum", enum, inner, (*path, 4, index), {"value": (2, enum.value)})


def _walk_parts(kind: str, whole: Any, scope: str, path: tuple[int, ...], parts: dict[str, tuple[int, Any]]) -> _Walk:
    name = f"{scope}.{whole.name}"
    yield kind, name, path, whole
    for part_kind, (number, declared) in parts.items():
        for index, part in enumerate(declared):
            yield part_kind, f"{name}.{part.name}", (*path, number, index), part
