"""Pictures and questions, and what one question costs whom."""

from __future__ import annotations

import asyncio
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.capacity.services import Services
from vscan_client import Answer, AsyncClient, SamplingSpec

SIDE_PIXELS = 336
_BLOCKS, _QUALITY, _GRAIN = 12, 85, 6.0
_TRIMMED_FROM = 3  # values; of fewer nothing is left out
_SETTLES_S = 0.015  # after an answer, what a server still does about it
# Words of the embedded model's vocabulary, a row each; questions differ so that no answer's rows are found again.
_WORDS = ("circle", "square", "triangle", "diamond", "cross", "star", "red", "green", "blue", "yellow", "purple", "orange")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: its answer, and the processor milliseconds that each kind of process had for it."""

    answer: Answer
    busy_ms: dict[str, float]

    @property
    def server_first_ms(self) -> float:
        """Until the first token, as the decoder measured it."""
        return self.answer.timings.time_to_first_token_ms

    @property
    def client_first_ms(self) -> float:
        """The same at the client."""
        if self.answer.client.first_token_ms is None:
            raise RuntimeError("an answer without a token")
        return self.answer.client.first_token_ms


def picture(seed: int, side_pixels: int = SIDE_PIXELS) -> bytes:
    """A JPEG file with smooth colours and some grain, another one for each seed."""
    draw = np.random.default_rng(seed)
    blocks = Image.fromarray(draw.integers(0, 256, (_BLOCKS, _BLOCKS, 3), dtype=np.uint8))
    smooth = np.asarray(blocks.resize((side_pixels, side_pixels), Image.Resampling.BICUBIC), dtype=np.float32)
    grainy = smooth + draw.normal(0, _GRAIN, smooth.shape)
    file = io.BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def question(number: int, rows: int) -> str:
    """So many words; the first four of them count."""
    digits = [number // len(_WORDS) ** place % len(_WORDS) for place in range(4)]
    return " ".join([_WORDS[digit] for digit in digits][:rows] + ["is"] * (rows - 4))


def so_many(tokens: int) -> SamplingSpec:
    """An answer of exactly that length."""
    return SamplingSpec(max_new_tokens=tokens, ignore_eos=True)


async def sampled(services: Services, client: AsyncClient, image: bytes, text: str, tokens: int = 1) -> Sample:
    """One question on machines that do nothing else."""
    before = services.busy_s()
    answer = await client.ask(image, text, sampling=so_many(tokens))
    await asyncio.sleep(_SETTLES_S)
    after = services.busy_s()
    return Sample(answer, {name: (after[name] - before[name]) * 1e3 for name in after})


def mean(samples: Sequence[Sample], of: Callable[[Sample], float]) -> float:
    """Of some figure, `trimmed`."""
    return trimmed([of(sample) for sample in samples])


def trimmed(values: Sequence[float]) -> float:
    """The mean without the largest and the smallest tenth, at least one of each of three values or more: what else the machine
    did then is in these.

    1 2 3 100 → 2.5        5 7 → 6
    """
    out = max(len(values) // 10, 1 if len(values) >= _TRIMMED_FROM else 0)
    return statistics.fmean(sorted(values)[out : len(values) - out])
