"""The Qwen2.5-VL language half: against transformers, the authors' released code, and stage 2 written out."""

from __future__ import annotations

import copy
import json
import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.request import EngineRequest, Prompt, Pruning, Result
from tests.support.engines import ids_of, make_engine, run_all, tokens_of
from tests.support.language_models import PARITY, ask, lay_out
from tests.support.qwen import (
    END_OF_TEXT,
    IM_END,
    IMAGE_PAD,
    QWEN,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    generate,
    image_processor,
    make_qwen,
    noise,
    rename_tensors,
    shared_qwen,
)
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError, InvalidArgument
from vscan.specs import KeepRatio, KeepTokens, PositionPolicy, PruneBudget, Rater
from vscan.visual_tokens import Tile, VisualTokens

NEW_TOKENS = 10
SHAPES = [(4, 4), (2, 2), (1, 9), (9, 2), (5, 7), (3, 3), (6, 10)]


def load(directory: Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return load_language(Checkpoint.open(directory), dtype=dtype, device="cpu")


@cache
def language(dtype: torch.dtype = torch.float32) -> LanguageModel:
    return load(shared_qwen()[0], dtype)


@cache
def exact_reference() -> Any:
    return copy.deepcopy(shared_qwen()[1]).double()


def image(tokens: torch.Tensor, rows: int, columns: int, kept: torch.Tensor | None = None) -> VisualTokens:
    count = tokens.shape[0]
    return VisualTokens(
        tokens=tokens,
        kept_indices=torch.arange(count) if kept is None else kept,
        picked_by=torch.zeros(count, dtype=torch.uint8),
        merged_into=None,
        tiles=(Tile(rows, columns, count),),
        unreduced_count=rows * columns,
    )


def words(generator: random.Random) -> list[int]:
    return [generator.randrange(4, 280) for _ in range(generator.randint(1, 6))]


def turns(images: list[VisualTokens], generator: random.Random) -> list[list[int] | VisualTokens]:
    """Text around each image, and the marks of its start and end."""
    pieces: list[list[int] | VisualTokens] = [[1, *words(generator)]]
    for value in images:
        pieces += [[VISION_START], value, [VISION_END, *words(generator)]]
    return pieces


def encoded(shapes: list[tuple[int, int]], seed: int) -> tuple[list[VisualTokens], Any]:
    """Pictures of these grids as transformers lays them into the prompt, and the inputs that they were."""
    if not shapes:
        return [], {}
    directory, model = shared_qwen()
    inputs = image_processor(directory)(
        [noise(*shape, seed + place) for place, shape in enumerate(shapes)], return_tensors="pt"
    )
    parts = model.get_image_features(inputs.pixel_values, inputs.image_grid_thw).pooler_output
    return [image(part, *shape) for part, shape in zip(parts, shapes, strict=True)], inputs


def answer(prompt: Prompt, *, model: LanguageModel, new_tokens: int = NEW_TOKENS) -> list[int]:
    request = ask(prompt, max_new_tokens=new_tokens)
    return ids_of(run_all(make_engine(model, prune_layers=(2,)), [request])[request.request_id])


@pytest.mark.parametrize("seed", range(20))
@torch.inference_mode()
def test_greedy_answers_equal_generate(seed: int) -> None:
    generator = random.Random(seed)
    shapes = [generator.choice(SHAPES) for _ in range(seed % 3)]
    images, inputs = encoded(shapes, seed)
    prompt = lay_out(turns(images, generator), placeholder=IMAGE_PAD)
    expected = generate(shared_qwen()[1], prompt.token_ids, inputs, new_tokens=NEW_TOKENS)
    assert answer(prompt, model=language()) == expected

    # A later turn, with what was answered among its text.
    longer = [*turns(images, random.Random(seed)), [*expected, *words(generator)]]
    prompt = lay_out(longer, placeholder=IMAGE_PAD)
    assert answer(prompt, model=language()) == generate(shared_qwen()[1], prompt.token_ids, inputs, new_tokens=NEW_TOKENS)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("style", ["old", "hub", "new"])
@torch.inference_mode()
def test_every_style_of_files_and_tied_heads(tmp_path: Path, style: str, tied: bool) -> None:
    reference = make_qwen(tmp_path, style=style, tied=tied)
    assert ("lm_head.weight" in Checkpoint.open(tmp_path).files) != tied
    assert (tmp_path / "model.safetensors").exists() == (style != "hub")
    prompt = lay_out([[1, 9, 33, 12, 40]])
    assert answer(prompt, model=load(tmp_path)) == generate(reference, prompt.token_ids, {}, new_tokens=NEW_TOKENS)


def test_special_tokens_come_from_the_files() -> None:
    tokens = language().tokens
    assert tokens.placeholder_id == IMAGE_PAD
    assert tokens.end_ids == {IM_END, END_OF_TEXT}  # generation_config.json, beyond the configuration's one
    assert set(range(END_OF_TEXT, VIDEO_PAD + 1)) <= tokens.control_ids


def test_what_the_half_needs_and_the_files_lack_is_refused(tmp_path: Path) -> None:
    make_qwen(tmp_path)
    rename_tensors(tmp_path, lambda key: "" if "lm_head" in key else key)
    with pytest.raises(CheckpointError, match=r"lacks the tensor lm_head\.weight"):
        load(tmp_path)
    rename_tensors(tmp_path, lambda key: "" if "layers.1.mlp" in key else key)
    with pytest.raises(CheckpointError, match="lacks 3 tensors of Qwen2_5_VLTextModel"):
        load(tmp_path)


@pytest.mark.parametrize("style", ["old", "new"])
@pytest.mark.parametrize("part", ["layers.1.mlp.up_proj.weight", "lm_head.weight", "embed_tokens.weight"])
def test_quantised_weights_are_refused(tmp_path: Path, style: str, part: str) -> None:
    make_qwen(tmp_path, style=style)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith(part))
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{name} is stored as F8_E4M3; only weights that are not"):
        load(tmp_path)


