"""The decoder's engine on random weights at real proportions: `python -m bench.decoder --json FILE`.

LLaVA-NeXT's: 30 rows of system text, 2,880 visual tokens, 30 of a question; reduced to 480 before the decoder and to 160 at its
middle layer. A Llama of 12 layers, hidden 512, MLP 1376, 8 heads. Every check is a ratio of medians of one run in which the two
sides alternate, but for the bytes, which are counted, and the overhead, which is what a step takes beside the model's modules,
attention and sampling.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.harness import Check, Report, run
from decoder_service.engine import Engine
from decoder_service.kv_cache.cache import KvCache
from decoder_service.kv_cache.segments import PageLayout, split_layers
from decoder_service.language.base import LanguageModel, shape_of
from decoder_service.language.tokens import SpecialTokens
from decoder_service.request import EngineRequest, ImageSpan, Prompt, Pruning, Sampling
from decoder_service.runner.attention import register_attention
from decoder_service.runner.batch import Batch
from decoder_service.runner.runner import Runner
from decoder_service.runner.sampler import Sampler
from decoder_service.scheduler import Scheduler
from vscan.specs import KeepTokens, Rater
from vscan.visual_tokens import Tile, VisualTokens

SYSTEM, QUESTION = 30, 30
UNREDUCED, REDUCED, KEPT = 2880, 480, 160
PRUNE_LAYER = 6
BLOCK_ROWS = 16
_names = itertools.count()
PRUNED = Pruning(layers=(PRUNE_LAYER,), budgets=(KeepTokens(KEPT),), rater=Rater.LAST_TOKEN)


def main() -> int:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.decoder", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="alternating runs of each comparison, at least 5")
    parser.add_argument("--only", choices=_PARTS, action="append", help="a part alone; may be given again")
    parser.add_argument("--threads", type=int, help="torch's threads; unset: as many as it takes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    return run("bench.decoder", _measure, parser)


@dataclass(frozen=True, slots=True)
class Bench:
    """A model in this engine and in transformers' own form: the same weights."""

    language: LanguageModel
    reference: Any
    rounds: int

    @classmethod
    def make(cls, arguments: argparse.Namespace) -> Bench:
        """Random weights."""
        config = LlamaConfig(
            num_hidden_layers=12,
            hidden_size=512,
            intermediate_size=1376,
            num_attention_heads=8,
            vocab_size=32000,
            max_position_embeddings=4096,
        )
        dtype = getattr(torch, arguments.dtype)
        models = []
        for attention in (register_attention(), "sdpa"):
            torch.manual_seed(0)
            config._attn_implementation = attention
            models.append(LlamaForCausalLM(config).to(arguments.device, dtype).eval().requires_grad_(False))
            config = LlamaConfig(**{key: value for key, value in config.to_dict().items() if not key.startswith("_")})
        tokens = SpecialTokens(31999, frozenset({2}), frozenset({2}), frozenset())
        language = LanguageModel(models[0], family="bench", shape=shape_of(config), tokens=tokens)
        return cls(language, models[1], max(5, arguments.rounds))

    def engine(self, *, max_running: int = 8, reuse: bool = True, pages: int = 4096) -> Engine:
        """A fresh one, its cache empty."""
        layout = PageLayout(split_layers(12, (PRUNE_LAYER,)), BLOCK_ROWS, self.language.kv_shape)
        cache = KvCache(layout, pages=pages, reuse=reuse)
        device = Runner(self.language, layout, pages=pages)
        scheduler = Scheduler(cache, max_context_tokens=4096, max_running=max_running, max_step_rows=4096)
        return Engine(runner=device, cache=cache, scheduler=scheduler, decode=lambda ids: "x" * len(ids))

    def question(self, image: VisualTokens, *, pruning: Pruning = PRUNED, new: int = 1, key: bytes = b"") -> EngineRequest:
        """Another question with each call; about an image that can be found again where `key` names it."""
        number = next(_names)
        ids = [
            *range(100, 100 + SYSTEM),
            *[31999] * image.kept_count,
            *(200 + (number * 31 + row) % 9973 for row in range(QUESTION)),
        ]
        span = ImageSpan(0, SYSTEM, image.kept_count)
        prompt = Prompt(tuple(ids), (span,), (image,), (key or number.to_bytes(8, "big"),))
        return EngineRequest(
            request_id=f"r{number}", prompt=prompt, sampling=Sampling(max_new_tokens=new, ignore_eos=True), pruning=pruning
        )


