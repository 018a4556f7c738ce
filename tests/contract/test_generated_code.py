"""The committed Python code is what protoc makes of `proto/`."""

from pathlib import Path

import pytest

from scripts import protos


def test_committed_code_equals_generated_code() -> None:
    assert protos.stale_files() == [], "run `make proto`"


def test_a_changed_and_a_left_over_file_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protos.generate(tmp_path)
    generated = tmp_path / protos.GENERATED
    (generated / "tensor_pb2.py").write_text("# changed by hand\n")
    (generated / "gone_pb2.py").write_text("")
    monkeypatch.setattr(protos, "ROOT", tmp_path)
    assert protos.stale_files() == ["vscan/v1/gone_pb2.py", "vscan/v1/tensor_pb2.py"]
