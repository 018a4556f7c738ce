"""What `vscan bench` was asked for, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from studies.load.figures import Targets
from studies.load.targets.openai_server import OpenAiOptions
from studies.load.workload import Workload
from vscan.errors import InvalidArgument
from vscan_client.cli.questions import QuestionOptions

ONE_IMAGE, MANY_IMAGES = "one-image", "many-images"
CASES = (ONE_IMAGE, MANY_IMAGES)
RANDOM = "random"
_MODELS_LENGTH = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Whatever a run needs to know.

    Attributes:
        workload: what is drawn, unless there is a trace.
        images: a folder; `None`: pictures are made, of `image_side` pixels.
        trace: a file of requests instead of drawn ones.
        clients: of a closed loop; `None`: an open one.
        warm_up: requests before the run, that do not count; of a comparison a whole round.
        styles: for each weight of the workload's mix how a request is reduced and pruned.
        connection: keywords of `AsyncClient` for a server that runs already.
        metrics: addresses of its metrics pages.
        up: start a local stack and ask that.
        compare: start one for each step.
        model: of services that are started: a folder, `random`, or `None` for the embedded model.
        settings: of services that are started.
        cases: which cases a comparison has.
        many: images of a question where there are many; `many_requests`: how many of those questions a round has.
        rounds: of a comparison, those that count.
        transformers: whether transformers is asked too; `peer_batch`: how many requests it answers together.
        device: of models that run here: `auto`, `cpu`, `cuda` or `cuda:N`.
        openai: a server to ask, too.
        raw: whether the report has every request.
    """

    workload: Workload
    images: Path | None = None
    image_side: int = 336
    trace: Path | None = None
    clients: int | None = 4
    warm_up: int = 8
    styles: tuple[QuestionOptions, ...] = (QuestionOptions(),)
    targets: Targets = field(default_factory=Targets)
    connection: Mapping[str, Any] | None = None
    metrics: tuple[str, ...] = ()
    up: bool = False
    compare: bool = False
    model: str | None = None
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cases: tuple[str, ...] = CASES
    many: int = 4
    many_requests: int = 8
    rounds: int = 5
    transformers: bool = False
    peer_batch: int = 1
    device: str = "auto"
    openai: OpenAiOptions | None = None
    timeout_s: float = 120.0
    raw: bool = False

    @property
    def computes_here(self) -> bool:
        """Whether a model runs in processes that are started here, which takes the extra `serve`."""
        return self.up or self.compare or self.transformers

    @property
    def peer_dtype(self) -> str:
        """Transformers computes in what the decoder does."""
        return self.settings.get("decoder", {}).get("dtype", "auto")

    @property
    def peer_most_tokens(self) -> int:
        """Of an answer whose length is the model's own: the decoder's bound."""
        from decoder_service.config import DecoderSettings

        default: int = DecoderSettings.model_fields["default_max_new_tokens"].default
        return int(self.settings.get("decoder", {}).get("default_max_new_tokens", default))

    def to_json(self) -> dict[str, Any]:
        """What the report tells; no addresses, no secrets."""
        return {
            "images": "made" if self.images is None else "files",
            "image_side_pixels": self.image_side if self.images is None else None,
            "loop": "open" if self.clients is None else "closed",
            "clients": self.clients,
            "styles": [_said(style) for style in self.styles],
            "model": "embedded" if self.model is None else Path(self.model).name,
            "device": self.device if self.computes_here else None,
            "settings": {name: dict(values) for name, values in self.settings.items()},
            "rounds": self.rounds if self.compare else 1,
            "peer_batch": self.peer_batch if self.transformers else None,
        }


def _said(style: QuestionOptions) -> dict[str, Any]:
    asked = {name: getattr(style, name) for name in ("reduction", "budget", "rater", "keep")}
    return {name: value for name, value in asked.items() if value is not None}


def mix(
    reductions: Sequence[str], budgets: Sequence[str], raters: Sequence[str], keep: str | None
) -> tuple[tuple[QuestionOptions, ...], tuple[float, ...]]:
    """Every combination of what was given, with the product of its weights.

        --budget 64=3 --budget 192 → 64 three times as often as 192

    Raises InvalidArgument for a weight that is none, or a value that a request cannot have.
    """
    given = [
        _weighted(values, name) for values, name in ((reductions, "--reduction"), (budgets, "--budget"), (raters, "--rater"))
    ]
    styles, weights = [], []
    for (reduction, first), (budget, second), (rater, third) in product(*given):
        style = QuestionOptions(reduction=reduction, budget=budget, rater=rater, keep=keep)
        style.ask_options()
        styles.append(style)
        weights.append(first * second * third)
    return tuple(styles), tuple(weights)


def _weighted(values: Sequence[str], option: str) -> list[tuple[str | None, float]]:
    found: list[tuple[str | None, float]] = []
    for text in values:
        value, equals, weight = text.rpartition("=")
        try:
            found.append((value, float(weight)) if equals else (text, 1.0))
        except ValueError:
            raise InvalidArgument(option, f"{weight!r} is not a weight", limit="VALUE or VALUE=WEIGHT") from None
        if not 0 < found[-1][1] < float("inf"):
            raise InvalidArgument(option, f"a weight of {weight}", limit="over 0")
    return found or [(None, 1.0)]


def answer_length(text: str) -> int | None:
    """A count of tokens, or `model`: as many as the model likes."""
    if text == _MODELS_LENGTH:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise InvalidArgument("--answer-tokens", f"{text!r}", limit=f"a number of tokens, or {_MODELS_LENGTH}")
    return int(text)


def read_questions(file: Path) -> tuple[str, ...]:
    """A question a line; blank lines are passed over. Raises InvalidArgument where there is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument("--questions", f"{file} cannot be read: {error}") from error
    questions = tuple(line.strip() for line in lines if line.strip())
    if not questions:
        raise InvalidArgument("--questions", f"{file} has no questions")
    return questions
