"""What may be asked on the command line and in a line of `ask-many`, as the SDK's values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import ParamSpec, TypeVar

from vscan.errors import InvalidArgument
from vscan.specs import (
    Budget,
    Constraint,
    FrameSampling,
    JsonSchema,
    KeepRatio,
    KeepTokens,
    PositionPolicy,
    PruneBudget,
    PruneSpec,
    Rater,
    Ratio,
    ReductionMethod,
    ReductionSpec,
    Regex,
    SamplingSpec,
    TargetAverage,
    TokensPerTile,
    TotalTokens,
)
from vscan_client.content import Image, Video, Visual, as_visual, frame_sampling
from vscan_client.options import AskOptions

E = TypeVar("E", bound=StrEnum)
P = ParamSpec("P")
Spec = TypeVar("Spec")
_AVERAGE = "avg:"
_TOTAL = "total:"
_DIGEST = "sha256:"
_MOST_DIGITS = 20  # of 64 bits; Python itself refuses to read thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionOptions:
    """How one question is answered; `None` is as the deployment does it. Texts are parsed by `ask_options`."""

    reduction: str | None = None
    budget: str | None = None
    local_share: float | None = None
    merge: bool | None = None
    rater: str | None = None
    keep: str | None = None
    positions: str | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop_token_ids: tuple[int, ...] = ()
    json_schema: str | None = None
    regex: str | None = None
    samples: int | None = None
    priority: int = 0
    report_kept: bool = False
    frames: int | None = None
    fps: float | None = None

    def ask_options(self) -> AskOptions:
        """As keywords of the client's verbs.

        Raises:
            InvalidArgument: a text that cannot be read, named by its option; a value out of range, by its path in the request.
        """
        return AskOptions(
            reduction=self._reduction(),
            prune=self._prune(),
            sampling=self._sampling(),
            report_kept=self.report_kept,
            priority=self.priority,
        )

    def frame_sampling(self) -> FrameSampling | None:
        """Which frames of the videos are looked at. Raises InvalidArgument as `ask_options` does."""
        return frame_sampling(self.frames, self.fps)

    def _reduction(self) -> ReductionSpec | None:
        if all(asked is None for asked in (self.reduction, self.budget, self.local_share, self.merge)):
            return None
        method = None if self.reduction is None else _one_of(ReductionMethod, self.reduction, "reduction")
        return _under(
            "reduction",
            ReductionSpec,
            method=method,
            budget=None if self.budget is None else parse_budget(self.budget),
            local_share=self.local_share,
            merge=self.merge,
            seed=self.seed if method is ReductionMethod.RANDOM else None,
        )

    def _prune(self) -> PruneSpec | None:
        if all(asked is None for asked in (self.rater, self.keep, self.positions)):
            return None
        rater = None if self.rater is None else _one_of(Rater, self.rater, "rater")
        return _under(
            "prune",
            PruneSpec,
            rater=rater,
            budgets=() if self.keep is None else parse_keep(self.keep),
            seed=self.seed if rater is Rater.RANDOM else None,
            positions=None if self.positions is None else _one_of(PositionPolicy, self.positions, "positions"),
        )

    def _sampling(self) -> SamplingSpec:
        return SamplingSpec(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            stop=self.stop,
            ignore_eos=self.ignore_eos,
            logprobs=self.logprobs,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            stop_token_ids=self.stop_token_ids,
            constraint=self._constraint(),
            n=self.samples,
        )

    def _constraint(self) -> Constraint | None:
        if self.json_schema is not None and self.regex is not None:
            raise InvalidArgument("sampling.regex", "beside a json_schema", limit="one of the two")
        if self.json_schema is not None:
            return JsonSchema(self.json_schema)
        return None if self.regex is None else Regex(self.regex)


def parse_budget(text: str) -> Budget:
    """`96`: tokens of each tile; `total:256`: of the whole image or video; `33%`: of a tile's tokens; `avg:11.1%`: on average
    over the language model's layers.
    """
    if text.startswith(_AVERAGE):
        return _under("reduction", TargetAverage, _fraction(text.removeprefix(_AVERAGE), "budget"))
    if text.startswith(_TOTAL):
        return _under("reduction", TotalTokens, _count(text.removeprefix(_TOTAL), "budget"))
    if text.endswith("%"):
        return _under("reduction", Ratio, _fraction(text, "budget"))
    return _under("reduction", TokensPerTile, _count(text, "budget"))


def parse_keep(text: str) -> tuple[PruneBudget, ...]:
    """One budget for each pruning layer, with commas between: `32` visual tokens, or `33%` of those that reach the layer."""
    return tuple(_parse_kept(part, f"prune.budgets[{index}]") for index, part in enumerate(text.replace(" ", "").split(",")))


def parse_files(
    files: Sequence[str], videos: Sequence[str], sampling: FrameSampling | None, folder: Path | None = None
) -> list[Visual]:
    """All that `read_files` reads. Raises InvalidArgument as `check_sampling` does."""
    visuals = list(read_files(files, videos, sampling, folder))
    check_sampling(visuals, sampling)
    return visuals


def read_files(
    files: Sequence[str], videos: Sequence[str], sampling: FrameSampling | None, folder: Path | None = None
) -> Iterator[Visual]:
    """`files` as what they are, then `videos`, which are meant as such; frames of all videos are taken by `sampling`.

    Each is a file, relative to `folder`; or `sha256:…`, an image or a video that the server has seen. They are read one by one.
    """
    for file in files:
        visual = _read_file(file, folder)
        yield replace(visual, sampling=sampling) if isinstance(visual, Video) else visual
    for video in videos:
        yield replace(_read_video(video, folder), sampling=sampling)


def check_sampling(visuals: Iterable[Visual], sampling: FrameSampling | None) -> None:
    """Raises InvalidArgument where there is a sampling and no video."""
    if sampling is not None and not any(isinstance(visual, Video) for visual in visuals):
        raise InvalidArgument("video.sampling", "there is no video among the files (a GIF is one if it is given as a video)")


def _read_file(text: str, folder: Path | None) -> Visual:
    if text.startswith(_DIGEST):
        return Image.from_digest(text.removeprefix(_DIGEST))
    return as_visual(Path(text if folder is None else folder / text))


def _read_video(text: str, folder: Path | None) -> Video:
    if text.startswith(_DIGEST):
        return Video.from_digest(text.removeprefix(_DIGEST))
    return Video.from_path(text if folder is None else folder / text)


def _parse_kept(text: str, path: str) -> PruneBudget:
    if text.endswith("%"):
        return _under(path, KeepRatio, _fraction(text, "keep"))
    return _under(path, KeepTokens, _count(text, "keep"))


def _under(path: str, make: Callable[P, Spec], /, *args: P.args, **fields: P.kwargs) -> Spec:
    """What `make` makes; what it refuses is named as the server names it, by its whole path in the request."""
    try:
        return make(*args, **fields)
    except InvalidArgument as error:
        raise error.below(path) from error


def _fraction(text: str, field: str) -> float:
    try:
        return float(text.removesuffix("%") if text.endswith("%") else "") / 100
    except ValueError:
        raise InvalidArgument(field, f"{text!r} is not a percentage such as 11.1%") from None


def _count(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise InvalidArgument(field, f"{text!r} is neither a number of tokens nor a percentage")
    return int(text)


def _one_of(names: type[E], text: str, field: str) -> E:
    try:
        return names(text)
    except ValueError:
        raise InvalidArgument(field, f"{text!r}", limit=", ".join(names)) from None