def _image(count: int, language: LanguageModel) -> VisualTokens:
    return VisualTokens(
        tokens=torch.randn(count, 512, generator=torch.Generator().manual_seed(count)).to(language.dtype) * 0.02,
        kept_indices=torch.arange(count),
        picked_by=torch.zeros(count, dtype=torch.uint8),
        merged_into=None,
        tiles=(Tile(1, count, count),),
        unreduced_count=count,
    )


def _measure(arguments: argparse.Namespace) -> Report:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    bench, report = Bench.make(arguments), Report()
    report.summary["threads"] = torch.get_num_threads()
    for name in arguments.only or _PARTS:
        _PARTS[name](bench, report)
    return report


def _prefill(bench: Bench, report: Report) -> None:
    unreduced, reduced = _image(UNREDUCED, bench.language), _image(REDUCED, bench.language)
    engine = bench.engine()

    def repeated() -> float:
        """A second question about an image whose rows are there."""
        key = next(_names).to_bytes(8, "big")
        _serve(engine, [bench.question(reduced, key=key)])
        return _serve(engine, [bench.question(reduced, key=key)])

    times = _alternate(
        bench.rounds,
        {
            "transformers": lambda: _transformers_prefill(bench, unreduced),
            "unreduced": lambda: _serve(engine, [bench.question(unreduced, pruning=Pruning())]),
            "reduced": lambda: _serve(engine, [bench.question(reduced)]),
            "repeated": repeated,
        },
        report,
        "prefill",
    )
    report.checks += [
        Check("prefill_speedup", times["unreduced"] / times["reduced"], ">=", 10),
        Check("unreduced_vs_transformers", times["unreduced"] / times["transformers"], "<=", 1.10),
        Check("repeated_prefill_speedup", times["reduced"] / times["repeated"], ">=", 2),
    ]