def test_sections_that_do_not_fill_a_head_are_refused(tmp_path: Path) -> None:
    make_qwen(tmp_path)
    file = tmp_path / "config.json"
    stated = json.loads(file.read_text())
    stated["text_config"]["rope_parameters"]["mrope_section"] = [2, 3, 3]
    file.write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match="mrope_section"):
        load(tmp_path)


def test_ids_and_log_probabilities_equal_the_released_code() -> None:
    stated = json.loads((PARITY / "expected" / "qwen_a_333_50.json").read_text())
    expected = load_file(PARITY / "expected" / "qwen_a_333_50.safetensors")
    model = load(QWEN)
    value = image(expected["visual_tokens"], 12, 18, expected["kept_index"])
    ids = Tokenizer.from_file(str(QWEN / "tokenizer.json")).encode(stated["prompt"]).ids
    place = ids.index(model.tokens.placeholder_id)
    prompt = lay_out([ids[:place], value, ids[place + 1 :]], placeholder=model.tokens.placeholder_id)
    pruning = Pruning(
        layers=tuple(stated["prune_layers"]),
        budgets=tuple(KeepRatio(ratio) for ratio in stated["prune_keep_ratio"]),
        rater=Rater.LAST_TOKEN,
        positions=model.default_positions,
    )
    request = ask(prompt, max_new_tokens=12, logprobs=5, pruning=pruning)
    tokens = tokens_of(run_all(make_engine(model, prune_layers=(3,)), [request])[request.request_id])
    assert [token.token_id for token in tokens] == stated["output_token_ids"]
    top = expected["logits"].log_softmax(dim=-1).topk(5)
    assert [[token_id for token_id, _ in token.top] for token in tokens] == top.indices.tolist()
    ours = torch.tensor([[logprob for _, logprob in token.top] for token in tokens])
    assert (ours - top.values).abs().max() < 1e-4


PRUNINGS: dict[str, tuple[PositionPolicy, tuple[PruneBudget, ...]]] = {
    "kept": (PositionPolicy.KEEP, (KeepTokens(9), KeepTokens(4))),
    "re-numbered": (PositionPolicy.RENUMBER, (KeepTokens(9), KeepTokens(4))),
    "ratios": (PositionPolicy.KEEP, (KeepRatio(0.5), KeepRatio(0.3))),
}


@pytest.mark.parametrize("name", PRUNINGS)
@torch.inference_mode()
def test_pruned_answers_equal_stage_2_written_out(name: str) -> None:
    policy, budgets = PRUNINGS[name]
    requests = []
    for seed in range(4):
        generator = random.Random(seed)
        torch.manual_seed(seed)
        values = [
            image(torch.randn(7, 32, dtype=torch.float64), 4, 5, torch.randperm(20)[:7].sort().values),
            image(torch.randn(9, 32, dtype=torch.float64), 3, 3),
        ]
        pruning = Pruning(layers=(1, 3), budgets=budgets, rater=Rater.LAST_TOKEN, positions=policy)
        prompt = lay_out(turns(values, generator), placeholder=IMAGE_PAD)
        requests.append(ask(prompt, pruning=pruning, max_new_tokens=5))
    events = run_all(make_engine(language(torch.float64), prune_layers=(1, 3)), requests)
    for request in requests:
        ids, survivors = written_out(request.prompt, (1, 3), budgets, policy, new_tokens=5)
        assert ids_of(events[request.request_id]) == ids
        result = events[request.request_id][-1]
        assert isinstance(result, Result)
        starts = [span.start for span in request.prompt.spans]
        for done, kept in zip(result.pruning, survivors, strict=True):
            assert [s + row for s, rows in zip(starts, done.survivors, strict=True) for row in rows] == kept


