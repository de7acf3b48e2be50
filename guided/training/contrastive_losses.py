"""Contrastive losses that a CLIP is trained with: softmax and sigmoid, with targets.

All take features as given (unit vectors, as a rule), ``log_scale`` (the scale is its exponential)
and return one number.  ``targets`` [N, M] says which image i and text j belong together: 1 or 0,
or any weight from 0 up; without it image i belongs to text i alone.  Pairs that are ``ignored``
[N, M] (bool, never a positive) count neither for nor against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from guided.core.shapes import expect
from guided.errors import ShapeError


def pair_logits(
    images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor | None = None
) -> Tensor:
    """exp(log_scale) * images @ texts.T + bias, [N, M], of features [N, D] and [M, D].

    Raises:
        ShapeError: features of different widths.
    """
    width = expect(images, "n d", "images")["d"]
    expect(texts, f"m {width}", "texts")
    logits = log_scale.exp() * images @ texts.T
    return logits if bias is None else logits + bias


def _checked(targets: Tensor | None, logits: Tensor) -> Tensor:
    rows, columns = logits.shape
    if targets is None:
        if rows != columns:
            raise ShapeError(
                f"{rows} images and {columns} texts do not pair up one to one.",
                hint="Give targets [N, M] that say what belongs together.",
            )
        return torch.eye(rows, dtype=logits.dtype, device=logits.device)
    expect(targets, f"{rows} {columns}", "targets")
    return targets.to(logits.dtype)


def _kept(ignored: Tensor | None, wanted: Tensor) -> Tensor:
    """Weights [N, M]: 1 of pairs that count, 0 of those that do not."""
    if ignored is None:
        return torch.ones_like(wanted)
    rows, columns = wanted.shape
    expect(ignored, f"{rows} {columns}", "ignored")
    return (~ignored).to(wanted.dtype)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the rows with a positive of the cross entropy to the row's share of targets."""
    mass = targets.sum(dim=1)
    share = targets / mass.clamp_min(torch.finfo(logits.dtype).tiny)[:, None]
    rows = -(share * functional.log_softmax(logits, dim=1)).sum(dim=1)
    used = mass > 0
    return torch.where(used, rows, torch.zeros_like(rows)).sum() / used.sum().clamp_min(1)


def softmax_loss(
    images: Tensor,
    texts: Tensor,
    log_scale: Tensor,
    *,
    bias: Tensor | None = None,
    targets: Tensor | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """The symmetric cross entropy of a batch, with several positives a row where targets say so.

    Half the mean over images of the cross entropy among texts, plus half of the other way round.
    A row's targets are normalised to sum to 1; a row without a positive does not count.

    Raises:
        ShapeError: shapes that do not fit.

    Source: Radford et al. 2021, figure 3; several positives as in Khosla et al. 2020, eq. 2.
    """
    logits = pair_logits(images, texts, log_scale, bias)
    wanted = _checked(targets, logits)
    if ignored is not None:
        expect(ignored, f"{len(images)} {len(texts)}", "ignored")
        logits = logits.masked_fill(ignored, torch.finfo(logits.dtype).min / 2)
    return (_cross_entropy(logits, wanted) + _cross_entropy(logits.T, wanted.T)) / 2


def sigmoid_loss(
    images: Tensor,
    texts: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    targets: Tensor | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """The SigLIP loss: each pair alone is true or false; the sum over pairs per image.

    -1/N sum_ij [t log sigmoid(z) + (1 - t) log sigmoid(-z)] with z = exp(log_scale) x.y + bias.

    Raises:
        ShapeError: shapes that do not fit.

    Source: Zhai et al. 2023, eq. 1.
    """
    logits = pair_logits(images, texts, log_scale, bias)
    wanted = _checked(targets, logits)
    total = functional.binary_cross_entropy_with_logits(
        logits, wanted, weight=_kept(ignored, wanted), reduction="sum"
    )
    return total / len(images)


def balanced_sigmoid_loss(
    images: Tensor,
    texts: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    targets: Tensor,
    ignored: Tensor | None = None,
) -> Tensor:
    """As ``sigmoid_loss``, but for each text the mean over true plus the mean over false images.

    With truth-labelled batches a short text is true of many images and a long one of few; this
    keeps either side from drowning the other.  A text without one of the sides has only the other.

    Raises:
        ShapeError: shapes that do not fit.
    """
    logits = pair_logits(images, texts, log_scale, bias)
    wanted = _checked(targets, logits)
    pairs = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    true = (pairs * wanted).sum(0) / wanted.sum(0).clamp_min(1)
    unwanted = (1 - wanted) * _kept(ignored, wanted)
    false = (pairs * unwanted).sum(0) / unwanted.sum(0).clamp_min(1)
    return (true + false).mean()


def hit_rate(logits: Tensor, true: Tensor) -> Tensor:
    """The share [] of rows of logits [B, N] whose best column is true; rows without one are out."""
    some = true.any(1)
    best = logits.argmax(1, keepdim=True)
    hits = true.gather(1, best)[:, 0] & some
    return hits.sum() / some.sum().clamp_min(1).to(torch.float32)