@torch.inference_mode()
def _transformers_prefill(bench: Bench, image: VisualTokens) -> float:
    """Its own prefill of the same rows, with a cache and the last row's logits alone."""
    rows = bench.language.prompt_rows(bench.question(image).prompt)[None]
    start = time.perf_counter()
    bench.reference(inputs_embeds=rows, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()
    return time.perf_counter() - start


def _kv_bytes(bench: Bench, report: Report) -> None:
    """Counted by the engine itself while the requests run; and how many of each fit the same memory."""
    used, fitting = {}, {}
    for name, count, pruning in (("unreduced", UNREDUCED, Pruning()), ("reduced", REDUCED, PRUNED)):
        image, engine = _image(count, bench.language), bench.engine()
        engine.add(bench.question(image, pruning=pruning, new=2), accepted_s=time.perf_counter())
        engine.step()
        used[name] = sum(segment.used_bytes for segment in engine.figures.segments)
        if name == "unreduced":  # the share is of keys and values alone
            rows = -(-(SYSTEM + UNREDUCED + QUESTION) // BLOCK_ROWS) * BLOCK_ROWS
            used[name] = rows * 12 * bench.language.kv_shape.row_bytes
    pages = 2048
    for name, count, pruning in (("unreduced", UNREDUCED, Pruning()), ("reduced", REDUCED, PRUNED)):
        layout = PageLayout(split_layers(12, (PRUNE_LAYER,)), BLOCK_ROWS, bench.language.kv_shape)
        reached = (count, KEPT if pruning.layers else count)
        fitting[name] = pages // layout.pages([SYSTEM + visual + QUESTION for visual in reached])
    report.checks.append(Check("kv_bytes_share", used["reduced"] / used["unreduced"], "<=", 0.14))
    report.summary["kv_bytes"] = used
    report.summary["requests_that_fit_in_equal_memory"] = fitting


def _decode(bench: Bench, report: Report) -> None:
    image, steps = _image(REDUCED, bench.language), 24
    engines = {count: bench.engine() for count in (1, 8)}
    for count, engine in engines.items():
        for _ in range(count):
            engine.add(bench.question(image, new=3000), accepted_s=time.perf_counter())
        engine.step()

    def step_ms(count: int) -> Callable[[], float]:
        return lambda: _timed(lambda: [engines[count].step() for _ in range(steps)]) / steps

    # Both go on from 570 and 250 rows; a few hundred steps later they are a little longer, both alike.
    times = _alternate(bench.rounds, {"1": step_ms(1), "8": step_ms(8)}, report, "decode step")
    report.checks.append(Check("decode_batch8_speedup", 8 * times["1"] / times["8"], ">=", 3))


def _requests(bench: Bench, report: Report) -> None:
    image = _image(REDUCED, bench.language)
    for new, rounds in ((256, 5), (64, 5)):
        engines = {1: bench.engine(max_running=1), 8: bench.engine()}

        def serve(running: int, new: int = new, engines: dict[int, Engine] = engines) -> float:
            return _serve(engines[running], [bench.question(image, new=new) for _ in range(8)])

        sides = {"one by one": lambda: serve(1), "together": lambda: serve(8)}
        times = _alternate(rounds, sides, report, f"8 requests of {new} tokens", warm=False)
        speedup = times["one by one"] / times["together"]
        if new == 256:
            report.checks.append(Check("request_batch8_speedup", speedup, ">=", 2.5))
        else:
            report.summary[f"request_batch8_speedup_{new}_tokens"] = speedup


def _overhead(bench: Bench, report: Report) -> None:
    engine = bench.engine()
    for _ in range(8):
        engine.add(bench.question(_image(REDUCED, bench.language), new=2000), accepted_s=time.perf_counter())
    for _ in range(10):
        engine.step()
    overhead = []
    for _ in range(100):
        with _model_time() as spent:
            whole = _timed(engine.step)
        overhead.append((whole - spent[0]) * 1e3)
    report.checks.append(Check("step_overhead_ms", statistics.median(overhead), "<=", 1))
    report.raw.append({"kind": "step overhead", "ms": overhead})


@contextmanager
def _model_time() -> Iterator[list[float]]:
    """Adds up the time within the model's layers (attention and cache writes with them), embedding, head and the sampler."""
    spent, depth = [0.0], [0]

    def timed(function: Any) -> Any:
        def call(*args: Any, **fields: Any) -> Any:
            depth[0] += 1
            start = time.perf_counter()
            try:
                return function(*args, **fields)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    spent[0] += time.perf_counter() - start

        return call

    modules: list[tuple[Any, str]] = [
        (Batch, "walk"),
        (LanguageModel, "rows_of"),
        (LanguageModel, "logits"),
        (Sampler, "sample"),
    ]
    originals = [getattr(owner, name) for owner, name in modules]
    for (owner, name), original in zip(modules, originals, strict=True):
        setattr(owner, name, timed(original))
    try:
        yield spent
    finally:
        for (owner, name), original in zip(modules, originals, strict=True):
            setattr(owner, name, original)


def _serve(engine: Engine, requests: Sequence[EngineRequest]) -> float:
    """Seconds until all are answered."""
    start = time.perf_counter()
    for request in requests:
        engine.add(request, accepted_s=start)
    while not engine.idle:
        engine.step()
    return time.perf_counter() - start


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _alternate(
    rounds: int, sides: dict[str, Callable[[], float]], report: Report, kind: str, *, warm: bool = True
) -> dict[str, float]:
    """Medians of seconds; all sides in turn, in every round."""
    if warm:
        for side in sides.values():
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side())
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    report.summary[f"{kind}, ms"] = {name: round(seconds * 1e3, 2) for name, seconds in medians.items()}
    report.raw += [{"kind": kind, "side": name, "ms": [second * 1e3 for second in seconds]} for name, seconds in times.items()]
    return medians


_PARTS: dict[str, Callable[[Bench, Report], None]] = {
    "prefill": _prefill,
    "kv": _kv_bytes,
    "decode": _decode,
    "requests": _requests,
    "overhead": _overhead,
}


if __name__ == "__main__":
    sys.exit(main())
