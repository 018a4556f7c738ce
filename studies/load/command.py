"""`vscan bench` once its options are read: one target under a load, or a comparison."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from studies.load.album import Album
from studies.load.comparison import Case, Compared, check_answered, compare
from studies.load.configurations import Settings
from studies.load.counters import read_counters
from studies.load.driver import drive
from studies.load.hardware import Cores, pin
from studies.load.options import BenchOptions
from studies.load.report import report
from studies.load.setup import Say, Services, cases_of, model_of, start_services
from studies.load.sides import Side
from studies.load.targets.deployment import Deployment
from studies.load.targets.openai_server import OpenAiServer
from studies.load.targets.transformers_peer import TransformersPeer
from studies.load.workload import images_of

_TRANSFORMERS = "transformers"


def bench(options: BenchOptions, say: Say) -> dict[str, Any]:
    """Runs it all and gives the report.

    Raises:
        InvalidArgument: options, a trace or a page of metrics that cannot be; names it.
        StartupError: what is started here does not start.
        VScanError: the server cannot be reached.
    """
    cases, cores = cases_of(options), Cores.of_this_machine()
    if options.up or options.compare:
        options = replace(options, settings=_joined(cores.threads, options.settings))
    with ExitStack() as stack:
        model = stack.enter_context(model_of(options))
        services = start_services(stack, options, model, say)
        told = options.to_json()
        if options.computes_here:
            told["cores"] = cores.to_json()
            stack.enter_context(_kept_to(cores, services))
        compared, sides = asyncio.run(_run(options, cases, services, model, cores, say))
    return report(compared, sides, targets=options.targets, options=told, raw=options.raw)


def _joined(first: Settings, then: Settings) -> Settings:
    return {name: {**first.get(name, {}), **then.get(name, {})} for name in first.keys() | then.keys()}


@contextmanager
def _kept_to(cores: Cores, services: Sequence[Services]) -> Iterator[None]:
    """Services on their cores, and this process, which makes the load, on those of what is not the decoder."""
    before = os.sched_getaffinity(0)
    for running in services:
        running.keep_to(cores)
    pin(os.getpid(), cores.rest)
    try:
        yield
    finally:
        pin(os.getpid(), tuple(before))


async def _run(
    options: BenchOptions, cases: Sequence[Case], services: Sequence[Services], model: Path | None, cores: Cores, say: Say
) -> tuple[list[Compared], list[Side]]:
    async with AsyncExitStack() as stack:
        peer = await _peer(options, model, cores, stack, say)
        sides = {case.name: await _sides(options, case.album, services, peer) for case in cases}
        for side in (side for own in sides.values() for side in own):
            stack.push_async_callback(side.target.close)
        if not options.compare:
            await _warm_up(options, cases[0], sides[cases[0].name])
        compared = await compare(
            sides,
            cases,
            rounds=options.rounds if options.compare else 1,
            warm_ups=1 if options.compare else 0,
            clients=options.clients,
            seed=options.workload.seed,
            say=say,
        )
        return compared, sides[cases[0].name]


async def _sides(
    options: BenchOptions, album: Album, services: Sequence[Services], peer: TransformersPeer | None
) -> list[Side]:
    made = []
    if peer is not None:
        pids = {_TRANSFORMERS: peer.process.pid}
        made.append(Side(_TRANSFORMERS, _TRANSFORMERS, peer.about(album), pids=pids, peer=True, told={"settings": peer.ready}))
    if options.openai is not None:
        told = {"settings": {"extra": dict(options.openai.extra)}}
        made.append(Side("openai", options.openai.model, OpenAiServer(options.openai, album), peer=True, told=told))
    made += [running.side(album) for running in services]
    if options.connection is not None:
        target = Deployment(options.connection, album, [style.ask_options() for style in options.styles])
        await target.check()
        if options.metrics:
            read_counters(options.metrics)
        made.append(Side("server", "server", target, options.metrics))
    return made


async def _peer(
    options: BenchOptions, model: Path | None, cores: Cores, stack: AsyncExitStack, say: Say
) -> TransformersPeer | None:
    if not options.transformers:
        return None
    from embedded_model import checkpoint_dir

    say("loading the model with transformers")
    peer = await TransformersPeer.start(
        model or checkpoint_dir(),
        cores=cores.all,
        threads=sorted({1, len(cores.decoder), len(cores.all)}),
        batch=options.peer_batch,
        device=options.device,
        dtype=options.peer_dtype,
        most_tokens=options.peer_most_tokens,
        timeout_s=options.timeout_s,
    )
    stack.push_async_callback(peer.close)
    return peer


async def _warm_up(options: BenchOptions, case: Case, sides: Sequence[Side]) -> None:
    """Requests of the same kind that nobody counts. Raises Unavailable where not one of a side's is answered."""
    asks = [replace(ask, due_s=None) for ask in case.load.asks(1)[: options.warm_up]]
    case.album.load(images_of(asks))
    for side in sides:
        check_answered(side.label, await drive(side.target, asks, clients=options.clients or 1))
