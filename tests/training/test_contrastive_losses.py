from __future__ import annotations

import math

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn import functional

from guided.errors import ShapeError
from guided.training.contrastive_losses import (
    balanced_sigmoid_loss,
    pair_logits,
    sigmoid_loss,
    softmax_loss,
)
from guided.worlds.portraits.training.truth_losses import level


def features(rows: int, seed: int, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, width, generator=generator).double(), dim=1)


SCALE = torch.tensor(math.log(10.0), dtype=torch.float64)
BIAS = torch.tensor(-4.0, dtype=torch.float64)


@pytest.mark.parametrize("bias", [None, BIAS])
def test_softmax_loss_is_open_clips(bias: Tensor | None) -> None:
    images, texts = features(6, 0), features(6, 1)
    expected = ClipLoss()(images, texts, SCALE.exp(), bias)
    torch.testing.assert_close(softmax_loss(images, texts, SCALE, bias=bias), expected)


def test_sigmoid_loss_is_open_clips() -> None:
    images, texts = features(6, 0), features(6, 1)
    expected = SigLipLoss()(images, texts, SCALE.exp(), BIAS)
    torch.testing.assert_close(sigmoid_loss(images, texts, SCALE, BIAS), expected)


def test_the_identity_is_the_default_target() -> None:
    images, texts = features(4, 0), features(4, 1)
    eye = torch.eye(4)
    for loss in (
        lambda t: softmax_loss(images, texts, SCALE, targets=t),
        lambda t: sigmoid_loss(images, texts, SCALE, BIAS, targets=t),
    ):
        torch.testing.assert_close(loss(None), loss(eye))


def test_ignored_pairs_count_neither_for_nor_against() -> None:
    images, texts = features(4, 0), features(4, 1)
    targets = torch.eye(4)
    ignored = torch.zeros(4, 4, dtype=torch.bool)
    ignored[0, 1:] = ignored[1:, 0] = True
    for loss in (
        lambda i, t, y, g: softmax_loss(i, t, SCALE, targets=y, ignored=g),
        lambda i, t, y, g: sigmoid_loss(i, t, SCALE, BIAS, targets=y, ignored=g) * len(i),
        lambda i, t, y, g: balanced_sigmoid_loss(i, t, SCALE, BIAS, y, g) * len(i),
    ):
        nobody = torch.zeros(4, 4, dtype=torch.bool)
        torch.testing.assert_close(
            loss(images, texts, targets, nobody), loss(images, texts, targets, None)
        )
        rest = loss(images[1:], texts[1:], targets[1:, 1:], None)
        alone = loss(images[:1], texts[:1], targets[:1, :1], None)
        joined = loss(images, texts, targets, ignored)
        parts = (3 * rest + alone) / 4 if float(alone) == 0 else rest + alone
        torch.testing.assert_close(joined, parts)


def test_two_equal_captions_share_their_target() -> None:
    texts = features(3, 1)
    texts[1] = texts[0]
    targets = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    perfect = softmax_loss(texts, texts, torch.tensor(9.0).double(), targets=targets)
    assert float(perfect) == pytest.approx(2 / 3 * math.log(2), abs=1e-3)


def test_a_text_that_is_true_of_no_image_does_not_count() -> None:
    images, texts = features(3, 0), features(4, 1)
    targets = torch.eye(3, 4)
    logits = pair_logits(images, texts, SCALE)
    labels = torch.arange(3)
    expected = functional.cross_entropy(logits, labels) / 2
    expected = expected + functional.cross_entropy(logits.T[:3], labels) / 2
    torch.testing.assert_close(softmax_loss(images, texts, SCALE, targets=targets), expected)


@pytest.mark.parametrize("rows", [(3, 3), (3, 5)])
def test_gradients(rows: tuple[int, int]) -> None:
    images = features(rows[0], 0).requires_grad_(True)
    texts = features(rows[1], 1).requires_grad_(True)
    scale, bias = SCALE.clone().requires_grad_(True), BIAS.clone().requires_grad_(True)
    targets = (torch.rand(rows, generator=torch.Generator().manual_seed(2)) > 0.5).double()
    targets[0] = 1
    for loss in (
        lambda i, t, s, b: softmax_loss(i, t, s, bias=b, targets=targets),
        lambda i, t, s, b: sigmoid_loss(i, t, s, b, targets=targets),
        lambda i, t, s, b: balanced_sigmoid_loss(i, t, s, b, targets),
    ):
        assert torch.autograd.gradcheck(loss, (images, texts, scale, bias))


def test_balanced_sigmoid_weighs_true_and_false_alike() -> None:
    images, texts = features(8, 0), features(1, 1)
    targets = torch.zeros(8, 1)
    targets[0] = 1
    logits = pair_logits(images, texts, SCALE, BIAS)[:, 0]
    expected = -functional.logsigmoid(logits[0]) - functional.logsigmoid(-logits[1:]).mean()
    loss = balanced_sigmoid_loss(images, texts, SCALE, BIAS, targets)
    torch.testing.assert_close(loss, expected)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"texts must have the shape \[m, 5\]"):
        pair_logits(features(2, 0), features(2, 1, width=4), SCALE)
    with pytest.raises(ShapeError, match="3 images and 2 texts do not pair up"):
        softmax_loss(features(3, 0), features(2, 1), SCALE)
    with pytest.raises(ShapeError, match=r"targets must have the shape \[2, 2\]"):
        softmax_loss(features(2, 0), features(2, 1), SCALE, targets=torch.eye(3))


def test_what_is_ignored_is_drawn_to_the_level_of_what_is_false() -> None:
    logits = torch.tensor([[9.0, -8.0], [1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    true = torch.tensor([[True, False], [False, False], [False, False]])
    ignored = torch.tensor([[False, True], [False, False], [False, False]])
    loss = level(logits, true, ignored)
    assert float(loss.detach()) == pytest.approx(3 + 8 - 0.5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, -1.0], [0.0, 0.0], [0.0, 0.0]]
    assert float(level(logits, true, torch.zeros_like(true)).detach()) == 0
