"""Distances between sets of images in any feature space: FID, KID, precision and recall.

Any function from images to features will do: ``scorer.embed_images`` of a CLIP (KID over CLIP
features is called CMMD), or a network of the user's own.  Values over different extractors, or of
different numbers of images, say nothing about each other: name both beside a value, and print the
floor, which is the distance between two halves of the reference (``compare``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from guided.errors import ShapeError

#: Images [B, 3, H, W] in [0, 1] to features [B, F].
Extractor = Callable[[Tensor], Tensor]


def extract(images: Iterable[Tensor], extractor: Extractor) -> Tensor:
    """The features [N, F], float64 on the CPU, of batches [B, 3, H, W] in [0, 1].

    Raises:
        ShapeError: no images, or features that are not one finite row an image.
    """
    rows = []
    for batch in images:
        with torch.no_grad():
            features = extractor(batch)
        if features.ndim != 2 or len(features) != len(batch) or not features.isfinite().all():
            raise ShapeError(
                f"An extractor gives one finite row of features an image, [{len(batch)}, F], not "
                f"{list(features.shape)}."
            )
        rows.append(features.double().cpu())
    if not rows:
        raise ShapeError("A distance needs images; there are none.")
    return torch.cat(rows)


def _check(first: Tensor, second: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    fits = first.ndim == second.ndim == 2 and first.shape[1] == second.shape[1]
    if not fits or min(len(first), len(second)) < least:
        raise ShapeError(
            f"A distance takes two sets of {least} or more features of one width, not "
            f"{list(first.shape)} and {list(second.shape)}."
        )
    return first.double(), second.double()


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The Frechet distance of Gaussians fitted to features [N, F] and [M, F] (FID); 0 is best.

    |mean difference|^2 + tr(S + T - 2 (S T)^(1/2)) with unbiased covariances S and T.  The trace of
    the root is the sum of the singular values of R Q^T, where S = R^T R and T = Q^T Q: exact also
    where there are fewer rows than columns.  It shrinks with more rows, so compare equal numbers.
    Source: Heusel et al. 2017 (arXiv 1706.08500), eq. 6; Dowson and Landau 1982.

    Raises:
        ShapeError: fewer than two rows in either, or other widths.
    """
    x, y = _check(first, second)
    means = x.mean(0), y.mean(0)
    roots = [
        torch.linalg.qr((rows - mean) / (len(rows) - 1) ** 0.5, mode="r").R
        for rows, mean in zip((x, y), means, strict=True)
    ]
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    spread = roots[0].square().sum() + roots[1].square().sum() - 2 * overlap
    return max(0.0, float((means[0] - means[1]).square().sum() + spread))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """The unbiased squared kernel distance of features [N, F] and [M, F] (KID).

    0 in the mean where both come from one distribution, so a single value may be below 0.
    Source: Binkowski et al. 2018 (KID, arXiv 1801.01401), eq. 4, kernel (x.y / F + 1)^3.

    Raises:
        ShapeError: fewer than two rows in either, or other widths.
    """
    x, y = _check(first, second)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def precision_recall(made: Tensor, real: Tensor, neighbors: int = 3) -> tuple[float, float]:
    """Precision and recall of made features [N, F] against real ones [M, F], each in [0, 1].

    Precision is the share of made rows within the reach of a real one, recall the share of real
    rows within the reach of a made one; a row reaches to the ``neighbors``-th nearest of its set.
    Source: Kynkaanniemi et al. 2019 (arXiv 1904.06991), section 2.

    Raises:
        ShapeError: ``neighbors`` rows or fewer in either, or other widths.
    """
    x, y = _check(made, real, neighbors + 1)

    def covered(rows: Tensor, by: Tensor) -> float:
        reach = torch.cdist(by, by).kthvalue(neighbors + 1, dim=1).values
        return float((torch.cdist(rows, by) <= reach).any(1).double().mean())

    return covered(x, y), covered(y, x)


@dataclass(frozen=True)
class Distances:
    """Distances of ``count`` made images from real ones; ``floor_*`` are those of real halves."""

    fid: float
    kid: float
    precision: float
    recall: float
    floor_fid: float
    floor_kid: float
    count: int

    def data(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


def compare(made: Tensor, real: Tensor, neighbors: int = 3) -> Distances:
    """All distances of made features [N, F] from real ones [M, F], beside their floor.

    Equal numbers are compared, half of the real ones at most: the other half gives the floor.

    Raises:
        ShapeError: too few rows, or other widths.
    """
    _check(made, real, 2 * (neighbors + 1))
    count = min(len(made), len(real) // 2)
    rows, half, other = made[:count], real[:count], real[count : 2 * count]
    precision, recall = precision_recall(rows, half, neighbors)
    return Distances(
        frechet_distance(rows, half), kernel_distance(rows, half), precision, recall,
        frechet_distance(other, half), kernel_distance(other, half), count,
    )  # fmt: skip
