"""The decoder's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from vscan.cache.settings import CacheSettings
from vscan.config import ServiceSettings
from vscan.errors import StartupError
from vscan.model_settings import ModelSettings
from vscan.rpc.address import parse_address
from vscan.rpc.settings import Bind, RpcSettings
from vscan.specs import PositionPolicy, Rater
from vscan.telemetry.settings import TelemetrySettings


def _split(value: Any) -> Any:
    """`8,16` as the numbers 8 and 16; `none` as no number."""
    if not isinstance(value, str):
        return value
    return [] if value.strip() in ("", "none") else value.split(",")


def _ascending(layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if layers is not None and list(layers) != sorted(set(layers)):
        raise ValueError("must ascend, each layer once")
    return layers


Layers = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...] | None, NoDecode, BeforeValidator(_split), AfterValidator(_ascending)
]


class DecoderSettings(RpcSettings, TelemetrySettings, CacheSettings, ModelSettings, ServiceSettings):
    """Everything that a decoder can be told; the environment names are these with `VSCAN_DECODER_` before them."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VSCAN_DECODER_", validate_default=True)

    bind: Bind = "127.0.0.1:7070"
    encoder_address: str = Field(
        default="127.0.0.1:7071",
        min_length=1,
        description="The encoder: `host:port`, or any gRPC target: `dns:///name:port`; several are `ipv4:HOST:PORT,HOST:PORT`.",
    )
    encoder_tls: bool = Field(default=False, description="Speak TLS with the encoder.")
    encoder_tls_ca_file: Path | None = Field(
        default=None, description="PEM file with the CAs of the encoder's certificate. Unset: the system's."
    )
    encoder_tls_cert_file: Path | None = Field(default=None, description="PEM file with this decoder's own certificate (mTLS).")
    encoder_tls_key_file: Path | None = Field(default=None, description="PEM file with the key of that certificate.")
    encoder_token_file: Path | None = Field(
        default=None,
        description="File with the bearer token that shows this decoder to the encoder, instead of a certificate. Read again "
        "when it changes.",
    )
    encoder_insecure: bool = Field(default=False, description="Allow plaintext to an encoder beyond loopback.")
    encoder_refresh_seconds: float = Field(
        default=5.0, gt=0, allow_inf_nan=False, description="How often the encoder is asked who it is, in seconds."
    )
    encoder_retry_seconds: float = Field(
        default=0.25,
        gt=0,
        allow_inf_nan=False,
        description="How long to wait before an encoder that is away is asked again, in seconds.",
    )
    encoder_timeout_seconds: float = Field(
        default=120.0, gt=0, allow_inf_nan=False, description="Longest wait for the encoding of one image or video, in seconds."
    )

    prune_layers: Layers = Field(
        default=None,
        description="Layers, from 0, before which visual tokens are pruned: `16`, `8,16`, or `none`. Unset: half of them.",
    )
    prune_rater: Rater = Field(
        default=Rater.LAST_TOKEN, description="How visual tokens are ranked where a request does not say."
    )
    prune_keep: float | None = Field(
        default=None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the visual tokens that survives each pruning layer, where neither a request nor a target average "
        "says. Unset: a third.",
    )
    prune_positions: PositionPolicy | None = Field(
        default=None, description="Positions after pruning where a request does not say. Unset: the model family's."
    )
    raw_prompts: bool | None = Field(
        default=None, description="Answer prompts in the model's own syntax. Unset: only while bound to loopback."
    )
    default_max_new_tokens: int = Field(
        default=256, ge=1, description="Tokens of an answer where a request does not say; at most `max_new_tokens`."
    )

    max_context_tokens: int | None = Field(
        default=None, ge=32, description="Rows of a prompt and its answer together. Unset: as many as the model has positions."
    )
    max_new_tokens: int = Field(default=4096, ge=1, description="Most tokens of one answer.")
    max_images: int = Field(default=16, ge=0, description="Most images in one request.")
    max_videos: int = Field(default=4, ge=0, description="Most videos in one request, where the model takes any.")
    max_messages: int = Field(default=64, ge=1, description="Most messages in one chat.")
    max_parts: int = Field(default=64, ge=1, description="Most parts in one message.")
    max_text_chars: int = Field(default=131_072, ge=1, description="Most characters of all texts of one request.")
    max_stop_strings: int = Field(default=8, ge=0, description="Most stop strings of one request.")
    max_stop_chars: int = Field(default=128, ge=1, description="Most characters of one stop string.")
    max_stop_token_ids: int = Field(default=64, ge=0, description="Most stop tokens of one request.")
    max_samples: int = Field(
        default=8,
        ge=1,
        description="Most samples (answers to one prompt) of one request; never more than `max_running` or `max_step_rows`.",
    )
    max_logprobs: int = Field(default=20, ge=0, description="Most log-probabilities at one step.")
    max_constraint_chars: int = Field(
        default=16_384, ge=1, description="Most characters of the JSON schema or the regular expression of one request."
    )
    max_constraint_compile_ms: int = Field(
        default=2_000,
        ge=1,
        description="Longest wait for a constraint to be compiled, in milliseconds; beyond it RESOURCE_EXHAUSTED.",
    )
    max_constraints_remembered: int = Field(
        default=64, ge=1, description="Compiled constraints that are kept for later requests."
    )

    max_running: int = Field(
        default=8,
        ge=1,
        description="Most sequences in one step of the engine; a request has one for each of its samples.",
    )
    max_queue: int = Field(
        default=64,
        ge=1,
        description="Most requests that wait for the engine, shared by tenants; one more gets RESOURCE_EXHAUSTED.",
    )
    max_unread_events: int = Field(
        default=1024,
        ge=1,
        description="Most events of one answer that its caller has not taken, beside what gRPC holds; with more it ends in "
        "RESOURCE_EXHAUSTED.",
    )
    max_step_rows: int = Field(
        default=2048,
        ge=1,
        description="Most rows in one step of the engine; a longer prompt runs in pieces, beside other answers.",
    )
    kv_cache_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Memory of the KV cache, in bytes. Unset: on a GPU 80 % of what the model leaves free; else a quarter of "
        "the machine's memory, at most what `max_running` longest requests take twice.",
    )
    kv_block_rows: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Rows of a block of the KV cache. Unset: on a GPU the fewest of 16, 32, 64, 128 and 256 of which the "
        "attention kernel reads pages, which is tried at start; where it reads none, and on a CPU, 16.",
    )
    kv_reuse: bool = Field(
        default=True, description="Keep what a prompt leaves in the KV cache for later prompts that begin alike."
    )

    def prunes_before(self, layers: int) -> tuple[int, ...]:
        """`prune_layers`, decided for a model of so many. Raises StartupError where it has no such layer."""
        if self.prune_layers is None:
            return (layers // 2,) if layers > 1 else ()
        if self.prune_layers and self.prune_layers[-1] >= layers:
            raise StartupError(f"prune_layers: {self.prune_layers[-1]}, but the model's last layer is {layers - 1}")
        return self.prune_layers

    @property
    def encoder_knows_us(self) -> bool:
        """Whether something shows this decoder to the encoder."""
        return self.encoder_token_file is not None or (self.encoder_tls and self.encoder_tls_cert_file is not None)

    @property
    def raw_prompts_allowed(self) -> bool:
        """`raw_prompts`, decided."""
        return parse_address(self.bind).is_loopback if self.raw_prompts is None else self.raw_prompts
