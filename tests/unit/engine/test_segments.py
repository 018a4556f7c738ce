import pytest
import torch

from decoder_service.kv_cache.segments import KvShape, Segment, kv_bytes, split_layers
from decoder_service.kv_cache.storage import BLOCK_ROWS, SegmentKv


def test_layers_are_split_before_each_pruning_layer() -> None:
    assert split_layers(6, ()) == (Segment(0, 0, 6),)
    assert split_layers(6, (3,)) == (Segment(0, 0, 3), Segment(1, 3, 6))
    assert [segment.layers for segment in split_layers(8, (2, 3))] == [2, 1, 5]


@pytest.mark.parametrize("prune_layers", [(0,), (6,), (7,), (3, 3), (4, 2), (-1,)])
def test_pruning_layers_outside_the_model_or_out_of_order_are_refused(prune_layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="within 1 to 5"):
        split_layers(6, prune_layers)


def test_bytes_of_a_sequence() -> None:
    shape = KvShape(kv_heads=4, head_dim=16, itemsize_bytes=2)
    # 2 (key, value) x 4 x 16 x 2 bytes = 256 bytes a row and layer
    assert kv_bytes(split_layers(6, (2,)), (100, 10), shape) == (2 * 100 + 4 * 10) * 256


def storage(layers: int = 2) -> SegmentKv:
    segment = Segment(index=1, first_layer=3, end_layer=3 + layers)
    return SegmentKv(segment, kv_heads=1, head_dim=2, dtype=torch.float32, device=torch.device("cpu"))


def rows(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32)[:, None, None].expand(count, 1, 2)


def test_what_was_written_is_read_back_across_growth() -> None:
    kv = storage()
    written = 0
    for count in (3, 1, BLOCK_ROWS, 1, 5):
        kv.reserve(count)
        for layer in (3, 4):
            keys, values = kv.write(layer, rows(written, count), -rows(written + layer, count))
            assert torch.equal(keys, rows(0, written + count))
            assert torch.equal(values[:, 0, 0], torch.cat([-rows(layer, written + count)[:, 0, 0]]))
        kv.commit(count)
        written += count
    assert kv.length == written


def test_memory_comes_in_blocks_and_only_when_asked_for() -> None:
    kv = storage(layers=3)
    assert kv.reserved_bytes == 0
    kv.reserve(1)
    one_block = 3 * 2 * BLOCK_ROWS * 2 * 4
    assert kv.reserved_bytes == one_block
    kv.commit(1)
    kv.reserve(BLOCK_ROWS - 1)
    assert kv.reserved_bytes == one_block
    kv.commit(BLOCK_ROWS - 1)
    kv.reserve(1)
    assert kv.reserved_bytes == 2 * one_block
