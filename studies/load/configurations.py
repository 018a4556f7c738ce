"""The steps of the comparison, each a local stack of its own. What a step turns off it does without altogether.

| step | encoder reduces | decoder prunes | tokens of images are cached | rows of prompts are reused |
|---|---|---|---|---|
| `no reduction` | no | no | no | no |
| `stage 1` | yes | no | no | no |
| `both stages` | yes | yes | no | no |
| `+ cache` | yes | yes | yes | no |
| `+ prefix reuse` | yes | yes | yes | yes |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.load.album import Album
from studies.load.hardware import Cores, pin
from studies.load.sides import Side
from studies.load.targets.deployment import Deployment
from vscan_client.cli.child import OnLine
from vscan_client.cli.held_port import HeldPort
from vscan_client.cli.local_stack import ANY_PORT, DECODER, ENCODER, LocalStack
from vscan_client.cli.questions import QuestionOptions
from vscan_client.options import AskOptions, Timeout

Settings = Mapping[str, Mapping[str, str]]
_NO_CACHE = {"cache_memory_bytes": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One step. `cached`: a Redis, and memory of both services; the SDK sends an image once and then its digest."""

    name: str
    label: str
    reduced: bool = True
    pruned: bool = True
    cached: bool = True
    reuses_prefixes: bool = True

    def settings(self, further: Settings) -> dict[str, dict[str, str]]:
        """Of the services, those of `further` among them."""
        decoder = {} if self.pruned else {"prune_layers": "none"}
        decoder |= {"kv_reuse": "true" if self.reuses_prefixes else "false"}
        cache = {} if self.cached else _NO_CACHE
        own = {ENCODER: {**cache}, DECODER: {**cache, **decoder}}
        return {name: {**further.get(name, {}), **values} for name, values in own.items()}

    def ask_options(self, asked: QuestionOptions) -> AskOptions:
        """What a request says of reduction and pruning."""
        if not self.reduced:
            return QuestionOptions(reduction="none", rater="none").ask_options()
        if not self.pruned:
            return QuestionOptions(reduction=asked.reduction, budget=asked.budget, rater="none").ask_options()
        return asked.ask_options()


STEPS = (
    Configuration(name="no_reduction", label="no reduction", reduced=False, pruned=False, cached=False, reuses_prefixes=False),
    Configuration(name="stage_1", label="stage 1", pruned=False, cached=False, reuses_prefixes=False),
    Configuration(name="both_stages", label="both stages", cached=False, reuses_prefixes=False),
    Configuration(name="cache", label="+ cache", reuses_prefixes=False),
    Configuration(name="prefix_reuse", label="+ prefix reuse"),
)


@contextmanager
def local_services(
    configuration: Configuration, *, model: Path | None, further: Settings, on_line: OnLine | None = None
) -> Iterator[tuple[LocalStack, list[str]]]:
    """Starts a stack, and ends it; gives it with the addresses of its metrics. Raises StartupError where it does not start."""
    with ExitStack() as ports:
        held = {name: ports.enter_context(HeldPort()).port for name in (ENCODER, DECODER)}
        settings = configuration.settings(further)
        for name, port in held.items():
            settings[name]["metrics_bind"] = f"127.0.0.1:{port}"
        stack = LocalStack(
            model=model,
            decoder_bind=ANY_PORT,
            encoder_bind=ANY_PORT,
            redis_url=None if configuration.cached else "",
            settings=settings,
            on_line=on_line,
        )
        with stack:
            ports.close()
            yield stack, [f"http://127.0.0.1:{port}/metrics" for port in held.values()]


def keep_to(stack: LocalStack, cores: Cores) -> None:
    """Keeps a stack's processes to their cores."""
    for name, pid in stack.pids.items():
        pin(pid, cores.decoder if name == DECODER else cores.rest)


def side_of(
    configuration: Configuration,
    stack: LocalStack,
    metrics: list[str],
    *,
    album: Album,
    styles: list[QuestionOptions],
    further: Settings,
    timeout_s: float,
) -> Side:
    """The side that asks this stack. Call it where the event loop runs."""
    arguments: dict[str, Any] = {"server": stack.addresses.decoder, "timeout": Timeout(total=timeout_s)}
    if not configuration.cached:
        arguments["remembered_images"] = 0  # a digest that no cache knows would cost a second try
    target = Deployment(arguments, album, [configuration.ask_options(style) for style in styles])
    told = {"settings": configuration.settings(further), "redis": configuration.cached, "pruned": configuration.pruned}
    return Side(configuration.name, configuration.label, target, metrics, stack.pids, told=told)
