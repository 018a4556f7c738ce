"""Settings: where values come from, and how a bad one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from vscan.config import IntList, ServiceSettings, load_settings, option_name, spell_out, variable_name
from vscan.errors import StartupError
from vscan.rpc.settings import Bind, RpcSettings
from vscan.telemetry.settings import TelemetrySettings


class ToySettings(RpcSettings, TelemetrySettings, ServiceSettings):
    """As a service composes its settings."""

    model_config = SettingsConfigDict(env_prefix="VSCAN_TOY_")

    bind: Bind = "127.0.0.1:7999"
    layers: IntList = Field(default=(2,), description="Layers.")
    sizes: dict[str, int] = Field(default_factory=dict, description="Sizes.")
    secret: str = Field(default="s", min_length=1, max_length=4, repr=False, description="A secret.")
    low: int = Field(default=1, description="Low.")
    high: int = Field(default=2, description="High.")

    @model_validator(mode="after")
    def _ordered(self) -> ToySettings:
        if self.low > self.high:
            raise ValueError("`low` is over `high`")
        return self


def refusal(overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(StartupError) as caught:
        load_settings(ToySettings, overrides)
    message = caught.value.message
    assert "\n" not in message
    return message


def test_defaults_hold_where_nothing_is_set() -> None:
    settings = load_settings(ToySettings)
    assert (settings.bind, settings.insecure, settings.log_format, settings.layers) == ("127.0.0.1:7999", False, "text", (2,))


def test_the_environment_is_read_and_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_INSECURE", "yes")
    monkeypatch.setenv("VSCAN_TOY_TLS_CERT_FILE", "/c.pem")
    monkeypatch.setenv("VSCAN_TOY_TLS_KEY_FILE", "/k.pem")
    monkeypatch.setenv("vscan_toy_drain_seconds", "2.5")
    monkeypatch.setenv("VSCAN_TOY_LAYERS", "4, 8")
    monkeypatch.setenv("VSCAN_TOY_SIZES", '{"a": 1}')
    settings = load_settings(ToySettings)
    assert settings.insecure is True
    assert settings.tls_cert_file == Path("/c.pem")
    assert settings.drain_seconds == 2.5
    assert settings.layers == (4, 8)
    assert settings.sizes == {"a": 1}


def test_the_command_line_wins_and_none_means_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_LOW", "0")
    monkeypatch.setenv("VSCAN_TOY_HIGH", "7")
    settings = load_settings(ToySettings, {"low": 5, "high": None})
    assert (settings.low, settings.high) == (5, 7)


def test_an_empty_variable_unsets_an_optional_field_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_OTLP_ENDPOINT", "")
    monkeypatch.setenv("VSCAN_TOY_READY_FILE", "")
    monkeypatch.setenv("VSCAN_TOY_REFLECTION", "")
    settings = load_settings(ToySettings)
    assert settings.otlp_endpoint is None
    assert settings.ready_file is None
    assert settings.reflection is None
    monkeypatch.setenv("VSCAN_TOY_BIND", "")
    assert refusal().startswith("VSCAN_TOY_BIND: ")


def test_settings_are_frozen() -> None:
    settings = load_settings(ToySettings)
    with pytest.raises(ValueError, match="frozen"):
        settings.low = 3


def test_an_unknown_variable_is_named_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_INSECUR", "1")
    assert refusal() == "VSCAN_TOY_INSECUR: no such setting, did you mean VSCAN_TOY_INSECURE?"


@pytest.mark.parametrize("name", ["FOO", "TOY", "BINDING_OF_THE_PORT", "OTHER_THING"])
def test_no_variable_is_named_where_none_is_near(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The prefix alone makes no two names alike."""
    monkeypatch.setenv(f"VSCAN_TOY_{name}", "1")
    assert refusal() == f"VSCAN_TOY_{name}: no such setting"


def test_an_unknown_option_is_named() -> None:
    assert refusal({"not_a_setting": 1}) == "--not-a-setting: no such setting"


def test_a_variable_with_another_prefix_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_OTHER_THING", "1")
    load_settings(ToySettings)


@pytest.mark.parametrize(
    "link",
    ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT", "PORT_7070_TCP", "PORT_7070_TCP_ADDR", "PORT_7070_TCP_PROTO"],
)
def test_what_kubernetes_adds_for_a_service_of_that_name_is_no_setting(monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    monkeypatch.setenv(f"VSCAN_TOY_{link}", "tcp://10.0.0.1:7070")
    load_settings(ToySettings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VSCAN_TOY_INSECURE", "perhaps"),
        ("VSCAN_TOY_DRAIN_SECONDS", "nan"),
        ("VSCAN_TOY_DRAIN_SECONDS", "-1"),
        ("VSCAN_TOY_LOG_FORMAT", "xml"),
        ("VSCAN_TOY_BIND", "7070"),
        ("VSCAN_TOY_METRICS_BIND", "localhost:port"),
        ("VSCAN_TOY_OTLP_ENDPOINT", "127.0.0.1:4317"),
        ("VSCAN_TOY_TRACE_SAMPLE_RATIO", "1.5"),
        ("VSCAN_TOY_MAX_MESSAGE_BYTES", "many"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    message = refusal()
    assert message.startswith(f"{variable}: ")
    assert message.endswith(f"(got {value!r})")


def test_a_bad_option_is_named_as_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_DRAIN_SECONDS", "1")
    assert refusal({"drain_seconds": -1}).startswith("--drain-seconds: ")


def test_a_bad_item_of_a_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_LAYERS", "4,x")
    assert refusal().startswith("VSCAN_TOY_LAYERS[1]: ")


def test_an_object_that_is_no_json_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_SIZES", "{a")
    assert refusal() == "VSCAN_TOY_SIZES: not valid JSON"


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_SECRET", "hunter2")
    message = refusal()
    assert message.startswith("VSCAN_TOY_SECRET: ")
    assert "hunter2" not in message


def test_a_long_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_BIND", "x" * 10_000)
    assert len(refusal()) < 300


def test_a_check_over_fields_names_each_by_what_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TOY_LOW", "9")
    assert refusal() == "VSCAN_TOY_LOW is over VSCAN_TOY_HIGH"
    assert refusal({"high": 3}) == "VSCAN_TOY_LOW is over --high"


@pytest.mark.parametrize("given", [{"tls_cert_file": "/c"}, {"tls_key_file": "/k"}, {"tls_client_ca_file": "/ca"}])
def test_half_of_tls_is_refused(given: dict[str, object]) -> None:
    message = refusal(given)
    assert "VSCAN_TOY_TLS_" in message


def test_fields_in_a_message_are_spelled_out() -> None:
    assert spell_out("layers: too many", ToySettings) == "VSCAN_TOY_LAYERS: too many"
    assert spell_out("set `insecure` or not", ToySettings, {"insecure": True}) == "set --insecure or not"
    assert spell_out("cannot: `nothing` of ours", ToySettings) == "cannot: `nothing` of ours"


def test_names() -> None:
    assert variable_name(ToySettings, "drain_seconds") == "VSCAN_TOY_DRAIN_SECONDS"
    assert option_name("drain_seconds") == "--drain-seconds"


def test_every_field_of_the_shared_groups_is_described() -> None:
    for group in (RpcSettings, TelemetrySettings, ToySettings):
        for name, field in group.model_fields.items():
            assert field.description, name


def test_a_group_alone_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIND", "0.0.0.0:1")
    monkeypatch.setenv("VSCAN_TOY_BIND", "0.0.0.0:1")
    assert RpcSettings().bind == "127.0.0.1:0"
