"""The decoder's settings, from the environment."""

from __future__ import annotations

import pytest

from decoder_service.config import DecoderSettings
from vscan.config import load_settings
from vscan.errors import StartupError


@pytest.mark.parametrize(
    ("text", "layers"), [("16", (16,)), ("8,16", (8, 16)), (" 8, 16 ", (8, 16)), ("none", ()), ("", None), (None, None)]
)
def test_prune_layers_are_a_list_in_one_variable(
    monkeypatch: pytest.MonkeyPatch, text: str | None, layers: tuple[int, ...] | None
) -> None:
    if text is not None:
        monkeypatch.setenv("VSCAN_DECODER_PRUNE_LAYERS", text)
    assert load_settings(DecoderSettings).prune_layers == layers


@pytest.mark.parametrize("text", ["16,8", "8,8", "0", "-1", "half", "8,,16"])
def test_layers_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VSCAN_DECODER_PRUNE_LAYERS", text)
    with pytest.raises(StartupError, match=r"^VSCAN_DECODER_PRUNE_LAYERS(\[\d\])?: "):
        load_settings(DecoderSettings)


def test_raw_prompts_are_for_loopback_unless_told() -> None:
    assert DecoderSettings().raw_prompts_allowed
    assert not DecoderSettings(bind="0.0.0.0:7070").raw_prompts_allowed
    assert DecoderSettings(bind="0.0.0.0:7070", raw_prompts=True).raw_prompts_allowed
    assert not DecoderSettings(raw_prompts=False).raw_prompts_allowed


def test_every_setting_is_described() -> None:
    assert [name for name, field in DecoderSettings.model_fields.items() if not field.description] == []
