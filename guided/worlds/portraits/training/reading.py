"""What a reader's answers are worth: guesses, accuracy of what is visible, trivial floors."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from guided.nets.reader import ReaderNet
from guided.worlds.portraits import KEYS, VALUES

#: Classes of each attribute, in the order of ``KEYS``.
CLASSES = tuple(len(VALUES[key]) for key in KEYS)
_STEADY = 0.05


def guess(model: nn.Module, images: Tensor) -> np.ndarray:
    """The likeliest code of each attribute, [n, 13] uint8, of images [n, 3, 128, 128]."""
    logits = torch.split(model(images).float(), list(CLASSES), dim=1)
    codes = torch.stack([part.argmax(1) for part in logits], dim=1)
    return codes.cpu().numpy().astype(np.uint8)


def accuracies(guesses: np.ndarray, codes: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """The share of right guesses of each attribute among the rows [n, 13] that show it.

    An attribute that no row shows is left out.
    """
    right = guesses == codes
    return {
        key: float(right[visible[:, column], column].mean())
        for column, key in enumerate(KEYS)
        if visible[:, column].any()
    }


def floors(codes: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """What always answering each attribute's most frequent value of these rows would reach.

    An attribute that no row shows is left out.
    """
    shown = {key: codes[visible[:, column], column] for column, key in enumerate(KEYS)}
    return {key: float(np.bincount(v).max() / len(v)) for key, v in shown.items() if len(v)}


@torch.no_grad()
def fit_domain(model: ReaderNet, batches: Any) -> None:
    """Learn from training images (batches [n, 3, 128, 128]) what a drawn portrait looks like.

    Sets the buffers ``domain_*`` of the model: mean and whitening of its pooled features (the
    covariance shrunk towards its diagonal's mean), and the distance that one image in a thousand
    exceeds, times 1.2.
    """
    pooled = torch.cat([model.pooled(model.maps(images)).float().cpu() for images in batches])
    mean = pooled.mean(0)
    centred = (pooled - mean).double()
    covariance = centred.T @ centred / (len(centred) - 1)
    ridge = _STEADY * covariance.diagonal().mean() + 1e-12
    values, vectors = torch.linalg.eigh(covariance)
    whiten = vectors @ torch.diag((values.clamp(min=0) + ridge).rsqrt()) @ vectors.T
    device = model.domain_mean.device
    model.domain_mean = mean.to(device)
    model.domain_whiten = whiten.float().to(device)
    distances = (centred.float() @ whiten.float()).square().mean(1).sqrt()
    model.domain_limit = 1.2 * torch.quantile(distances, 0.999).to(device)


def architecture(model: ReaderNet) -> dict[str, Any]:
    """The numbers that ``ReaderNet`` needs besides the classes, as plain values."""
    entry = cast(nn.Conv2d, model.head[0])
    return {
        "widths": list(model.widths),
        "blocks": [len(cast(nn.Sequential, stage)) - 1 for stage in model.stages],
        "head": entry.out_channels,
        "features": model.hidden.out_features,
    }
