"""Portraits of the same and of other people, and what an identity embedder makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from guided.worlds.portraits import KEYS, VALUES, Portrait, draw, sample
from guided.worlds.portraits.attributes import TRAITS
from guided.worlds.portraits.splits import Split, held_out_pairs_of

Embed = Callable[[Tensor], Tensor]
#: Standard deviation of a trait: half a standard normal number, cut off at one.
SPREAD = 0.4797
#: Traits that say how a person stands in the picture, and those of hair and body; the others are
#: the face.
POSE = ("tilt", "shift_x", "shift_y", "gaze", "light")
BODY = ("shoulder", "neck", "hair_volume", "parting")
FACE = torch.tensor([name not in POSE + BODY for name in TRAITS])


def traits_of(portrait: Portrait) -> np.ndarray:
    """A portrait's geometry [24] float32, each trait with variance 1 over the world."""
    numbers = [portrait.geometry[name] / SPREAD for name in TRAITS]
    return np.asarray(numbers, dtype=np.float32)


def trait_weights(pose: float, body: float) -> Tensor:
    """How much each trait counts [24]: 1 for the face."""
    table = {**dict.fromkeys(POSE, pose), **dict.fromkeys(BODY, body)}
    return torch.tensor([table.get(name, 1.0) for name in TRAITS])


def redressed(person: Portrait, other: Portrait) -> Portrait:
    """The person with all attributes of another portrait."""
    return replace(other, geometry=person.geometry)


def changed(person: Portrait, key: str, stream: np.random.Generator) -> Portrait | None:
    """The person with another value of one attribute; None where no other value can be seen.

    A portrait that shows no held-out pair gets a value that makes none.
    """
    values = [str(v) for v in stream.permutation(VALUES[key]) if v != person.attributes[key]]
    clean = not held_out_pairs_of(person.attributes)
    if key == "hat_color":
        values = [v for v in values if v != person.attributes["clothing"]]
    for value in values:
        other = person.with_attribute(key, value)
        seen = person.visible()[key] or other.visible()[key]
        if seen and not (clean and held_out_pairs_of(other.attributes)):
            return other
    return None


@dataclass(frozen=True)
class People:
    """Drawn pictures of ``count`` people, uint8 [count, 3, size, size] each.

    ``traits`` [count, 24] are their whitened geometries; ``plain`` is each as sampled; ``others``
    in another portrait's attributes; ``twins`` are other people in the attributes of ``plain``;
    ``edits`` has for each attribute the people whose value was changed (their rows in ``plain``)
    and their pictures.
    """

    traits: Tensor
    plain: Tensor
    others: Tensor
    twins: Tensor
    edits: dict[str, tuple[Tensor, Tensor]]


def drawn(portraits: Sequence[Portrait], size: int) -> Tensor:
    """Pictures [n, 3, size, size] uint8."""
    arrays = [np.asarray(draw(portrait, size)) for portrait in portraits]
    stacked = np.stack(arrays) if arrays else np.empty((0, size, size, 3), np.uint8)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def people(split: Split, first: int, count: int, size: int, keys: Sequence[str] = KEYS) -> People:
    """The people of world seeds ``first`` ... of a split, with one change for each of ``keys``."""
    stream = np.random.default_rng([first, count])
    plain = [sample(first + i, split) for i in range(count)]
    strangers = [sample(first + count + i, split) for i in range(count)]
    edits: dict[str, tuple[Tensor, Tensor]] = {}
    for key in keys:
        pairs = [(i, changed(person, key, stream)) for i, person in enumerate(plain)]
        found = [(i, other) for i, other in pairs if other is not None]
        rows = torch.tensor([i for i, _ in found], dtype=torch.int64)
        edits[key] = rows, drawn([other for _, other in found], size)
    return People(
        traits=torch.from_numpy(np.stack([traits_of(person) for person in plain])),
        plain=drawn(plain, size),
        others=drawn([redressed(a, b) for a, b in zip(plain, strangers, strict=True)], size),
        twins=drawn([redressed(b, a) for a, b in zip(plain, strangers, strict=True)], size),
        edits=edits,
    )


def auc(same: Tensor, different: Tensor) -> float:
    """The chance that a pair of one person scores above a pair of two; ties count half.

    >>> auc(torch.tensor([0.9, 0.5]), torch.tensor([0.5, 0.1]))
    0.875
    """
    above = (same[:, None] > different[None]).double().mean()
    ties = (same[:, None] == different[None]).double().mean()
    return float(above + ties / 2)


@torch.no_grad()
def verification(embed: Embed, shown: People, worn: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Figures of an embedder on people: ``worn`` turns uint8 pictures into images in [0, 1].

    ``auc``: a person and the same in other attributes, against another person in those attributes;
    ``auc_twins``: against another person in the person's own attributes; ``moved_KEY``: one minus
    the cosine of the person with one attribute changed; ``moved_mean`` and ``moved_worst`` over
    the attributes; ``same`` and ``different``: mean cosines of one and of two people.
    """
    plain = _embedded(embed, worn(shown.plain))
    others = _embedded(embed, worn(shown.others))
    twins = _embedded(embed, worn(shown.twins))
    same = (plain * others).sum(1)
    different = (plain * others.roll(1, 0)).sum(1)
    alike = (plain * twins).sum(1)
    moved = {
        f"moved_{key}": float((1 - (plain[rows] * _embedded(embed, worn(images))).sum(1)).mean())
        for key, (rows, images) in shown.edits.items()
        if len(rows)
    }
    found = {
        "auc": auc(same, different),
        "auc_twins": auc(same, alike),
        "same": float(same.mean()),
        "different": float(different.mean()),
        **moved,
    }
    if moved:
        found["moved_mean"] = float(np.mean(list(moved.values())))
        found["moved_worst"] = max(moved.values())
    return found


def _embedded(embed: Embed, images: Tensor) -> Tensor:
    return torch.cat([embed(part).float().cpu() for part in torch.split(images, 128)])
