import pytest
import torch

from decoder_service.kv_cache.memory import count_pages
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from vscan.errors import StartupError

CPU = torch.device("cpu")
LAYOUT = PageLayout(split_layers(6, (2,)), 16, KvShape(4, 16, 64, 2))  # 1 and 2 pages a block, and one of places


def test_memory_that_was_asked_for_is_taken() -> None:
    assert count_pages(10 * LAYOUT.page_bytes + 1, LAYOUT, least=3, enough=5, device=CPU) == 10


def test_by_default_a_cpu_gives_no_more_than_is_of_use() -> None:
    assert count_pages(None, LAYOUT, least=3, enough=500, device=CPU) == 500


def test_too_little_stops_the_start() -> None:
    assert count_pages(3 * LAYOUT.page_bytes, LAYOUT, least=3, enough=5, device=CPU) == 3
    with pytest.raises(
        StartupError, match=rf"^kv_cache_bytes: \d+, but blocks of 16 rows need at least {3 * LAYOUT.page_bytes} "
    ):
        count_pages(3 * LAYOUT.page_bytes - 1, LAYOUT, least=3, enough=5, device=CPU)
