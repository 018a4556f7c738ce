"""Specs to and from their proto messages. Errors name the field by its path in the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from vscan.errors import InvalidArgument
from vscan.specs import (
    Budget,
    Constraint,
    FrameCount,
    FrameRate,
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
from vscan.v1 import decoder_pb2, visual_tokens_pb2

K = TypeVar("K", bound=int)
E = TypeVar("E")

_METHODS: dict[visual_tokens_pb2.ReductionMethod, ReductionMethod] = {
    visual_tokens_pb2.REDUCTION_METHOD_VSCAN: ReductionMethod.VSCAN,
    visual_tokens_pb2.REDUCTION_METHOD_GLOBAL: ReductionMethod.GLOBAL,
    visual_tokens_pb2.REDUCTION_METHOD_LOCAL: ReductionMethod.LOCAL,
    visual_tokens_pb2.REDUCTION_METHOD_RANDOM: ReductionMethod.RANDOM,
    visual_tokens_pb2.REDUCTION_METHOD_POOL: ReductionMethod.POOL,
    visual_tokens_pb2.REDUCTION_METHOD_NONE: ReductionMethod.NONE,
}
_RATERS: dict[decoder_pb2.Rater, Rater] = {
    decoder_pb2.RATER_LAST_TOKEN: Rater.LAST_TOKEN,
    decoder_pb2.RATER_TEXT_MEAN: Rater.TEXT_MEAN,
    decoder_pb2.RATER_RANDOM: Rater.RANDOM,
    decoder_pb2.RATER_DROP_ALL: Rater.DROP_ALL,
    decoder_pb2.RATER_NONE: Rater.NONE,
}
_POSITIONS: dict[decoder_pb2.PositionPolicy, PositionPolicy] = {
    decoder_pb2.POSITION_POLICY_RENUMBER: PositionPolicy.RENUMBER,
    decoder_pb2.POSITION_POLICY_KEEP: PositionPolicy.KEEP,
}
_OPTIONAL_SAMPLING = (
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "logprobs",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "n",
)
_METHODS_TO_PROTO = {value: key for key, value in _METHODS.items()}
_RATERS_TO_PROTO = {value: key for key, value in _RATERS.items()}
_POSITIONS_TO_PROTO = {value: key for key, value in _POSITIONS.items()}


def reduction_from_proto(message: visual_tokens_pb2.ReductionSpec, field: str = "reduction") -> ReductionSpec:
    """What a request asks of stage 1; unset fields stay `None`. Raises InvalidArgument below `field`."""
    try:
        return ReductionSpec(
            method=_known(_METHODS, message.method, "method"),
            budget=_budget_from_proto(message.budget),
            local_share=message.local_share if message.HasField("local_share") else None,
            merge=message.merge if message.HasField("merge") else None,
            seed=message.seed if message.HasField("seed") else None,
        )
    except InvalidArgument as error:
        raise error.below(field) from error


def reduction_to_proto(spec: ReductionSpec) -> visual_tokens_pb2.ReductionSpec:
    """The wire's form; `None` stays unset. Raises InvalidArgument for a number that the wire cannot hold."""
    return visual_tokens_pb2.ReductionSpec(
        method=_METHODS_TO_PROTO[spec.method] if spec.method else visual_tokens_pb2.REDUCTION_METHOD_UNSPECIFIED,
        budget=_budget_to_proto(spec.budget),
        local_share=spec.local_share,
        merge=spec.merge,  # type: ignore[arg-type]  # the stub knows no unset bool
        seed=spec.seed,
    )


def prune_from_proto(message: decoder_pb2.PruneSpec, field: str = "prune") -> PruneSpec:
    """What a request asks of stage 2; unset fields stay `None`. Raises InvalidArgument below `field`."""
    try:
        return PruneSpec(
            rater=_known(_RATERS, message.rater, "rater"),
            budgets=tuple(_prune_budget(budget, index) for index, budget in enumerate(message.budgets)),
            seed=message.seed if message.HasField("seed") else None,
            positions=_known(_POSITIONS, message.positions, "positions"),
        )
    except InvalidArgument as error:
        raise error.below(field) from error


def prune_to_proto(spec: PruneSpec) -> decoder_pb2.PruneSpec:
    """The wire's form; `None` stays unset. Raises InvalidArgument for a number that the wire cannot hold."""
    return decoder_pb2.PruneSpec(
        rater=_RATERS_TO_PROTO[spec.rater] if spec.rater else decoder_pb2.RATER_UNSPECIFIED,
        budgets=[_prune_budget_to_proto(budget, index) for index, budget in enumerate(spec.budgets)],
        seed=spec.seed,
        positions=_POSITIONS_TO_PROTO[spec.positions] if spec.positions else decoder_pb2.POSITION_POLICY_UNSPECIFIED,
    )


def sampling_from_proto(message: decoder_pb2.SamplingParams) -> SamplingSpec:
    """What a request asks of the sampler; unset fields stay `None`. Limits are the decoder's to check."""
    given = {name: getattr(message, name) for name in _OPTIONAL_SAMPLING if message.HasField(name)}
    return SamplingSpec(
        **given,
        stop=tuple(message.stop),
        ignore_eos=message.ignore_eos,
        stop_token_ids=tuple(message.stop_token_ids),
        constraint=_constraint(message),
    )


