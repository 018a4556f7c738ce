"""`vscan bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vscan.errors import InvalidArgument
from vscan_client.cli import connection as shared
from vscan_client.cli.bench_run import draw_kept, run
from vscan_client.cli.bench_vain import check_from, refuse_vain_options
from vscan_client.cli.serve import Service, assignment

if TYPE_CHECKING:
    from studies.load.targets.openai_server import OpenAiOptions

# Of services that a run starts; the steps of a comparison differ in some.
_OWN_SETTINGS = ("bind", "encoder_address", "kv_reuse", "metrics_bind", "model", "ready_file", "redis_url")
_CASES = "one-image,many-images"


def bench(
    ctx: typer.Context,
    server: shared.ServerOption = shared.DEFAULT_SERVER,
    up: Annotated[bool, typer.Option("--up", help="Start a deployment here and ask that, instead of --server.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Start one for each step (no reduction, stage 1, both, + cache, + prefix reuse).")
    ] = False,
    rate: Annotated[float | None, typer.Option("--rate", help="Open loop: requests a second, Poisson.")] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", min=1, max=4096, help="Closed loop of so many clients. Default: 4.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Recorded requests, JSON lines or CSV; see docs/load.md.")
    ] = None,
    requests: Annotated[int, typer.Option("--requests", help="How many; of a comparison, in each round.")] = 100,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, help="Requests before them that do not count; a comparison has a round.")
    ] = 8,
    images: Annotated[str, typer.Option("--images", help="A folder, or how many pictures to make.")] = "8",
    image_side: Annotated[int, typer.Option("--image-side", min=16, max=4096, help="Pixels of made pictures.")] = 336,
    zipf: Annotated[float, typer.Option("--zipf", help="Popularity of the image at rank r is 1 / r^S; 0 for all alike.")] = 1.0,
    images_per_question: Annotated[
        int, typer.Option("--images-per-question", min=0, max=64, help="How many different ones each has.")
    ] = 1,
    new_images: Annotated[bool, typer.Option("--new-images", help="No image is asked about twice.")] = False,
    questions: Annotated[Path | None, typer.Option("--questions", help="A file with a question a line. Default: made.")] = None,
    question_words: Annotated[int, typer.Option("--question-words", min=1, max=4096, help="Length of made questions.")] = 8,
    answer_tokens: Annotated[str, typer.Option("--answer-tokens", help="Length of every answer; `model`: its own.")] = "16",
    reduction: Annotated[
        list[str] | None,
        typer.Option("--reduction", metavar="VALUE[=WEIGHT]", help="As of `ask`; VALUE=WEIGHT and again for a mix."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="VALUE[=WEIGHT]", help="As of `ask`; VALUE=WEIGHT and again for a mix."),
    ] = None,
    rater: Annotated[
        list[str] | None,
        typer.Option("--rater", metavar="VALUE[=WEIGHT]", help="As of `ask`; VALUE=WEIGHT and again for a mix."),
    ] = None,
    keep: Annotated[str | None, typer.Option("--keep", help="As of `ask`.")] = None,
    ttft_ms: Annotated[float, typer.Option("--ttft-ms", help="A good request's longest time to its first token.")] = 500.0,
    tpot_ms: Annotated[float, typer.Option("--tpot-ms", help="And its longest mean time for each token after it.")] = 50.0,
    max_late_ms: Annotated[
        float,
        typer.Option("--max-late-ms", help="Of an open loop: mark the run if 1 of 100 requests was sent so late or later."),
    ] = 50.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="Of a comparison, after one that warms up.")] = 5,
    cases: Annotated[str, typer.Option("--cases", help=f"Of a comparison: {_CASES}, or one of them.")] = _CASES,
    many: Annotated[int, typer.Option("--many", min=1, max=16, help="New images of each question of many-images.")] = 4,
    many_requests: Annotated[int, typer.Option("--many-requests", min=1, help="Such questions in each round.")] = 8,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Of what is started here: a checkpoint, or `random`: a LLaVA of random weights."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="SERVICE.NAME=VALUE", help="Any setting of what is started here.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="Of what is started here: auto, cpu, cuda or cuda:N.")] = "auto",
    peer: Annotated[str | None, typer.Option("--peer", help="`transformers`: its own generate beside it.")] = None,
    peer_batch: Annotated[int, typer.Option("--peer-batch", min=1, max=256, help="Requests it answers together.")] = 1,
    peer_url: Annotated[str | None, typer.Option("--peer-url", help="An OpenAI-compatible server: http://…/v1.")] = None,
    peer_model: Annotated[str | None, typer.Option("--peer-model", help="The model's name there.")] = None,
    peer_body: Annotated[
        str | None,
        typer.Option("--peer-body", help='More of its requests\' body, JSON; {"ignore_eos": true} if it knows that.'),
    ] = None,
    peer_token_file: Annotated[Path | None, typer.Option("--peer-token-file", help="File with its bearer token.")] = None,
    only_peers: Annotated[bool, typer.Option("--only-peers", help="Ask no deployment of this project.")] = False,
    metrics: Annotated[
        list[str] | None, typer.Option("--metrics", help="A metrics page of --server's services; may be given again.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Write a PNG here, and a CSV beside it.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Have every request in the report.")] = False,
    kept: Annotated[
        Path | None,
        typer.Option("--from", metavar="REPORT", help="Measure nothing: draw this report's picture anew, to --plot."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of arrivals, images, questions and the order of rounds.")] = 0,
    timeout: shared.TimeoutOption = shared.DEFAULT_TIMEOUT_S,
    tls_ca: shared.TlsCaOption = None,
    tls_cert: shared.TlsCertOption = None,
    tls_key: shared.TlsKeyOption = None,
    insecure: shared.InsecureOption = False,
    token_file: shared.TokenFileOption = None,
) -> None:
    """Put load on a deployment and measure goodput, percentiles, failures and costs. Ends with 1 if a request failed."""
    from studies.load.figures import Targets
    from studies.load.options import BenchOptions, answer_length, mix, read_questions
    from studies.load.workload import Workload
    from vscan_client.cli.idle_options import refuse_idle

    if kept is not None:
        check_from(ctx)
        assert plot_file is not None
        draw_kept(kept, plot_file)
        return
    refuse_vain_options(ctx)
    if only_peers and peer is None and peer_url is None:
        raise InvalidArgument("--only-peers", "no peer", limit="--peer or --peer-url beside it")
    if peer not in (None, "transformers"):
        raise InvalidArgument("--peer", f"{peer!r}", limit="transformers")
    elsewhere = not (up or compare or only_peers)
    if elsewhere and peer is not None and model is None:
        raise InvalidArgument("--model", "missing beside --peer and --server", limit="the checkpoint that the server has")
    for option, value in (("--ttft-ms", ttft_ms), ("--tpot-ms", tpot_ms), ("--max-late-ms", max_late_ms)):
        if not 0 < value < float("inf"):
            raise InvalidArgument(option, f"{value:g}", limit="over 0")
    styles, weights = mix(reduction or [], budget or [], rater or [], keep)
    if len(styles) == 1:
        refuse_idle(styles[0])
    made = int(images) if images.isascii() and images.isdigit() else None
    workload = Workload(
        requests=requests,
        rate=rate,
        images=images_per_question + 1 if made is None else made,
        zipf=zipf,
        images_per_question=images_per_question,
        fresh=new_images,
        question_words=question_words,
        questions=() if questions is None else read_questions(questions),
        answer_tokens=answer_length(answer_tokens),
        mix=weights,
        seed=seed,
    )
    connection = shared.Connection(
        server=server,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        token_file=token_file,
        timeout_s=timeout,
    )
    options = BenchOptions(
        workload=workload,
        images=None if made is not None else Path(images),
        image_side=image_side,
        trace=trace,
        clients=None if rate is not None or (trace is not None and clients is None) else clients or 4,
        warm_up=warm_up,
        styles=styles,
        targets=Targets(ttft_ms=ttft_ms, tpot_ms=tpot_ms, late_ms=max_late_ms),
        connection=connection.client_arguments(None) if elsewhere else None,
        metrics=tuple(metrics or ()),
        up=up,
        compare=compare,
        model=model,
        settings=_by_service(settings or [], device),
        device=device,
        cases=_cases(cases),
        many=many,
        many_requests=many_requests,
        rounds=rounds,
        transformers=peer is not None,
        peer_batch=peer_batch,
        openai=_openai(peer_url, peer_model, peer_body, peer_token_file, timeout),
        timeout_s=timeout,
        raw=raw,
    )
    run(options, json_file, plot_file)


def _cases(text: str) -> tuple[str, ...]:
    from studies.load.options import CASES

    wanted = tuple(text.replace(" ", "").split(","))
    for case in wanted:
        if case not in CASES:
            raise InvalidArgument("--cases", f"{case!r}", limit=_CASES)
    return wanted


def _by_service(settings: list[str], device: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {service.value: {"device": device} for service in Service}
    for text in settings:
        service, dot, rest = text.partition(".")
        if not dot or service not in found:
            raise InvalidArgument("-s", f"{text!r} is not of the form SERVICE.NAME=VALUE", limit=", ".join(Service))
        name, value = assignment(rest)
        if name in _OWN_SETTINGS:
            raise InvalidArgument("-s", f"{service}.{name} is chosen by the run itself")
        found[service][name] = value
    return found


def _openai(
    url: str | None, model: str | None, body: str | None, token_file: Path | None, timeout_s: float
) -> OpenAiOptions | None:
    from studies.load.targets.openai_server import OpenAiOptions

    if url is None:
        return None
    if not url.startswith(("http://", "https://")):
        raise InvalidArgument("--peer-url", f"{url!r}", limit="an http:// or https:// address")
    if model is None:
        raise InvalidArgument("--peer-model", "missing beside --peer-url")
    try:
        extra = json.loads(body or "{}")
        token = None if token_file is None else token_file.read_text().strip()
    except (OSError, ValueError) as error:
        raise InvalidArgument("--peer-body or --peer-token-file", f"cannot be read: {error}") from error
    if not isinstance(extra, dict):
        raise InvalidArgument("--peer-body", "is not a JSON object")
    return OpenAiOptions(url=url, model=model, extra=extra, token=token, timeout_s=timeout_s)
