"""What the guiding CLIP makes of a text-to-image GAN while it trains; a judge is never asked."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from guided.core.images import grid, to_images
from guided.nets.text_gan import TextGenerator
from guided.scorers.clip import ClipScorer
from guided.training.text_gan_data import TextGanValidation

ROWS = 32
_TWINS = 16


@torch.no_grad()
def generated_images(generator: TextGenerator, z: Tensor, text: Tensor) -> Tensor:
    """Pictures [n, 3, S, S] in [0, 1], float32, on the CPU."""
    place = next(generator.parameters()).device
    made = [
        generator(some.to(place), told.to(place)).clamp(-1, 1).add(1).div(2).cpu()
        for some, told in zip(torch.split(z, ROWS), torch.split(text, ROWS), strict=True)
    ]
    return torch.cat(made)


@torch.no_grad()
def evaluate(
    generator: TextGenerator, scorer: ClipScorer, val_set: TextGanValidation
) -> dict[str, float]:
    """Figures of a generator on the monitor's own texts.

    ``match``: how often a picture fits its text better than the wrong one; ``cosine`` with its own
    text; ``kid``: squared distance of the pictures' features to those of real pictures;
    ``diversity``: mean difference of two pictures of one text; ``score`` = match - kid / kid of
    one grey picture, by which the best weights are kept.
    """
    stream = torch.Generator().manual_seed(0)
    count, twins = len(val_set.texts), min(_TWINS, len(val_set.texts))
    z = torch.randn(count + twins, generator.shape.latent, generator=stream)
    images = generated_images(generator, z[:count], val_set.texts)
    seen, real = embedded(scorer, images), embedded(scorer, val_set.images)
    again = generated_images(generator, z[count:], val_set.texts[:twins])
    grey = val_set.images.mean(0, keepdim=True)
    far = kid(embedded(scorer, grey).expand(count, -1), real)
    found = {
        "match": matched(seen, val_set),
        "cosine": float((seen * val_set.texts).sum(1).mean()),
        "kid": kid(seen, real),
        "diversity": float((images[:twins] - again).square().mean((1, 2, 3)).sqrt().mean()),
    }
    return {**found, "score": found["match"] - found["kid"] / far}


@torch.no_grad()
def bounds_of(scorer: ClipScorer, val_set: TextGanValidation) -> dict[str, tuple[float, float]]:
    """Floor and ceiling of ``match``, ``kid`` and ``cosine``: one grey picture, real pictures.

    The ceiling of kid compares one half of the real pictures with the other.
    """
    real = embedded(scorer, val_set.images)
    grey = embedded(scorer, val_set.images.mean(0, keepdim=True)).expand(len(real), -1)
    half = len(real) // 2
    return {
        "match": (0.5, matched(real, val_set)),
        "kid": (kid(grey, real), kid(real[:half], real[half:])),
        "cosine": (
            float((grey * val_set.texts).sum(1).mean()),
            float((real * val_set.texts).sum(1).mean()),
        ),
    }


def embedded(scorer: ClipScorer, images: Tensor) -> Tensor:
    """Unit features [n, D] on the CPU."""
    return torch.cat(
        [scorer.embed_images(part).float().cpu() for part in torch.split(images, ROWS)]
    )


def matched(seen: Tensor, val_set: TextGanValidation) -> float:
    """How often features [n, D] fit their own text better than the wrong one."""
    own, other = (seen * val_set.texts).sum(1), (seen * val_set.wrong).sum(1)
    return float((own > other).float().mean() + 0.5 * (own == other).float().mean())


def kid(some: Tensor, others: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of features [n, D], [m, D], kernel (x.y + 1)^3.

    Features are unit vectors.  Source: Binkowski et al. 2018 (kernel inception distance).
    """

    def inside(x: Tensor) -> Tensor:
        kernel = (x @ x.T + 1) ** 3
        rows = len(x)
        return (kernel.sum() - kernel.diagonal().sum()) / (rows * (rows - 1))

    a, b = some.double(), others.double()
    return float(inside(a) + inside(b) - 2 * ((a @ b.T + 1) ** 3).mean())


def sample_sheet(generator: TextGenerator, val_set: TextGanValidation, rows: int = 6) -> bytes:
    """A PNG: for each of some texts a real picture that it is true of, then four samples."""
    rows = min(rows, len(val_set.texts))
    stream = torch.Generator().manual_seed(1)
    z = torch.randn(4, generator.shape.latent, generator=stream).repeat(rows, 1)
    made = generated_images(generator, z, val_set.texts[:rows].repeat_interleave(4, 0))
    side = made.shape[-1]
    both = torch.cat([val_set.images[:rows, None], made.view(rows, 4, 3, side, side)], 1)
    buffer = io.BytesIO()
    sheet = grid(to_images(both.flatten(0, 1)), columns=5)
    sheet.quantize(256).save(buffer, "PNG", optimize=True)  # a third of the size
    return buffer.getvalue()
