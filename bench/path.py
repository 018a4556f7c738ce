"""The whole path, one question at a time, on the embedded model with tracing on: `python -m bench.path --json FILE`.

Time to the first token of a new and of a repeated picture, tokens per second, and where the time goes, span by span.

- `overhead_ms`: from the client's send to its first token, less decoding the image, ViT, reduction and prefill; median over
  repeated pictures.
- `repeated_encoder_ms`: decoding the image + ViT + reduction for a repeated picture, the largest seen.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.harness import Check, Report, run
from embedded_model.album import Picture, draw_album
from tests.support.otlp_collector import CollectedSpan, OtlpCollector
from vscan.telemetry import names
from vscan.telemetry.setup import setup_tracing
from vscan_client import Answer, Client, SamplingSpec
from vscan_client.cli.local_stack import ANY_PORT, LocalStack

_ENCODER_WORK = (names.SPAN_DECODE_IMAGE, names.SPAN_VIT, names.SPAN_REDUCE)
_MODEL_WORK = (*_ENCODER_WORK, names.SPAN_PREFILL)
_WARM_UP_SEED = 10_000
_LONG_ANSWER_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """One question: what the client saw, and its trace."""

    repeated: bool
    answer: Answer
    spans: Sequence[CollectedSpan]

    @property
    def first_token_ms(self) -> float:
        """From send to first token, at the client."""
        if self.answer.client.first_token_ms is None:
            raise ValueError("an answer without a token")
        return self.answer.client.first_token_ms

    def work_ms(self, spans: Sequence[str]) -> float:
        """Total duration of the spans with these names."""
        return sum(span.duration_ms for span in self.spans if span.name in spans)

    @property
    def overhead_ms(self) -> float:
        """What of the time to the first token is not the models' work."""
        return self.first_token_ms - self.work_ms(_MODEL_WORK)


def main() -> int:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.path", description=__doc__)
    parser.add_argument("--pictures", type=int, default=24, help="pictures, each asked about once new and twice again")
    parser.add_argument("--seed", type=int, default=0, help="of the album")
    return run("bench.path", _measure, parser)


def _measure(arguments: argparse.Namespace) -> Report:
    album = draw_album(arguments.seed, pictures=arguments.pictures, questions=3)
    with (
        OtlpCollector() as collector,
        LocalStack(decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, otlp_endpoint=collector.endpoint) as stack,
    ):
        telemetry = setup_tracing("vscan-client", otlp_endpoint=collector.endpoint)
        with Client(server=stack.addresses.decoder, tracer_provider=telemetry.tracer_provider) as client:
            _ask_all(client, draw_album(_WARM_UP_SEED, pictures=3, questions=3))
            answers = _ask_all(client, album)
            tokens_per_second = [_tokens_per_second(client, picture) for picture in album[:8]]
        telemetry.shutdown()
        stack.stop()  # the services send their last spans on the way out
        measured = [Measured(repeated, answer, collector.trace(answer.client.trace_id)) for repeated, answer in answers]
    return _report(measured, tokens_per_second)


def _ask_all(client: Client, album: Sequence[Picture]) -> list[tuple[bool, Answer]]:
    """Every picture's questions; (had been asked about before, answer)."""
    return [
        (number > 0, client.ask(picture.png(), question.text))
        for number in range(len(album[0].questions))
        for picture in album
        for question in picture.questions[number : number + 1]
    ]


def _tokens_per_second(client: Client, picture: Picture) -> float:
    sampling = SamplingSpec(max_new_tokens=_LONG_ANSWER_TOKENS, ignore_eos=True)
    answer = client.ask(picture.png(), picture.questions[0].text, sampling=sampling)
    return (answer.usage.completion_tokens - 1) / answer.timings.decode_ms * 1000


def _report(measured: Sequence[Measured], tokens_per_second: Sequence[float]) -> Report:
    cold = [each for each in measured if not each.repeated]
    repeated = [each for each in measured if each.repeated]
    cold_ms = statistics.median(each.first_token_ms for each in cold)
    repeated_ms = statistics.median(each.first_token_ms for each in repeated)
    overhead = statistics.median(each.overhead_ms for each in repeated)
    encoder_ms = max(each.work_ms(_ENCODER_WORK) for each in repeated)
    return Report(
        checks=[Check("overhead_ms", overhead, "<=", 5.0), Check("repeated_encoder_ms", encoder_ms, "==", 0.0)],
        summary={
            "time_to_first_token_ms": {"cold": cold_ms, "repeated": repeated_ms, "cold_over_repeated": cold_ms / repeated_ms},
            "overhead_ms": {"cold": statistics.median(each.overhead_ms for each in cold), "repeated": overhead},
            "tokens_per_second": statistics.median(tokens_per_second),
            "share_of_time_per_span": {"cold": _shares(cold), "repeated": _shares(repeated)},
        },
        raw=[_raw(each) for each in measured],
    )


def _raw(each: Measured) -> dict[str, object]:
    return {
        "kind": "question",
        "repeated": each.repeated,
        "place": str(each.answer.images[0].place),
        "first_token_ms": each.first_token_ms,
        "overhead_ms": each.overhead_ms,
        "spans_ms": {name: round(own, 4) for name, own in _own_times(each.spans).items()},
    }


def _shares(measured: Sequence[Measured]) -> dict[str, float]:
    """Each span's own time (without its children's) as a fraction of the whole, largest first."""
    totals: dict[str, float] = defaultdict(float)
    for each in measured:
        for name, own in _own_times(each.spans).items():
            totals[name] += own
    whole = sum(totals.values())
    return {name: round(own / whole, 4) for name, own in sorted(totals.items(), key=lambda entry: -entry[1])}


def _own_times(spans: Sequence[CollectedSpan]) -> dict[str, float]:
    """Milliseconds by span name, less what its children took; never below 0, as children may run side by side."""
    children: dict[str, float] = defaultdict(float)
    for span in spans:
        children[span.parent_id] += span.duration_ms
    own: dict[str, float] = defaultdict(float)
    for span in spans:
        own[span.name] += max(0.0, span.duration_ms - children[span.span_id])
    return dict(own)


if __name__ == "__main__":
    sys.exit(main())
