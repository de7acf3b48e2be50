"""What batches of known truth add to a training: near misses and named attributes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.worlds.portraits.attributes import KEYS, VALUES

#: How many values each attribute has, in the order of ``KEYS``, and all of them.
SIZES = [len(VALUES[key]) for key in KEYS]
FACTS = sum(SIZES)


def near_miss(own: Tensor, miss: Tensor) -> Tensor:
    """-log sigmoid(own - miss), averaged []: each picture prefers its caption to the near miss.

    ``own`` and ``miss`` [n] are scaled cosines; without any the loss is 0.
    """
    return F.softplus(miss - own).mean() if len(own) else own.sum()


def masked_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy [] over rows whose ``target`` [B] is not negative; 0 when there is none."""
    if bool((target < 0).all()):
        return logits.sum() * 0
    loss: Tensor = F.cross_entropy(logits, target.clamp_min(0), reduction="none")
    keep = (target >= 0).to(loss.dtype)
    return (loss * keep).sum() / keep.sum()


def facts_apart(logits: Tensor, truth: Tensor) -> Tensor:
    """The mean over attributes of the cross-entropy [] of logits [n, FACTS], one value after the
    other, and codes ``truth`` [n, 13], which are negative where nobody knows.
    """
    each = torch.split(logits.float(), SIZES, 1)
    return torch.stack([masked_cross_entropy(x, truth[:, i]) for i, x in enumerate(each)]).mean()


def level(logits: Tensor, true: Tensor, ignored: Tensor) -> Tensor:
    """How far ignored pairs lie from the mean of a text's false pairs []: Huber's loss of logits.

    What counts neither for nor against a text should look like anything else that is false of it,
    not worse: logits [B, N], ``true`` and ``ignored`` bool [B, N].  0 where nothing is ignored.
    """
    false = ~true & ~ignored
    some = ignored & false.any(0)
    if not bool(some.any()):
        return logits.sum() * 0
    mean = (logits.detach() * false).sum(0) / false.sum(0).clamp_min(1)
    return F.smooth_l1_loss(logits[some], mean.expand_as(logits)[some])
