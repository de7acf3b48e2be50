"""What holds of every loss there is, and of one from outside the package."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.loss_registry import LOSSES, declared
from guided.core.objective import BoundLoss, BoundObjective, Loss
from guided.core.plugins import class_name
from guided.guidance.optimise import optimise
from guided.guidance.updates import adam
from tests.generic.toys import (
    SIDE,
    VOCABULARY,
    image_draft,
    image_scene,
    noise,
    text_draft,
    text_scene,
)  # fmt: skip

OUTSIDE = "tests.generic.outside:Warm"
KINDS = [*LOSSES.files(), OUTSIDE]
#: What a loss's own definition asks for, where its defaults do not stand by themselves.
CHANGES: dict[str, dict[str, Any]] = {"word_clip": {"candidates": 8, "temperature": 0.5}}


def made(kind: str) -> Loss:
    return LOSSES.load(kind)(**CHANGES.get(kind, {}))


def leaf_of(kind: str, seed: int) -> Tensor:
    return (
        noise(seed, 4, VOCABULARY) if made(kind).modality == "text"
        else noise(seed, 4, 3, SIDE, SIDE)
    )  # fmt: skip


def bound(kind: str, start: Tensor, rows: slice = slice(None)) -> BoundLoss:
    scene = text_scene(start) if made(kind).modality == "text" else image_scene(start, rows)
    return made(kind).bind(scene)


def draft(kind: str, x: Tensor) -> Any:
    return text_draft(x) if made(kind).modality == "text" else image_draft(x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_one_number_a_row_and_rows_do_not_mix(kind: str) -> None:
    start, x = leaf_of(kind, 20), leaf_of(kind, 21)
    together = bound(kind, start)(draft(kind, x))
    assert together.shape == (4,)
    assert torch.isfinite(together).all()
    if made(kind).modality == "text":  # plain logits differ by row, so leave out the rows behind
        one = bound(kind, start[:2])(draft(kind, x[:2]))
        torch.testing.assert_close(together[:2], one, rtol=1e-5, atol=1e-6)
        return
    for row in range(4):
        rows = slice(row, row + 1)
        alone = bound(kind, start[rows], rows)(draft(kind, x[rows]))
        torch.testing.assert_close(together[rows], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["elsewhere", "at the start", "flat", "far out"])
def test_its_gradient_is_finite_also_where_it_is_degenerate(kind: str, where: str) -> None:
    start = leaf_of(kind, 22)
    x = {"elsewhere": leaf_of(kind, 23), "at the start": start.clone(),
         "flat": torch.zeros_like(start), "far out": 60 * leaf_of(kind, 24)}[where]  # fmt: skip
    x = x.requires_grad_()
    total = bound(kind, start)(draft(kind, x))
    (gradient,) = torch.autograd.grad(total.sum(), x)
    assert torch.isfinite(total).all()
    assert torch.isfinite(gradient).all()
    if where == "elsewhere":
        assert bool(gradient.flatten(1).any(1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_down_in_the_one_loop(kind: str) -> None:
    start, x = leaf_of(kind, 25), leaf_of(kind, 26)
    objective = BoundObjective((kind,), (bound(kind, start),), (1.0,))
    moves = optimise({"x": x}, lambda leaves, _: draft(kind, leaves["x"]), objective, adam(0.05), 8)
    values = [step.losses[kind] for step in moves]
    assert values[-1] < values[0] - 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_it_declares_what_it_looks_at_and_needs(kind: str) -> None:
    loss = LOSSES.load(kind)
    own = declared(kind)  # read from the file, where it is one of the package
    assert (own.modality, own.needs) == (loss.modality, loss.needs)
    assert loss.modality in ("image", "latent", "text")


@pytest.mark.parametrize("kind", KINDS)
def test_it_asks_for_no_model_that_it_does_not_declare(kind: str) -> None:
    """And misses each that it does declare."""
    start = leaf_of(kind, 27)
    full = text_scene(start) if made(kind).modality == "text" else image_scene(start, slice(None))
    needs = made(kind).needs
    scorer = full.scorer if "scorer" in needs else None
    models = {role: model for role, model in full.models.items() if role in needs}
    scene = type(full)(scorer, full.prompts, full.start, models, full.extras)
    assert made(kind).bind(scene)(draft(kind, leaf_of(kind, 28))).shape == (4,)
    bare = type(full)(None, full.prompts, full.start, {}, full.extras)
    if needs:
        with pytest.raises(Exception, match=f"{made(kind).kind!r} needs a"):
            made(kind).bind(bare)


@pytest.mark.parametrize("kind", KINDS)
def test_its_words_name_a_term_and_help_with_every_field(kind: str) -> None:
    loss = LOSSES.load(kind)
    text = inspect.getdoc(loss) or ""
    first = text.splitlines()[0]
    assert any(sign in first for sign in ("cos", "KL", "|", "ean", "ntropy", "istance")), first
    for each in fields(loss):
        assert f"``{each.name}``" in text, each.name
        assert each.default is not MISSING or each.default_factory is not MISSING
    if kind in LOSSES.files():
        module = inspect.getmodule(loss)
        assert module is not None
        assert len((module.__doc__ or "").splitlines()[0]) < 100
        assert (LOSSES.folder / f"{kind}.py").is_file()
        assert loss.__name__ == class_name(kind)
        assert loss().kind == kind  # its defaults stand, and its class has its file's name
