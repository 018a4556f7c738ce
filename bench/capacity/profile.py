"""What one replica of each kind costs, as it was measured: the base of plans and simulations.

All durations are milliseconds on the device and cores that `device` names. What was not measured is None, and whoever needs it
says so: nothing is extrapolated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.capacity.curve import Curve, NotNegative, Positive
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers

FORM = 1
_PARTS = ("encoder", "decoder", "cache", "wire", "client")
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderCosts(_Part):
    """One encoder."""

    pass_ms: Curve | None  # of a device pass, reduction included, by tiles
    preprocess_ms: Curve | None  # decoding and resizing one image, by its pixels
    request_ms: NotNegative | None  # of processor time for each image beside those two, until it is answered
    end_ms: NotNegative | None  # and after that
    on_core: bool  # the pass takes the process' own core; else a device of its own
    max_batch_tiles: Count
    max_queue: Count


class KvMemory(_Part):
    """The decoder's cache of keys and values."""

    layers: Count
    prune_layers: tuple[Count, ...]
    kv_heads: Count
    head_dim: Count
    hidden_size: Count
    itemsize_bytes: Count
    block_rows: Count
    cache_bytes: Count | None

    @property
    def layout(self) -> PageLayout:
        """As the decoder cuts it."""
        shape = KvShape(self.kv_heads, self.head_dim, self.hidden_size, self.itemsize_bytes)
        return PageLayout(split_layers(self.layers, self.prune_layers), self.block_rows, shape)


class DecoderCosts(_Part):
    """One decoder. A prompt is *cold* where the rows of its images are not in the KV cache, and *hot* where they are."""

    cold_ms: Curve | None  # of a step that runs one cold prompt alone, by rows of the prompt
    hot_ms: Curve | None
    step_ms: Curve | None  # from one token of each sequence to the next, by sequences
    shared_ms: NotNegative | None  # of a prompt's step that it does not cost beside others
    request_ms: NotNegative | None  # processor time of a request until its first token, beside the step
    end_ms: NotNegative | None  # and after it, beside the steps
    encoded_ms: NotNegative | None  # further time until then where the encoder was asked
    redis_ms: NotNegative | None  # and where the tokens were in Redis
    engine_weight: Positive | None  # on a shared core other work takes 1 + so much times as long beside a step
    on_core: bool  # steps take the process' own core
    max_running: Count
    max_queue: Count
    max_step_rows: Count
    text_rows: Count  # of a prompt beside images and question: template and system text
    kv: KvMemory


class CacheCosts(_Part):
    """Redis, and the memory tier of a decoder."""

    entry_bytes: Positive | None  # of one image's entry, as written
    redis_bytes: Positive | None  # that Redis' memory grows by for it
    value_bytes: Positive | None  # that it takes in a decoder's memory
    memory_bytes: Positive  # of a decoder's memory tier
    get_ms: NotNegative | None  # of the Redis server's processor time for a read
    put_ms: NotNegative | None  # for a look, a lease and a write


class WireCosts(_Part):
    """Messages, and the time between processes that nobody computes in."""

    file_bytes: Curve | None  # of an image file, by pixels
    question_bytes: Positive | None  # of a request, without files
    token_bytes: Positive | None  # of an answer, for each token
    reply_bytes: Positive | None  # of an encoder's reply for one image
    hot_ms: NotNegative | None  # until the first token, where the decoder has the tokens
    file_ms: NotNegative | None  # further where a file is sent
    encoded_ms: NotNegative | None  # further where the encoder was asked
    redis_ms: NotNegative | None  # further where they were in Redis


class ClientCosts(_Part):
    """The SDK, on its own core: processor time of a question until its first token, for each further one, and at the end."""

    request_ms: NotNegative | None
    token_ms: NotNegative | None
    end_ms: NotNegative | None


class Profile(_Part):
    """All of it, for one model on one kind of machine."""

    form: Annotated[int, Field(ge=FORM, le=FORM)] = FORM
    made: str
    device: str
    model: str
    notes: tuple[str, ...] = ()
    tiles: Count  # of an image
    visual_rows: Count  # of an image, when it reaches the decoder
    # Of the fixed round of questions and images then, by which a later run knows how fast the machine is: the decoders' core,
    # and that of everything else.
    probe_ms: Positive | None = None
    others_probe_ms: Positive | None = None
    kept_rows: Count  # and behind the decoder's pruning layer
    encoder: EncoderCosts
    decoder: DecoderCosts
    cache: CacheCosts
    wire: WireCosts
    client: ClientCosts

    def prompt_rows(self, question_rows: int, images: int) -> int:
        """Rows of a prompt in the first segment."""
        return self.decoder.text_rows + question_rows + images * self.visual_rows

    def segment_rows(self, question_rows: int, images: int, answer_rows: int) -> tuple[int, ...]:
        """Rows of a request at its end, in each segment: visual tokens are fewer behind the pruning layer."""
        text = self.decoder.text_rows + question_rows + answer_rows
        visual = [self.visual_rows] + [self.kept_rows] * len(self.decoder.kv.prune_layers)
        return tuple(text + images * rows for rows in visual)

    @classmethod
    def load(cls, path: Path) -> Profile:
        """From its file. Raises ValueError, naming file and field."""
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    def missing(self) -> list[str]:
        """Names of figures that were not measured, but for those that only a demand needs."""
        parts = {name: getattr(self, name) for name in _PARTS}
        named = [f"{part}.{name}" for part, costs in parts.items() for name, value in costs if value is None]
        return [name for name in named if self.decoder.on_core or name != "decoder.engine_weight"]

    def assuming(self, texts: Sequence[str]) -> Profile:
        """With figures in place of those that are missing, each as "decoder.end_ms=2". Raises ValueError, naming the option."""
        values, missing = self.model_dump(), self.missing()
        for text in texts:
            name, _, value = text.partition("=")
            if name not in missing:
                raise ValueError(f"--assume: {name} is not among what was not measured: {', '.join(missing) or 'nothing'}")
            part, field = name.split(".")
            values[part][field] = _number(text, value)
        try:
            return Profile.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"--assume: {error.errors()[0]['msg']}") from error

    def save(self, path: Path) -> None:
        """To a file that `load` reads."""
        path.write_text(self.model_dump_json(indent=1) + "\n")

    def scaled(self, decoders: float, others: float | None = None) -> Profile:
        """The same on a machine on which decoders take so many times as long, and everything else too, or `others`."""
        values = self.model_dump()
        factors = {"decoder": decoders, "probe_ms": decoders}
        rest = decoders if others is None else others
        return Profile.model_validate({name: _scaled(one, factors.get(name, rest), name) for name, one in values.items()})


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"--assume: NAME=VALUE with a number, not {text}") from None


def _scaled(value: object, factor: float, name: str = "") -> object:
    if isinstance(value, dict):
        if name.endswith("_ms"):  # a curve: its values, not its sizes
            return {"points": [(size, one * factor) for size, one in value["points"]]}
        return {key: _scaled(one, factor, key) for key, one in value.items()}
    return value * factor if name.endswith("_ms") and isinstance(value, float) else value
