"""`vscan ask FILE [FILE…] QUESTION`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vscan.errors import InvalidArgument
from vscan.specs import PositionPolicy, Rater, ReductionMethod
from vscan_client.cli import connection as shared

if TYPE_CHECKING:
    from vscan_client import Answer, Client
    from vscan_client.content import Visual
    from vscan_client.options import AskOptions

METHODS = ", ".join(ReductionMethod)
RATERS = ", ".join(Rater)
POSITIONS = ", ".join(PositionPolicy)
ReductionOption = Annotated[str | None, typer.Option("--reduction", help=f"How the encoder reduces: {METHODS}.")]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", help="Visual tokens to keep: 96 of each tile, total:256, 33%, or avg:11.1% over the layers."),
]
VideoOption = Annotated[
    list[str] | None,
    typer.Option(
        "--video",
        metavar="FILE",
        help="A file meant as a video, such as a GIF, or sha256:… of one sent before; comes after the others, may be repeated.",
    ),
]
FramesOption = Annotated[int | None, typer.Option("--frames", help="Frames to look at of each video.")]
FpsOption = Annotated[float | None, typer.Option("--fps", help="Frames to look at for each second of a video.")]
LocalShareOption = Annotated[
    float | None,
    typer.Option("--local-share", help="Share of the budget, 0 to 1, that the vscan reduction's local scan takes."),
]
MergeOption = Annotated[
    bool | None, typer.Option("--merge/--no-merge", help="Whether tokens that the encoder drops are merged into the kept ones.")
]
RaterOption = Annotated[str | None, typer.Option("--rater", help=f"How the decoder ranks before it prunes: {RATERS}.")]
KeepOption = Annotated[
    str | None, typer.Option("--keep", help="Visual tokens that survive pruning: 32 or 33%; commas between pruning layers.")
]
PositionsOption = Annotated[
    str | None, typer.Option("--positions", help=f"What becomes of positions after pruning: {POSITIONS}.")
]
MaxNewTokensOption = Annotated[int | None, typer.Option("--max-new-tokens", help="Longest answer, in tokens.")]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", help="0 is greedy, and the default.")]
TopPOption = Annotated[float | None, typer.Option("--top-p", help="Sample from the smallest set with this probability.")]
TopKOption = Annotated[int | None, typer.Option("--top-k", help="Sample from the k most likely tokens.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Of sampling, and of a random reduction or rater.")]
StopOption = Annotated[list[str] | None, typer.Option("--stop", help="A text that ends the answer; may be given again.")]
IgnoreEosOption = Annotated[
    bool, typer.Option("--ignore-eos", help="Go on past the model's own end, to the longest answer (for measurements).")
]
LogprobsOption = Annotated[
    int | None, typer.Option("--logprobs", help="With --json: log-probabilities of the k most likely tokens at each step.")
]
MinPOption = Annotated[
    float | None, typer.Option("--min-p", help="Sample from tokens with this fraction of the most likely one's probability.")
]
RepetitionPenaltyOption = Annotated[
    float | None, typer.Option("--repetition-penalty", help="Over 1: less of what the prompt or the answer said; 1 is none.")
]
PresencePenaltyOption = Annotated[
    float | None, typer.Option("--presence-penalty", help="Taken from the logit of what the answer said already; -2 to 2.")
]
FrequencyPenaltyOption = Annotated[
    float | None, typer.Option("--frequency-penalty", help="Taken from it once for each time it was said; -2 to 2.")
]
StopTokenIdOption = Annotated[
    list[int] | None, typer.Option("--stop-token-id", help="A token that ends the answer; may be given again.")
]
JsonSchemaOption = Annotated[
    str | None, typer.Option("--json-schema", help="The answer is JSON that fits this schema: its text, or @FILE.")
]
RegexOption = Annotated[str | None, typer.Option("--regex", help="The whole answer matches this regular expression.")]
SamplesOption = Annotated[int | None, typer.Option("--samples", help="How many answers to draw; give a temperature too.")]
PriorityOption = Annotated[
    int, typer.Option("--priority", help="-100 to 100: of your own requests that wait, higher ones begin first.")
]


def ask(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... QUESTION",
            help="Images and videos (or sha256:… of an image sent before; of a video behind --video), then the question.",
        ),
    ],
    video: VideoOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: text, usage, timings, images.")] = False,
    reduction: ReductionOption = None,
    budget: BudgetOption = None,
    local_share: LocalShareOption = None,
    merge: MergeOption = None,
    rater: RaterOption = None,
    keep: KeepOption = None,
    positions: PositionsOption = None,
    report_kept: Annotated[bool, typer.Option("--report-kept", help="With --json: which patches were kept.")] = False,
    max_new_tokens: MaxNewTokensOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    top_k: TopKOption = None,
    seed: SeedOption = None,
    stop: StopOption = None,
    ignore_eos: IgnoreEosOption = False,
    logprobs: LogprobsOption = None,
    min_p: MinPOption = None,
    repetition_penalty: RepetitionPenaltyOption = None,
    presence_penalty: PresencePenaltyOption = None,
    frequency_penalty: FrequencyPenaltyOption = None,
    stop_token_id: StopTokenIdOption = None,
    json_schema: JsonSchemaOption = None,
    regex: RegexOption = None,
    samples: SamplesOption = None,
    priority: PriorityOption = 0,
    server: shared.ServerOption = shared.DEFAULT_SERVER,
    tls_ca: shared.TlsCaOption = None,
    tls_cert: shared.TlsCertOption = None,
    tls_key: shared.TlsKeyOption = None,
    insecure: shared.InsecureOption = False,
    token_file: shared.TokenFileOption = None,
    timeout: shared.TimeoutOption = shared.DEFAULT_TIMEOUT_S,
    trace_console: shared.ConsoleOption = False,
    otlp_endpoint: shared.OtlpOption = None,
) -> None:
    """Ask a question about images and videos; the answer is printed as it comes."""
    from vscan_client import Client
    from vscan_client.cli.idle_options import refuse_idle
    from vscan_client.cli.questions import QuestionOptions, parse_files

    connection = shared.Connection(
        server=server,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        token_file=token_file,
        timeout_s=timeout,
        trace_console=trace_console,
        otlp_endpoint=otlp_endpoint,
    )
    asked = QuestionOptions(
        reduction=reduction,
        budget=budget,
        local_share=local_share,
        merge=merge,
        rater=rater,
        keep=keep,
        positions=positions,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=tuple(stop or ()),
        ignore_eos=ignore_eos,
        logprobs=logprobs,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        stop_token_ids=tuple(stop_token_id or ()),
        json_schema=None if json_schema is None else text_or_file(json_schema, "json_schema"),
        regex=regex,
        samples=samples,
        priority=priority,
        report_kept=report_kept,
        frames=frames,
        fps=fps,
    )
    options = asked.ask_options()
    refuse_idle(asked)
    if not as_json and (report_kept or logprobs is not None):
        raise InvalidArgument(
            "--report-kept" if report_kept else "--logprobs", "given, and not printed", limit="only with --json"
        )
    files, question = files_and_question(arguments, video or [])
    visuals = parse_files(files, video or [], asked.frame_sampling())
    with connection.telemetry() as telemetry, Client(**connection.client_arguments(telemetry)) as client:
        answer = _answer(client, visuals, question, options, samples=samples or 1, quietly=as_json)
    if as_json:
        print(json.dumps(answer.to_dict(), ensure_ascii=False))
    elif sys.stderr.isatty():
        print(summary(answer), file=sys.stderr)


def files_and_question(arguments: list[str], videos: list[str]) -> tuple[list[str], str]:
    """The files that are not in `videos`, and the question. Raises InvalidArgument where there is no file or no question."""
    *files, question = arguments
    if not files and not videos:
        raise InvalidArgument("arguments", "an image or a video and a question are needed: FILE... QUESTION")
    if _is_file(question):
        raise InvalidArgument("question", f"the last argument is the question, but {question} is a file")
    return files, question


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # no name that a file can have: it is too long
        return False


def text_or_file(text: str, field: str) -> str:
    """`@FILE` is what the file says. Raises InvalidArgument where it cannot be read."""
    if not text.startswith("@"):
        return text
    path = Path(text.removeprefix("@"))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(field, f"{path}: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}") from error


def summary(answer: Answer) -> str:
    """One line: how many visual tokens were left, where they came from, how long it took."""
    counts = [answer.usage.visual_tokens_unreduced, answer.usage.visual_tokens, *(each.tokens_after for each in answer.pruning)]
    places = ", ".join(dict.fromkeys(image.place.value for image in answer.images))
    first_ms = answer.client.first_token_ms
    waited = "" if first_ms is None else f" · first token after {first_ms:.0f} ms"
    return f"[visual tokens {' → '.join(map(str, counts))} · {places}{waited} · {answer.client.total_ms:.0f} ms in all]"


def _answer(
    client: Client, visuals: list[Visual], question: str, options: AskOptions, *, samples: int, quietly: bool
) -> Answer:
    """The first sample is printed as it comes; the others, which come at the same time, whole and behind it."""
    from vscan_client import Started, TextDelta

    shown = sys.stdout if not quietly else io.StringIO()
    with client.stream(visuals, question, **options) as stream:
        for event in stream:
            if isinstance(event, Started) and samples > 1:
                print(_heading(0), file=shown)
            if isinstance(event, TextDelta) and event.sample == 0:
                print(event.text, end="", flush=True, file=shown)
    print(flush=True, file=shown)
    for number, sample in enumerate(stream.answer.samples[1:], 1):
        print(f"{_heading(number)}\n{sample.text}", flush=True, file=shown)
    return stream.answer


def _heading(sample: int) -> str:
    return f"--- sample {sample} ---"
