"""`v1` may grow; nothing that a client could rely on may go or change."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from scripts import contract_facts
from scripts.contract_facts import broken_facts, extend_snapshot, facts_of, read_snapshot
from scripts.protos import load_descriptors

DESCRIPTORS = load_descriptors()


def _changed(change: Callable[[FileDescriptorSet], None]) -> FileDescriptorSet:
    copy = FileDescriptorSet()
    copy.CopyFrom(DESCRIPTORS)
    change(copy)
    return copy


def _message(descriptors: FileDescriptorSet, name: str) -> DescriptorProto:
    return next(message for file in descriptors.file for message in file.message_type if message.name == name)


def test_nothing_of_the_snapshot_is_broken() -> None:
    assert broken_facts(read_snapshot(), facts_of(DESCRIPTORS)) == []


def test_the_snapshot_knows_all_of_the_contract() -> None:
    assert sorted(facts_of(DESCRIPTORS) - read_snapshot()) == [], "run `make proto` and commit tests/contract/v1.txt"


def _remove_field(descriptors: FileDescriptorSet) -> None:
    del _message(descriptors, "Usage").field[0]


def _renumber_field(descriptors: FileDescriptorSet) -> None:
    _message(descriptors, "Usage").field[0].number = 99


def _rename_field(descriptors: FileDescriptorSet) -> None:
    _message(descriptors, "Usage").field[0].name = "other"


def _retype_field(descriptors: FileDescriptorSet) -> None:
    _message(descriptors, "Usage").field[0].type = FieldDescriptorProto.TYPE_UINT64


def _repeat_field(descriptors: FileDescriptorSet) -> None:
    _message(descriptors, "Usage").field[0].label = FieldDescriptorProto.LABEL_REPEATED


def _move_field_out_of_its_oneof(descriptors: FileDescriptorSet) -> None:
    _message(descriptors, "Image").field[0].ClearField("oneof_index")


def _remove_enum_value(descriptors: FileDescriptorSet) -> None:
    enum = next(enum for file in descriptors.file for enum in file.enum_type if enum.name == "Place")
    del enum.value[2]


def _stop_streaming(descriptors: FileDescriptorSet) -> None:
    method = next(m for file in descriptors.file for s in file.service for m in s.method if m.name == "Generate")
    method.server_streaming = False


def _remove_service(descriptors: FileDescriptorSet) -> None:
    del next(file for file in descriptors.file if file.service).service[0]


BREAKING = [
    _remove_field,
    _renumber_field,
    _rename_field,
    _retype_field,
    _repeat_field,
    _move_field_out_of_its_oneof,
    _remove_enum_value,
    _stop_streaming,
    _remove_service,
]


@pytest.mark.parametrize("change", BREAKING, ids=lambda change: change.__name__.strip("_"))
def test_a_breaking_change_is_found_and_never_written_down(
    change: Callable[[FileDescriptorSet], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract_facts, "SNAPSHOT", tmp_path / "v1.txt")
    extend_snapshot(DESCRIPTORS)
    before = (tmp_path / "v1.txt").read_text()
    with pytest.raises(ValueError, match="additive only"):
        extend_snapshot(_changed(change))
    assert (tmp_path / "v1.txt").read_text() == before


def test_an_addition_extends_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract_facts, "SNAPSHOT", tmp_path / "v1.txt")
    extend_snapshot(DESCRIPTORS)

    def add_field(descriptors: FileDescriptorSet) -> None:
        _message(descriptors, "Usage").field.add(
            name="new_tokens", number=50, type=FieldDescriptorProto.TYPE_UINT32, label=FieldDescriptorProto.LABEL_OPTIONAL
        )

    assert extend_snapshot(_changed(add_field)) == ["field vscan.v1.Usage 50 new_tokens: uint32"]
    assert broken_facts(read_snapshot(), facts_of(DESCRIPTORS)) == ["field vscan.v1.Usage 50 new_tokens: uint32"]
