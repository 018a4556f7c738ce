import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from decoder_service.pruning import attention_scores, choose_survivors, random_scores


def plain_choice(scores: list[float], image_of: list[int], keep: int) -> list[int]:
    """The rule, said slowly: the best of each image has a place, the others are taken in order of score, then of index."""
    ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    chosen = [next(place for place in ranked if image_of[place] == image) for image in sorted(set(image_of))]
    chosen += [place for place in ranked if place not in chosen]
    return sorted(chosen[:keep])


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[float], list[int], int]:
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    image_of = [image for image, count in enumerate(counts) for _ in range(count)]
    # Few distinct values, so that most rankings have ties.
    scores = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=len(image_of), max_size=len(image_of)))
    return scores, image_of, draw(st.integers(len(counts), len(image_of)))


@given(rankings())
def test_survivors_equal_the_plain_rule(ranking: tuple[list[float], list[int], int]) -> None:
    scores, image_of, keep = ranking
    survivors = choose_survivors(torch.tensor(scores), torch.tensor(image_of), keep)
    assert survivors.tolist() == plain_choice(scores, image_of, keep)


@pytest.mark.parametrize("count", [3, 700])
def test_ties_go_to_the_lower_index(count: int) -> None:
    survivors = choose_survivors(torch.zeros(count), torch.zeros(count, dtype=torch.int64), 2)
    assert survivors.tolist() == [0, 1]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_scores_equal_the_softmax_written_out(heads: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(heads * kv_heads)
    rows, width, asking = 7, 5, [4, 6]
    queries = torch.randn((heads, len(asking), width), generator=generator, dtype=torch.float64)
    keys = torch.randn((kv_heads, rows, width), generator=generator, dtype=torch.float64)
    visual = [1, 2, 5]

    expected = torch.zeros(rows, dtype=torch.float64)
    for head in range(heads):
        for place, row in enumerate(asking):
            own = keys[head * kv_heads // heads]
            weights = [math.exp(0.5 * float(queries[head, place] @ own[other])) for other in range(row + 1)]
            for other, weight in enumerate(weights):
                expected[other] += weight / sum(weights) / heads / len(asking)

    scores = attention_scores(queries, keys, query_rows=torch.tensor(asking), visual_rows=torch.tensor(visual), scaling=0.5)
    torch.testing.assert_close(scores, expected[visual])


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that a tensor made under it takes, beside those that are given."""

    def __init__(self, *given: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most_bytes = 0
        self._given = {tensor.untyped_storage().data_ptr() for tensor in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in self._given:
            self.most_bytes = max(self.most_bytes, made.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 8), (8, 1)])
def test_many_rows_ask_in_little_memory(heads: int, kv_heads: int) -> None:
    """The weights of all asking rows would take 80 MiB, and keys repeated for all heads 20."""
    rows, width, asking = 1610, 400, torch.arange(10, 1610)
    generator = torch.Generator().manual_seed(heads * kv_heads)
    queries = torch.randn((heads, len(asking), width), generator=generator)
    keys = torch.randn((kv_heads, rows, width), generator=generator)
    visual = torch.arange(5, 10)
    with Largest(queries, keys) as largest:
        scores = attention_scores(queries, keys, query_rows=asking, visual_rows=visual, scaling=0.05)
    assert largest.most_bytes <= 4 * heads * rows * 64
    some = [
        attention_scores(queries[:, low : low + 7], keys, query_rows=asking[low : low + 7], visual_rows=visual, scaling=0.05)
        * 7
        for low in range(0, len(asking) - 4, 7)
    ]
    last = attention_scores(queries[:, -4:], keys, query_rows=asking[-4:], visual_rows=visual, scaling=0.05) * 4
    torch.testing.assert_close(scores, (torch.stack(some).sum(dim=0) + last) / len(asking))


def test_scores_of_half_precision_are_computed_in_float32() -> None:
    queries, keys = torch.ones((1, 1, 2), dtype=torch.bfloat16), torch.ones((1, 300, 2), dtype=torch.bfloat16)
    scores = attention_scores(queries, keys, query_rows=torch.tensor([299]), visual_rows=torch.tensor([0]), scaling=1.0)
    assert scores.dtype == torch.float32
    assert abs(float(scores) - 1 / 300) < 1e-7


def test_random_scores_follow_the_seed_and_the_layer() -> None:
    drawn = random_scores(50, seed=3, layer=16)
    assert torch.equal(drawn, random_scores(50, seed=3, layer=16))
    assert not torch.equal(drawn, random_scores(50, seed=4, layer=16))
    assert not torch.equal(drawn, random_scores(50, seed=3, layer=20))
    assert random_scores(4, seed=2**64 - 1, layer=31).shape == (4,)
