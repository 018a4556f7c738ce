"""What the studies read of the language model is transformers' own: hidden states, attention, the logit lens; of all families.

In float64, so that only what is computed differently shows; but transformers has norms and softmax in float32.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from decoder_service.language.base import LanguageModel
from decoder_service.request import Prompt
from embedded_model import checkpoint_dir
from encoder_service.config import EncoderSettings
from studies.inputs import Picture
from studies.language.lens import read
from studies.language.shares import shares
from studies.language.walk import walk
from studies.loading import Model
from tests.support.llava_next import make_checkpoint, png
from tests.support.qwen import image_processor, kinds_of, shared_qwen
from tests.support.video_llava import pixel_values, shared_video_llava
from vscan.checkpoint import Checkpoint

PICTURE = png(120, 84)
QUESTION = "is there a star?"
NEAR = 1e-5


def seen_by_transformers(directory: Path, family: str, ids: torch.Tensor) -> dict[str, Any]:
    """The picture as transformers' own image processor has it."""
    image = Image.open(io.BytesIO(PICTURE)).convert("RGB")
    if family == "qwen2_5_vl":
        return {**image_processor(directory)(images=[image], return_tensors="pt"), "mm_token_type_ids": kinds_of(ids)}
    if family == "video_llava":
        return {"pixel_values_images": pixel_values(directory, [image])}
    kind = LlavaNextImageProcessorPil if family == "llava_next" else CLIPImageProcessorPil
    return dict(kind.from_pretrained(directory)(images=[image], return_tensors="pt"))


@dataclass(frozen=True)
class Both:
    """A prompt, our model, and what transformers makes of the prompt."""

    model: LanguageModel
    prompt: Prompt
    hidden: list[torch.Tensor]  # after 0, 1, … layers, the final norm not applied: [rows, hidden]
    attention: list[torch.Tensor]  # [heads, rows, rows]
    lens: torch.Tensor  # log-probabilities of the last row after 0, 1, … layers, [layers + 1, vocabulary]


def both(directory: Path) -> Both:
    settings = EncoderSettings(model=directory)
    half = {"device": torch.device("cpu"), "dtype": torch.float64, "settings": settings}
    ours = Model(Checkpoint.open(directory), "", **half)  # type: ignore[arg-type]
    tokens = ours.vision.encode(ours.vision.see(Picture("picture", lambda: PICTURE)))
    prompt = ours.language.prompt(QUESTION, [tokens])
    ids = torch.tensor([prompt.token_ids])
    kind = getattr(transformers, ours.checkpoint.config.architectures[0])
    theirs = kind.from_pretrained(directory, dtype=torch.float64, attn_implementation="eager").eval()
    inputs = seen_by_transformers(directory, ours.checkpoint.model_type, ids)
    floats = {name: given.double() if given.is_floating_point() else given for name, given in inputs.items()}
    normed: list[torch.Tensor] = []
    text = theirs.model.language_model
    text.layers[-1].register_forward_hook(lambda _module, _given, output: normed.append(output))
    with torch.inference_mode():
        made = theirs(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, output_attentions=True, **floats
        )
        hidden = [*made.hidden_states[:-1], normed[0] if isinstance(normed[0], torch.Tensor) else normed[0][0]]
        lens = torch.cat([theirs.lm_head(text.norm(rows[:, -1])) for rows in hidden]).log_softmax(dim=-1)
    return Both(ours.language.model, prompt, [rows[0] for rows in hidden], [rows[0] for rows in made.attentions], lens)


FAMILIES: Mapping[str, Callable[[Path], Path]] = {
    "llava": lambda _: checkpoint_dir(),
    "llava_next": make_checkpoint,
    "qwen2_5_vl": lambda _: shared_qwen()[0],
    "video_llava": lambda _: shared_video_llava()[0],
}


@pytest.fixture(scope="module", params=FAMILIES)
def read_twice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    torch.set_num_threads(1)
    return both(FAMILIES[request.param](tmp_path_factory.mktemp(request.param)))


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a fraction of the largest value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def test_hidden_states_and_the_last_rows_attention(read_twice: Both) -> None:
    views = list(walk(read_twice.model, read_twice.prompt))
    assert len(views) == len(read_twice.attention)
    for view, entering, leaving, attention in zip(
        views, read_twice.hidden[:-1], read_twice.hidden[1:], read_twice.attention, strict=True
    ):
        assert off(view.entering, entering) < NEAR
        assert off(view.leaving, leaving) < NEAR
        assert off(view.attention, attention[:, -1].mean(dim=0)) < NEAR


def test_shares_of_attention(read_twice: Both) -> None:
    (span,) = read_twice.prompt.spans
    visual = slice(span.start, span.start + span.count)
    for found, attention in zip(shares(read_twice.model, read_twice.prompt), read_twice.attention, strict=True):
        row = attention[:, -1].mean(dim=0)
        expected = (row[visual].sum(), row[: span.start].sum(), row[visual.stop :].sum(), row[0])
        assert (found.visual, found.system, found.question, found.first) == pytest.approx([*map(float, expected)], abs=NEAR)


def test_the_logit_lens(read_twice: Both) -> None:
    found, final = read(read_twice.model, read_twice.prompt).lens, read_twice.lens[-1]
    kl = torch.nn.functional.kl_div(read_twice.lens, final.expand_as(read_twice.lens), reduction="none", log_target=True)
    assert found.kl_nats == pytest.approx(kl.sum(dim=-1).tolist(), rel=NEAR, abs=NEAR)
    assert list(found.agrees) == (read_twice.lens.argmax(dim=-1) == final.argmax()).tolist()
