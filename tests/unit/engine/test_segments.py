import pytest

from decoder_service.kv_cache.segments import KvShape, PageLayout, Segment, split_layers


def test_layers_are_split_before_each_pruning_layer() -> None:
    assert split_layers(6, ()) == (Segment(0, 0, 6),)
    assert split_layers(6, (3,)) == (Segment(0, 0, 3), Segment(1, 3, 6))
    assert [segment.layers for segment in split_layers(8, (2, 3))] == [2, 1, 5]


@pytest.mark.parametrize("prune_layers", [(0,), (6,), (7,), (3, 3), (4, 2), (-1,)])
def test_pruning_layers_outside_the_model_or_out_of_order_are_refused(prune_layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="within 1 to 5"):
        split_layers(6, prune_layers)


def test_pages_and_bytes() -> None:
    shape = KvShape(kv_heads=4, head_dim=16, hidden_size=64, itemsize_bytes=2)
    # 2 (key, value) x 4 x 16 x 2 bytes = 256 bytes a row and layer, 128 a row at a boundary
    layout = PageLayout(split_layers(6, (2,)), 16, shape)
    assert layout.group_layers == 2
    assert [layout.pages_per_block(segment) for segment in (0, 1)] == [1, 2]
    assert layout.page_bytes == 16 * 2 * 256
    # A page has 2 x 2 x 4 strips; 64 numbers of a hidden state are 4 of them. Seven blocks have seven places, in two pages.
    assert (layout.page_strips, layout.place_strips, layout.places_per_page, layout.pages_per_place) == (16, 4, 4, 1)
    assert layout.pages((100, 10)) == 7 * 1 + 2 + 1 * 2
    assert [layout.block_bytes(segment) for segment in (0, 1)] == [16 * (2 * 256 + 128), 16 * 4 * 256]


def test_without_pruning_there_is_no_boundary() -> None:
    layout = PageLayout(split_layers(6, ()), 16, KvShape(4, 16, 64, 2))
    assert layout.group_layers == 6
    assert layout.page_bytes == layout.block_bytes(0) == 16 * 6 * 256


@pytest.mark.parametrize(
    ("name", "shape", "layers", "prune_layers", "places_per_page", "pages_per_place", "share"),
    [
        # Of the keys and values of a block of segment 0, its place takes:
        ("LLaVA-1.5-7B", KvShape(32, 128, 4096, 2), 32, (16,), 32, 1, 1 / 32),
        ("LLaVA-1.5-7B", KvShape(32, 128, 4096, 2), 32, (15,), 2, 1, 1 / 30),
        ("Qwen2.5-VL-7B", KvShape(4, 128, 3584, 2), 28, (14,), 4, 1, 1 / 4),
        ("Qwen2.5-VL-7B", KvShape(4, 128, 3584, 2), 28, (16,), 1, 1, 1 / 4),
        ("Qwen2.5-VL-7B", KvShape(4, 128, 3584, 2), 28, (9, 18), 1, 4, 4 / 9),
        ("Qwen2.5-VL-7B", KvShape(4, 128, 3584, 2), 28, (9,), 1, 4, 4 / 9),
        ("Qwen2.5-VL-3B", KvShape(2, 128, 2048, 2), 36, (17,), 1, 4, 4 / 17),
    ],
)
def test_a_place_takes_little(
    name: str,
    shape: KvShape,
    layers: int,
    prune_layers: tuple[int, ...],
    places_per_page: int,
    pages_per_place: int,
    share: float,
) -> None:
    layout = PageLayout(split_layers(layers, prune_layers), 16, shape)
    assert (layout.places_per_page, layout.pages_per_place) == (places_per_page, pages_per_place), name
    many = 64
    taken = layout.place_pages(many) / (many * layout.pages_per_block(0))
    assert taken == pytest.approx(share)