def written_out(
    prompt: Prompt, layers: tuple[int, ...], budgets: tuple[PruneBudget, ...], policy: PositionPolicy, *, new_tokens: int
) -> tuple[list[int], list[list[int]]]:
    """Ids, and after each pruning layer the rows of the prompt that hold visual tokens. No cache, one row's score at a time."""
    model = exact_reference()
    text = model.model.language_model
    visual = {row for span in prompt.spans for row in range(span.start, span.start + span.count)}
    places = language(torch.float64).prompt_positions(prompt)
    ids: list[int] = []
    survivors: list[list[int]] = []
    for _ in range(new_tokens):
        rows = list(range(prompt.rows + len(ids)))
        new = torch.arange(places.next, places.next + len(ids)).expand(3, -1)
        positions = torch.cat([places.places, new], dim=1)
        hidden = torch.cat(
            [language(torch.float64).prompt_rows(prompt), text.embed_tokens(torch.tensor(ids, dtype=torch.int64))]
        )
        survivors = []
        for low, high in pairwise([0, *layers, len(text.layers)]):
            if low:
                columns = [place for place, row in enumerate(rows) if row in visual]
                asking = max(place for place, row in enumerate(rows) if row < prompt.rows)
                scores = plain_scores(text.layers[low].self_attn, text.layers[low].input_layernorm(hidden), asking)
                budget = budgets[layers.index(low)]
                count = budget.count if isinstance(budget, KeepTokens) else int(budget.fraction * len(columns) + 1e-9)
                kept = set(best(scores, columns, [span_of(prompt, rows[c]) for c in columns], count))
                stay = [place for place, row in enumerate(rows) if row not in visual or place in kept]
                hidden, positions, rows = hidden[stay], positions[:, stay], [rows[place] for place in stay]
                survivors.append([row for row in rows if row in visual])
                if policy is PositionPolicy.RENUMBER:
                    positions = torch.arange(len(rows)).expand(3, -1)
            mask = torch.full((len(rows), len(rows)), float("-inf"), dtype=torch.float64).triu(1)[None, None]
            rope = text.rotary_emb(hidden[None], positions[:, None])
            for layer in text.layers[low:high]:
                hidden = layer(hidden[None], attention_mask=mask, position_embeddings=rope)[0]
        ids.append(int(model.lm_head(text.norm(hidden[-1:])).argmax()))
    return ids, survivors


def span_of(prompt: Prompt, row: int) -> int:
    return next(span.image for span in prompt.spans if span.start <= row < span.start + span.count)


def plain_scores(attention: Any, normed: torch.Tensor, asking: int) -> list[float]:
    """Mean over heads of the asking row's softmax, no rotary embedding, over the rows up to its own."""
    size = attention.head_dim
    query = attention.q_proj(normed[asking]).view(-1, size)
    total = [0.0] * (asking + 1)
    for head, vector in enumerate(query):
        group = head // attention.num_key_value_groups
        keys = attention.k_proj(normed[: asking + 1]).view(asking + 1, -1, size)[:, group]
        for place, weight in enumerate((keys @ vector * size**-0.5).softmax(dim=0).tolist()):
            total[place] += weight / len(query)
    return total


def best(scores: list[float], columns: list[int], images: list[int], count: int) -> list[int]:
    """The best columns; every image keeps its own best one."""
    ranked = sorted(zip(columns, images, strict=True), key=lambda entry: (-scores[entry[0]], entry[0]))
    first = [next(column for column, of in ranked if of == image) for image in sorted(set(images))]
    return first + [column for column, _ in ranked if column not in first][: max(0, count - len(first))]


def with_image(value: VisualTokens, **fields: Any) -> EngineRequest:
    return ask(lay_out([[1, VISION_START], value, [VISION_END, 5]], placeholder=IMAGE_PAD), **fields)


def test_a_value_that_cannot_be_laid_out_fails_alone() -> None:
    engine = make_engine(language(), prune_layers=(2,))
    tokens, places = torch.zeros(2, 32), torch.tensor([0, 4])
    scans = torch.zeros(2, dtype=torch.uint8)
    odd = VisualTokens(tokens, places, scans, None, (Tile(1, 4, 1), Tile(2, 2, 1)), 8)
    with pytest.raises(InvalidArgument, match=r"images\[0\]: tiles of 2 sizes"):
        engine.check(with_image(odd))
    good = with_image(image(tokens, 3, 3, places), max_new_tokens=2)
    assert len(ids_of(run_all(engine, [good])[good.request_id])) == 2


def test_positions_count_against_the_models_not_rows() -> None:
    """Two tokens of a grid that is wider than the model has positions, or as wide as it just can be."""
    engine = make_engine(language(), prune_layers=(2,))
    tokens, limit = torch.zeros(2, 32), language().shape.max_context_tokens
    for columns in (2**31, limit - 8):  # four rows of text beside it, and an answer of five
        wide = image(tokens, 1, columns, torch.tensor([0, columns - 1]))
        with pytest.raises(InvalidArgument, match=f"prompt: .* positions.*, limit {limit} positions"):
            engine.check(with_image(wide, max_new_tokens=5))
    fits = with_image(image(tokens, 1, limit - 9, torch.tensor([0, limit - 10])), max_new_tokens=5)
    assert len(ids_of(run_all(engine, [fits])[fits.request_id])) == 5
