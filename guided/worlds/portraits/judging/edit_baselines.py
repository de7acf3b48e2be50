"""What edits are compared with: the renderer, the world's own latents, directions from labels.

They know the truth that no method knows, so they bound what a method can reach.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from guided.core.delta import Delta
from guided.core.protocols import Latent
from guided.core.seeds import Seeds
from guided.errors import CannotDo
from guided.generators.stylegan2 import StyleGan2
from guided.guidance.edit import redraw
from guided.worlds.portraits import KEYS, VALUES, Portrait
from guided.worlds.portraits.judging.edit_cases import Case, Edit
from guided.worlds.portraits.judging.edit_figures import Batch, EditedBatch
from guided.worlds.portraits.training.latent_world import LATENT, conditional, facts, geometry_of
from guided.worlds.portraits.training.world_data import codes_of

#: Random latents whose labels give the regressed directions.
LABELLED = 16_384


def no_edit(batch: Batch) -> EditedBatch:
    """The reconstruction at every strength."""
    return EditedBatch(lambda strength: batch.before)


def rendered(batch: Batch) -> EditedBatch:
    """The renderer's own answer, compared with the source: no generator takes part."""
    perfect = torch.stack([case.perfect(batch.size)[0] for case in batch.cases]).to(batch.images)
    return EditedBatch(
        lambda strength: batch.images + strength * (perfect - batch.images), batch.images
    )


def through_world(generator: StyleGan2, batch: Batch) -> EditedBatch:
    """What the generator draws of the world's own z of the source and of the perfect edit.

    Raises:
        CannotDo: a generator that was not trained on the world as a function of z.
    """
    start = world_codes(generator, [case.source for case in batch.cases], batch.cases)
    end = world_codes(generator, [case.truths[0] for case in batch.cases], batch.cases)
    delta = Delta.between(start, end, "world")
    return EditedBatch(
        lambda strength: redraw(generator, delta, strength), redraw(generator, delta, 0.0)
    )


def world_codes(generator: StyleGan2, people: Sequence[Portrait], cases: Sequence[Case]) -> Latent:
    """W+ codes of portraits as the world's z says them; of one case always with the same luck.

    Raises:
        CannotDo: a z of another size than the world's.
    """
    _expect_world(generator)
    z = np.concatenate(
        [
            conditional(
                np.array([codes_of(person)]), geometry_of(person)[None],
                np.random.default_rng([case.seed, 41]),
            )
            for person, case in zip(people, cases, strict=True)
        ]
    )  # fmt: skip
    styles = _styles(generator, torch.from_numpy(z).float())
    return {"w": generator.net.spread(styles).contiguous()}


def label_direction(generator: StyleGan2, edit: Edit) -> Tensor:
    """The change [rows, style] of W+ that least squares give for an edit's labels.

    The slope of w by whether a random portrait has the value, over ``LABELLED`` latents whose
    facts are known; of several changes the sum.

    Raises:
        CannotDo: a generator whose latents have no known facts.
    """
    _expect_world(generator)
    z = Seeds.of(0).normal((LABELLED, LATENT), "edit benchmark/labels")[0]
    codes = torch.from_numpy(facts(z.double().numpy())[0].astype(np.int64))
    w = _styles(generator, z)
    change = torch.zeros_like(w[0])
    for key, value in edit.changes:
        has = (codes[:, KEYS.index(key)] == VALUES[key].index(value)).to(w.device)
        change += w[has].mean(0) - w[~has].mean(0)
    return generator.net.spread(change[None])[0].contiguous()


def along(generator: StyleGan2, batch: Batch, change: Tensor, method: str) -> EditedBatch:
    """The reconstruction's codes moved by one change [rows, style]."""
    codes = generator.in_space(batch.codes, "w")
    delta = Delta(codes, {"w": change[None].expand_as(codes["w"])}, method)
    return EditedBatch(lambda strength: redraw(generator, delta, strength))


def _expect_world(generator: StyleGan2) -> None:
    if generator.net.shape.latent != LATENT:
        raise CannotDo(
            f"The generator {generator.name!r} has a z of {generator.net.shape.latent} numbers: it "
            f"does not draw the world from its z, which has {LATENT}."
        )


@torch.no_grad()
def _styles(generator: StyleGan2, z: Tensor) -> Tensor:
    """Style vectors [n, style], float32, of z [n, latent]."""
    place = generator.device
    return generator.net.mapping(z.to(place.torch, place.dtype)).float()