def sampling_to_proto(spec: SamplingSpec) -> decoder_pb2.SamplingParams:
    """The wire's form; `None` stays unset. Raises InvalidArgument for a number that the wire cannot hold."""
    return decoder_pb2.SamplingParams(
        max_new_tokens=_unsigned(spec.max_new_tokens, "sampling.max_new_tokens"),
        temperature=spec.temperature,
        top_p=spec.top_p,
        top_k=_unsigned(spec.top_k, "sampling.top_k"),
        seed=_unsigned(spec.seed, "sampling.seed", bits=64),
        stop=spec.stop,
        ignore_eos=spec.ignore_eos,
        logprobs=_unsigned(spec.logprobs, "sampling.logprobs"),
        min_p=spec.min_p,
        repetition_penalty=spec.repetition_penalty,
        presence_penalty=spec.presence_penalty,
        frequency_penalty=spec.frequency_penalty,
        stop_token_ids=[
            _in_bits(token, f"sampling.stop_token_ids[{index}]") for index, token in enumerate(spec.stop_token_ids)
        ],
        json_schema=spec.constraint.text if isinstance(spec.constraint, JsonSchema) else None,
        regex=spec.constraint.pattern if isinstance(spec.constraint, Regex) else None,
        n=_unsigned(spec.n, "sampling.n"),
    )


def frame_sampling_from_proto(message: visual_tokens_pb2.FrameSampling, field: str) -> FrameSampling | None:
    """Which frames a request asks for; `None` where it leaves that to the deployment. Raises InvalidArgument below `field`."""
    try:
        match message.WhichOneof("amount"):
            case "frames":
                return FrameCount(message.frames)
            case "frames_per_second":
                return FrameRate(message.frames_per_second)
            case _:
                return None
    except InvalidArgument as error:
        raise error.below(field) from error


def frame_sampling_to_proto(sampling: FrameSampling | None) -> visual_tokens_pb2.FrameSampling:
    """The wire's form; `None` sets nothing. Raises InvalidArgument for a number that the wire cannot hold."""
    match sampling:
        case FrameCount(count):
            return visual_tokens_pb2.FrameSampling(frames=_unsigned(count, "sampling.frames"))
        case FrameRate(per_second):
            return visual_tokens_pb2.FrameSampling(frames_per_second=per_second)
        case None:
            return visual_tokens_pb2.FrameSampling()


def _known(names: Mapping[K, E], number: K, field: str) -> E | None:
    if number == 0:
        return None
    if number not in names:
        raise InvalidArgument(field, f"unknown value {number}")
    return names[number]


def _unsigned(value: int | None, field: str, *, bits: int = 32) -> int | None:
    """The value, where the wire's unsigned integer can hold it."""
    return None if value is None else _in_bits(value, field, bits=bits)


def _in_bits(value: int, field: str, *, bits: int = 32) -> int:
    if not 0 <= value < 2**bits:
        raise InvalidArgument(field, f"{value}", limit=f"0 to 2^{bits} - 1")
    return value


def _constraint(message: decoder_pb2.SamplingParams) -> Constraint | None:
    match message.WhichOneof("constraint"):
        case "json_schema":
            return JsonSchema(message.json_schema)
        case "regex":
            return Regex(message.regex)
        case _:
            return None


def _budget_from_proto(message: visual_tokens_pb2.Budget) -> Budget | None:
    match message.WhichOneof("amount"):
        case "tokens_per_tile":
            return TokensPerTile(message.tokens_per_tile)
        case "ratio":
            return Ratio(message.ratio)
        case "target_average":
            return TargetAverage(message.target_average)
        case "total_tokens":
            return TotalTokens(message.total_tokens)
        case _:
            return None


def _budget_to_proto(budget: Budget | None) -> visual_tokens_pb2.Budget | None:
    match budget:
        case TokensPerTile(count):
            return visual_tokens_pb2.Budget(tokens_per_tile=_unsigned(count, "reduction.budget.tokens_per_tile"))
        case Ratio(fraction):
            return visual_tokens_pb2.Budget(ratio=fraction)
        case TargetAverage(fraction):
            return visual_tokens_pb2.Budget(target_average=fraction)
        case TotalTokens(count):
            return visual_tokens_pb2.Budget(total_tokens=_unsigned(count, "reduction.budget.total_tokens"))
        case None:
            return None


def _prune_budget(message: decoder_pb2.PruneBudget, index: int) -> PruneBudget:
    try:
        match message.WhichOneof("amount"):
            case "tokens":
                return KeepTokens(message.tokens)
            case "ratio":
                return KeepRatio(message.ratio)
            case _:
                raise InvalidArgument("amount", "not set")
    except InvalidArgument as error:
        raise error.below(f"budgets[{index}]") from error


def _prune_budget_to_proto(budget: PruneBudget, index: int) -> decoder_pb2.PruneBudget:
    if isinstance(budget, KeepTokens):
        return decoder_pb2.PruneBudget(tokens=_unsigned(budget.count, f"prune.budgets[{index}].tokens"))
    return decoder_pb2.PruneBudget(ratio=budget.fraction)
