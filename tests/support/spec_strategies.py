"""Any request there can be, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from vscan.specs import (
    Budget,
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
)

UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
COUNTS = st.integers(1, 2**32 - 1)
FRACTIONS = st.floats(0, 1, exclude_min=True)


def budgets() -> st.SearchStrategy[Budget]:
    """Stage 1's."""
    small = st.integers(1, 600)
    return st.one_of(st.builds(TokensPerTile, small | COUNTS), st.builds(Ratio, FRACTIONS), st.builds(TargetAverage, FRACTIONS))


def reductions(*, filled: bool = False) -> st.SearchStrategy[ReductionSpec]:
    """Stage 1; with `filled` every field is set, as a deployment's defaults are."""
    unset = st.nothing() if filled else st.none()
    return st.builds(
        ReductionSpec,
        method=unset | st.sampled_from(ReductionMethod),
        budget=unset | budgets(),
        local_share=unset | st.floats(0, 1),
        merge=unset | st.booleans(),
        seed=unset | UINT64,
    )


def prune_budgets() -> st.SearchStrategy[PruneBudget]:
    """Stage 2's."""
    return st.one_of(st.builds(KeepTokens, COUNTS), st.builds(KeepRatio, FRACTIONS))


def prunings() -> st.SearchStrategy[PruneSpec]:
    """Stage 2."""
    return st.builds(
        PruneSpec,
        rater=st.none() | st.sampled_from(Rater),
        budgets=st.lists(prune_budgets(), max_size=4).map(tuple),
        seed=st.none() | UINT64,
        positions=st.none() | st.sampled_from(PositionPolicy),
    )


def samplings() -> st.SearchStrategy[SamplingSpec]:
    """The sampler, limits unchecked: any number that travels."""
    return st.builds(
        SamplingSpec,
        max_new_tokens=st.none() | UINT32,
        temperature=st.none() | st.floats(allow_nan=False),
        top_p=st.none() | st.floats(allow_nan=False),
        top_k=st.none() | UINT32,
        seed=st.none() | UINT64,
        stop=st.lists(st.text(max_size=8), max_size=3).map(tuple),
        ignore_eos=st.booleans(),
        logprobs=st.none() | UINT32,
        min_p=st.none() | st.floats(allow_nan=False),
        repetition_penalty=st.none() | st.floats(allow_nan=False),
        presence_penalty=st.none() | st.floats(allow_nan=False),
        frequency_penalty=st.none() | st.floats(allow_nan=False),
        stop_token_ids=st.lists(UINT32, max_size=3).map(tuple),
        n=st.none() | UINT32,
        constraint=st.none() | st.builds(JsonSchema, st.text(max_size=8)) | st.builds(Regex, st.text(max_size=8)),
    )
