"""The encoder's losses: what each depth is asked for, and that it is asked for nothing else."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from embedded_model.config import FEATURE_DEPTH, HIDDEN, SHALLOW_LAYER, VISUAL_TOKENS
from embedded_model.model import build_model, encoder_states
from embedded_model.pixels import pixels_of
from embedded_model.scenes import MAX_THINGS, Split, seeded
from embedded_model.train.batches import PRESENT_SIZES, Labels, draw_scenes, labels_of
from embedded_model.train.heads import CLS_ASKED, Heads

PICTURES = 6
ASKED = [*PRESENT_SIZES, "count"]
SHALLOW, MIDDLE, DEEP = SHALLOW_LAYER + 1, 5, FEATURE_DEPTH


@pytest.fixture(scope="module")
def labels() -> Labels:
    return labels_of(draw_scenes(seeded(61), PICTURES, Split.TRAIN))


@pytest.fixture(scope="module")
def heads() -> Heads:
    torch.manual_seed(0)
    return Heads()


def pulls(heads: Heads, labels: Labels) -> list[Tensor]:
    """The gradients of the loss by each encoder state [pictures, 145, 128], for the same random states."""
    torch.manual_seed(1)
    states = [torch.randn(PICTURES, VISUAL_TOKENS + 1, HIDDEN, requires_grad=True) for _ in range(FEATURE_DEPTH + 1)]
    loss, _ = heads(states, labels)
    return list(torch.autograd.grad(loss, states, allow_unused=True, materialize_grads=True))


def other(labels: Labels, group: str) -> Labels:
    """Labels that differ in one group of what a picture shows."""
    if group == "count":
        return replace(labels, count=(labels.count + 1) % MAX_THINGS)
    present = labels.present.clone()
    part = torch.split(present, list(PRESENT_SIZES.values()), dim=1)[list(PRESENT_SIZES).index(group)]
    part.copy_(1 - part)  # a view
    return replace(labels, present=present)


@pytest.mark.parametrize("group", ASKED)
@pytest.mark.parametrize(
    ("depth", "asked"),
    [
        (SHALLOW, {"colors", "digits", "letters"}),
        (MIDDLE, set(ASKED)),
        (DEEP, {"pairs", "shapes", "colors", "count"}),
    ],
)
def test_cls_is_pulled_at_each_depth_by_what_is_asked_there_alone(
    heads: Heads, labels: Labels, depth: int, asked: set[str], group: str
) -> None:
    before, after = pulls(heads, labels)[depth], pulls(heads, other(labels, group))[depth]
    assert (before[:, 0] != 0).any()
    assert torch.equal(before[:, 0], after[:, 0]) is (group not in asked)
    assert torch.equal(before[:, 1:], after[:, 1:])  # patches are not pulled by what the picture shows


def test_other_depths_and_patches_of_other_layers_are_left_alone(heads: Heads, labels: Labels) -> None:
    gradients = pulls(heads, labels)
    assert set(CLS_ASKED) == {SHALLOW, MIDDLE, DEEP}
    for depth, gradient in enumerate(gradients):
        assert (gradient[:, 0] != 0).any().item() is (depth in CLS_ASKED)
        assert (gradient[:, 1:] != 0).any().item() is (depth == FEATURE_DEPTH)


def test_patch_labels_pull_patches_alone(heads: Heads, labels: Labels) -> None:
    before = pulls(heads, labels)[DEEP]
    turned = replace(labels, patch=labels.patch.flip(0), kind=labels.kind.flip(0), center=labels.center.flip(0))
    after = pulls(heads, turned)[DEEP]
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1:], after[:, 1:])


def test_loss_reaches_every_layer_that_llava_reads() -> None:
    torch.manual_seed(0)
    model, heads = build_model(), Heads()
    scenes = draw_scenes(seeded(62), 2, Split.TRAIN)
    loss, right = heads(encoder_states(model, pixels_of(scenes)), labels_of(scenes))
    loss.backward()
    tower = model.model.vision_tower
    for number, layer in enumerate(tower.encoder.layers):
        pulled = [parameter.grad is not None for parameter in layer.parameters()]
        assert pulled == [number < FEATURE_DEPTH] * len(pulled)
    assert set(right) == {"shape", "color", "size", "digit", "row", "col", "letter", "kind", "center"}
