"""What a run needs before it begins: the cases with their images, the model, and the services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from studies.load.album import Album, folder_images
from studies.load.comparison import Case
from studies.load.configurations import STEPS, Configuration, keep_to, local_services, side_of
from studies.load.hardware import Cores
from studies.load.options import MANY_IMAGES, ONE_IMAGE, RANDOM, BenchOptions
from studies.load.sides import Side
from studies.load.trace import read_trace
from studies.load.workload import Workload
from vscan.errors import InvalidArgument
from vscan_client.cli.local_stack import DECODER, LocalStack

Say = Callable[[str], None]
# Prompts of the random model: up to a dozen images of 576 visual tokens.
_RANDOM_POSITIONS = 8192


def cases_of(options: BenchOptions) -> list[Case]:
    """One case, or the two of a comparison.

    Raises:
        InvalidArgument: a folder or a trace that cannot be read, or too few images in it.
    """
    if options.trace is not None:
        asked = options.workload
        trace = read_trace(options.trace, answer_tokens=asked.answer_tokens, mix=asked.mix, seed=asked.seed)
        load = trace if options.clients is None else trace.without_times()
        return [Case("trace", options.trace.name, load, Album(trace.sources, options.image_side))]
    if not options.compare:
        return [_case("load", _label(options.workload), options.workload, options)]
    one = options.workload
    many = replace(one, images_per_question=options.many, fresh=True, requests=options.many_requests)
    loads = {ONE_IMAGE: ("repeated questions, " + _label(one), one), MANY_IMAGES: (_label(many), many)}
    return [_case(name, *loads[name], options) for name in options.cases]


def _case(name: str, label: str, workload: Workload, options: BenchOptions) -> Case:
    needed = workload.images_needed(parts=options.rounds + 1 if options.compare else 2)
    if options.images is None:
        return Case(name, label, workload, Album(range(needed), options.image_side))
    files = folder_images(options.images)
    if workload.fresh and len(files) < needed:
        raise InvalidArgument("--images", f"{len(files)} images, none of which may come twice", limit=f"at least {needed}")
    if not workload.fresh:
        workload = replace(workload, images=len(files))
    return Case(name, label, workload, Album(files))


def _label(workload: Workload) -> str:
    each = workload.images_per_question
    if workload.fresh:
        return "new images, one a question" if each == 1 else f"{each} new images a question"
    return f"{'one' if each == 1 else each} of {workload.images} images"


def check_equal_memory(options: BenchOptions, device: str) -> None:
    """Raises InvalidArgument where a later stack of a comparison would have a smaller KV cache than an earlier one.

    Args:
        device: `cpu` or `cuda`.
    """
    if options.compare and device == "cuda" and "kv_cache_bytes" not in options.settings.get(DECODER, {}):
        raise InvalidArgument(
            "-s", "each stack on a GPU would take a share of what is left", limit="--compare with decoder.kv_cache_bytes=BYTES"
        )


@contextmanager
def model_of(options: BenchOptions) -> Iterator[Path | None]:
    """The checkpoint's folder; `None` for the embedded model."""
    if options.model != RANDOM:
        yield None if options.model is None else Path(options.model)
        return
    from studies.load.random_llava import FULL_SIDE_PIXELS, write_random_llava

    with TemporaryDirectory(prefix="vscan-") as folder:
        yield write_random_llava(Path(folder) / RANDOM, side_pixels=FULL_SIDE_PIXELS, positions=_RANDOM_POSITIONS)


class Services:
    """The stack of one configuration, running."""

    def __init__(self, configuration: Configuration, stack: LocalStack, metrics: list[str], options: BenchOptions) -> None:
        self._configuration, self._stack, self._metrics, self._options = configuration, stack, metrics, options

    def keep_to(self, cores: Cores) -> None:
        """Keeps its processes to their cores."""
        keep_to(self._stack, cores)

    def side(self, album: Album) -> Side:
        """What asks it about these images."""
        return side_of(
            self._configuration,
            self._stack,
            self._metrics,
            album=album,
            styles=list(self._options.styles),
            further=self._options.settings,
            timeout_s=self._options.timeout_s,
        )


def start_services(stack: ExitStack, options: BenchOptions, model: Path | None, say: Say) -> list[Services]:
    """Starts what the options ask for, one after the other; `stack` ends them. Raises StartupError."""
    wanted = STEPS if options.compare else (replace(STEPS[-1], name="deployment", label="deployment"),) if options.up else ()
    started = []
    for configuration in wanted:
        say(f"starting services: {configuration.label}")
        running = stack.enter_context(local_services(configuration, model=model, further=options.settings))
        started.append(Services(configuration, *running, options))
    return started
