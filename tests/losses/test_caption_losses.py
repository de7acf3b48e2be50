from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guided.core.language_model import TextCandidate
from guided.core.objective import BoundLoss, Candidate, Loss, LossContext
from guided.core.seeds import Seeds
from guided.errors import CannotDo
from guided.losses.fluency import Fluency
from guided.losses.word_clip import WordClip
from tests.helpers import caption_models

# Fixtures.
one_thread = caption_models.one_thread


class Fixed:
    """Cosines by token, the same for every row."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def cosines(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]


def bound(loss: Loss, table: Tensor) -> BoundLoss:
    start = Candidate({}, lambda latent: torch.zeros(1))
    return loss.bind(LossContext(None, (), start, models={"continuations": Fixed(table)}))


def draft(logits: Tensor, plain: Tensor | None = None) -> TextCandidate:
    plain = torch.zeros_like(logits) if plain is None else plain
    return TextCandidate(lambda: logits, plain.log_softmax(-1))


LOGITS = Seeds.of(0, 3).normal((8,), "logits")


def test_word_clip_is_the_cross_entropy_of_clips_choice() -> None:
    table = Seeds.of(1).uniform((8,), "cosines")[0]
    found = bound(WordClip(candidates=8, temperature=0.5), table)(draft(LOGITS))
    chosen = torch.softmax(table / 0.5, dim=0)
    expected = -(chosen * LOGITS.log_softmax(-1)).sum(-1)
    assert torch.allclose(found, expected, atol=1e-6)


def test_word_clip_looks_at_the_likeliest_tokens_only() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    table = torch.tensor([0.0, 0.1, 0.9, 0.9])
    found = bound(WordClip(candidates=2, temperature=0.1), table)(draft(logits))
    chosen = torch.softmax(torch.tensor([0.0, 1.0]), dim=0)
    spoken = logits.log_softmax(-1)[0, :2]
    assert float(found) == pytest.approx(-float((chosen * spoken).sum()))


def test_word_clip_draws_towards_what_clip_likes() -> None:
    logits = LOGITS.clone().requires_grad_()
    table = torch.zeros(8)
    table[5] = 0.3
    loss = bound(WordClip(candidates=8, temperature=0.05), table)(draft(logits))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert (gradient[:, 5] < 0).all()
    assert torch.allclose(gradient.sum(-1), torch.zeros(3), atol=1e-6)


def test_fluency_is_the_divergence() -> None:
    plain = Seeds.of(2, 3).normal((8,), "plain")
    found = bound(Fluency(), torch.zeros(8))(draft(LOGITS, plain))
    p, q = LOGITS.softmax(-1), plain.softmax(-1)
    assert torch.allclose(found, (p * (p / q).log()).sum(-1), atol=1e-6)
    assert torch.allclose(
        bound(Fluency(), torch.zeros(8))(draft(LOGITS, LOGITS)), torch.zeros(3), atol=1e-6
    )


@pytest.mark.parametrize("loss", [WordClip(candidates=4), Fluency()])
def test_underflow_is_no_nan(loss: Loss) -> None:
    """Probabilities that are zero in float32, on either side, give finite losses and gradients."""
    logits = torch.tensor([[0.0, -300.0, -400.0, 5.0]], requires_grad=True)
    plain = torch.tensor([[-500.0, 0.0, 200.0, -90.0]])
    value = bound(loss, torch.tensor([0.9, 0.1, 0.2, 0.3]))(draft(logits, plain))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert math.isfinite(float(value.detach()))
    assert bool(torch.isfinite(gradient).all())


def test_weights_add_up_and_names_are_kept() -> None:
    objective = 2.0 * WordClip(candidates=8) + 0.2 * Fluency()
    start = Candidate({}, lambda latent: torch.zeros(1))
    scene = LossContext(None, (), start, models={"continuations": Fixed(torch.zeros(8))})
    total, parts = objective.bind(scene, modalities=("text",))(draft(LOGITS))
    assert list(parts) == ["word_clip", "fluency"]
    assert torch.allclose(total, 2 * parts["word_clip"] + 0.2 * parts["fluency"])


def test_loops_without_words_and_scenes_without_scores_are_refused() -> None:
    start = Candidate({}, lambda latent: torch.zeros(1))
    with pytest.raises(CannotDo, match="'word_clip' looks at text, but this loop offers image"):
        (1.0 * WordClip()).bind(LossContext(None, (), start))
    with pytest.raises(CannotDo, match="needs a model in the role 'continuations'"):
        WordClip().bind(LossContext(None, (), start))


def test_with_a_prior_words_that_are_the_same_to_clip_keep_their_odds() -> None:
    plain = Seeds.of(5, 3).normal((8,), "plain")
    even = bound(WordClip(candidates=8, prior=1.0), torch.zeros(8))
    logits = plain.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(even(draft(logits, plain)).sum(), logits)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-6)
    drawn_together = bound(WordClip(candidates=8), torch.zeros(8))
    (gradient,) = torch.autograd.grad(drawn_together(draft(logits, plain)).sum(), logits)
    assert float(gradient.abs().max()) > 0.05


def test_a_prior_multiplies_clips_choice() -> None:
    plain = Seeds.of(6, 2).normal((8,), "plain")
    table = Seeds.of(1).uniform((8,), "cosines")[0]
    found = bound(WordClip(candidates=8, temperature=0.5, prior=0.7), table)(
        draft(LOGITS[:2], plain)
    )
    chosen = torch.softmax(table / 0.5 + 0.7 * plain.log_softmax(-1), dim=-1)
    assert torch.allclose(found, -(chosen * LOGITS[:2].log_softmax(-1)).sum(-1), atol=1e-6)


def test_with_a_prior_the_candidates_are_the_likeliest_without_guidance() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    plain = torch.tensor([[0.0, 1.0, 2.0, 3.5]])
    table = torch.tensor([0.9, 0.8, 0.1, 0.3])
    found = bound(WordClip(candidates=2, temperature=0.5, prior=0.7), table)(draft(logits, plain))
    chosen = torch.softmax(table[2:] / 0.5 + 0.7 * plain.log_softmax(-1)[0, 2:], dim=0)
    spoken = logits.log_softmax(-1)[0, 2:]
    assert float(found) == pytest.approx(-float((chosen * spoken).sum()))
