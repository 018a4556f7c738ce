"""The packaged checkpoint: complete, loadable by transformers, and able to answer."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from embedded_model import checkpoint_dir
from embedded_model.album import draw_album
from embedded_model.pixels import pixels_of
from embedded_model.questions import Question
from embedded_model.scenes import draw_scene

FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "README.md",
    "LICENSE",
}


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    torch.set_num_threads(1)
    return LlavaForConditionalGeneration.from_pretrained(checkpoint_dir(), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor() -> AutoProcessor:
    return AutoProcessor.from_pretrained(checkpoint_dir())


def prompt(processor: AutoProcessor, text: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": text}]
    rendered: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return rendered


def answers(
    model: LlavaForConditionalGeneration, processor: AutoProcessor, image: Image.Image, asked: tuple[Question, ...]
) -> list[str]:
    """Greedy answers to the questions about one picture, in one batch."""
    texts = [prompt(processor, question.text) for question in asked]
    inputs = processor(images=[image] * len(asked), text=texts, padding=True, return_tensors="pt")
    said = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    decoded: list[str] = processor.batch_decode(said, skip_special_tokens=True)
    return decoded


def test_directory_is_complete_and_small() -> None:
    assert {path.name for path in checkpoint_dir().iterdir()} == FILES
    assert sum(path.stat().st_size for path in checkpoint_dir().iterdir()) < 16_000_000


def test_config_is_that_of_llava() -> None:
    config = json.loads(Path(checkpoint_dir() / "config.json").read_text())
    assert config["model_type"] == "llava"
    assert config["vision_feature_layer"] == -2
    assert config["vision_feature_select_strategy"] == "default"
    assert config["vision_config"]["model_type"] == "clip_vision_model"
    assert config["text_config"]["model_type"] == "llama"
    assert config["text_config"]["tie_word_embeddings"] is True


def test_processor_makes_the_pixels_of_training(processor: AutoProcessor) -> None:
    scene = draw_scene(5)
    made = processor.image_processor(scene.image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(made, pixels_of([scene]), atol=1e-6, rtol=0)


def test_chat_template_renders_turns(processor: AutoProcessor) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is there any star?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        {"role": "user", "content": [{"type": "text", "text": "how many objects are there?"}]},
    ]
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert rendered == "USER: <image> is there any star? ASSISTANT: no USER: how many objects are there? ASSISTANT:"


def test_generate_answers_fresh_questions(model: LlavaForConditionalGeneration, processor: AutoProcessor) -> None:
    right = total = 0
    for picture in draw_album(seed=90210, pictures=10, questions=6):
        said = answers(model, processor, picture.image, picture.questions)
        right += sum(a == q.answer for a, q in zip(said, picture.questions, strict=True))
        total += len(picture.questions)
    assert total == 60
    assert right / total >= 0.9
