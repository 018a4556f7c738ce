"""A spec comes off the wire as it went on; what the wire or the service cannot mean is refused by its path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor
from hypothesis import given

from tests.support.spec_strategies import prunings, reductions, samplings
from vscan import wire
from vscan.errors import InvalidArgument
from vscan.specs import KeepTokens, PruneSpec, Rater, ReductionMethod, ReductionSpec, SamplingSpec, TokensPerTile
from vscan.v1 import decoder_pb2, visual_tokens_pb2


@given(reductions())
def test_a_reduction_comes_back(spec: ReductionSpec) -> None:
    sent = wire.reduction_to_proto(spec).SerializeToString()
    assert wire.reduction_from_proto(visual_tokens_pb2.ReductionSpec.FromString(sent)) == spec


@given(prunings())
def test_a_pruning_comes_back(spec: PruneSpec) -> None:
    sent = wire.prune_to_proto(spec).SerializeToString()
    assert wire.prune_from_proto(decoder_pb2.PruneSpec.FromString(sent)) == spec


@given(samplings())
def test_sampling_comes_back(spec: SamplingSpec) -> None:
    sent = wire.sampling_to_proto(spec).SerializeToString()
    assert wire.sampling_from_proto(decoder_pb2.SamplingParams.FromString(sent)) == spec


def test_nan_travels_and_is_the_decoders_to_refuse() -> None:
    spec = wire.sampling_from_proto(wire.sampling_to_proto(SamplingSpec(temperature=math.nan)))
    assert spec.temperature is not None
    assert math.isnan(spec.temperature)


def test_nothing_set_means_nothing_said() -> None:
    assert wire.reduction_from_proto(visual_tokens_pb2.ReductionSpec()) == ReductionSpec()
    assert wire.prune_from_proto(decoder_pb2.PruneSpec()) == PruneSpec()
    assert wire.sampling_from_proto(decoder_pb2.SamplingParams()) == SamplingSpec()


def test_zero_and_false_are_said() -> None:
    message = visual_tokens_pb2.ReductionSpec(local_share=0.0, merge=False, seed=0)
    assert wire.reduction_from_proto(message) == ReductionSpec(local_share=0.0, merge=False, seed=0)
    assert wire.reduction_to_proto(ReductionSpec(local_share=0.0, merge=False, seed=0)) == message
    assert wire.sampling_from_proto(decoder_pb2.SamplingParams(temperature=0.0, top_k=0)) == SamplingSpec(
        temperature=0.0, top_k=0
    )


def _reduction(**fields: Any) -> Callable[[], object]:
    return lambda: wire.reduction_from_proto(visual_tokens_pb2.ReductionSpec(**fields))


def _prune(**fields: Any) -> Callable[[], object]:
    return lambda: wire.prune_from_proto(decoder_pb2.PruneSpec(**fields))


def _budget(**fields: Any) -> visual_tokens_pb2.Budget:
    return visual_tokens_pb2.Budget(**fields)


def _prune_budget(**fields: Any) -> decoder_pb2.PruneBudget:
    return decoder_pb2.PruneBudget(**fields)


@pytest.mark.parametrize(
    ("read", "field"),
    [
        (_reduction(method=99), "reduction.method"),
        (_reduction(method=-1), "reduction.method"),
        (_reduction(budget=_budget(tokens_per_tile=0)), "reduction.budget.tokens_per_tile"),
        (_reduction(budget=_budget(ratio=0.0)), "reduction.budget.ratio"),
        (_reduction(budget=_budget(ratio=math.nan)), "reduction.budget.ratio"),
        (_reduction(budget=_budget(target_average=1.5)), "reduction.budget.target_average"),
        (_reduction(local_share=math.nan), "reduction.local_share"),
        (_reduction(local_share=-1.0), "reduction.local_share"),
        (_prune(rater=99), "prune.rater"),
        (_prune(positions=99), "prune.positions"),
        (_prune(budgets=[_prune_budget(tokens=1), _prune_budget()]), "prune.budgets[1].amount"),
        (_prune(budgets=[_prune_budget(tokens=0)]), "prune.budgets[0].tokens"),
        (_prune(budgets=[_prune_budget(ratio=0.5), _prune_budget(ratio=math.nan)]), "prune.budgets[1].ratio"),
        (_prune(budgets=[_prune_budget(ratio=1.01)]), "prune.budgets[0].ratio"),
    ],
)
def test_a_bad_field_is_named_by_its_path(read: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read()
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_the_path_begins_where_the_caller_says() -> None:
    with pytest.raises(InvalidArgument, match=r"^defaults\.reduction\.method: unknown value 99$"):
        wire.reduction_from_proto(visual_tokens_pb2.ReductionSpec(method=99), "defaults.reduction")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("write", "field"),
    [
        (lambda: wire.reduction_to_proto(ReductionSpec(budget=TokensPerTile(2**32))), "reduction.budget.tokens_per_tile"),
        (lambda: wire.prune_to_proto(PruneSpec(budgets=(KeepTokens(1), KeepTokens(2**32)))), "prune.budgets[1].tokens"),
        (lambda: wire.sampling_to_proto(SamplingSpec(max_new_tokens=-1)), "sampling.max_new_tokens"),
        (lambda: wire.sampling_to_proto(SamplingSpec(top_k=2**32)), "sampling.top_k"),
        (lambda: wire.sampling_to_proto(SamplingSpec(seed=-1)), "sampling.seed"),
        (lambda: wire.sampling_to_proto(SamplingSpec(logprobs=-1)), "sampling.logprobs"),
        (lambda: wire.sampling_to_proto(SamplingSpec(stop_token_ids=(1, 2**32))), "sampling.stop_token_ids[1]"),
    ],
)
def test_a_number_that_the_wire_cannot_hold_is_named(write: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        write()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("descriptor", "read"),
    [
        (
            visual_tokens_pb2.ReductionMethod.DESCRIPTOR,
            lambda n: wire.reduction_from_proto(visual_tokens_pb2.ReductionSpec(method=n)),
        ),
        (decoder_pb2.Rater.DESCRIPTOR, lambda n: wire.prune_from_proto(decoder_pb2.PruneSpec(rater=n))),
        (decoder_pb2.PositionPolicy.DESCRIPTOR, lambda n: wire.prune_from_proto(decoder_pb2.PruneSpec(positions=n))),
    ],
)
def test_every_value_of_the_contract_is_known(descriptor: EnumDescriptor, read: Callable[[int], object]) -> None:
    meanings = [read(value.number) for value in descriptor.values]
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("method", ReductionMethod)
def test_methods_have_the_contracts_names(method: ReductionMethod) -> None:
    number = wire.reduction_to_proto(ReductionSpec(method=method)).method
    assert visual_tokens_pb2.ReductionMethod.Name(number) == f"REDUCTION_METHOD_{method.name}"


@pytest.mark.parametrize("rater", Rater)
def test_raters_have_the_contracts_names(rater: Rater) -> None:
    assert decoder_pb2.Rater.Name(wire.prune_to_proto(PruneSpec(rater=rater)).rater) == f"RATER_{rater.name}"
