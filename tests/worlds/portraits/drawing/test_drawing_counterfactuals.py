"""One attribute changed: only its own parts of the picture may change, and they must."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from guided.worlds.portraits import VALUES, compose, draw, part_masks, rasterize, sample

#: Attribute -> parts that may look different (in either picture).
OWN_PARTS = {
    "eyes": ("eyes",),
    "background": ("background",),
    "sign": ("sign",),
    "clothing": ("clothing", "sign"),
    "hat_color": ("hat",),
    "hair_color": ("hair", "brows", "beard"),
    "skin": ("face", "nose", "mouth"),
    "beard": ("beard",),
    "earrings": ("earrings",),
    "expression": ("eyes", "brows", "mouth"),
}


def touched(mask: np.ndarray) -> np.ndarray:
    """The pixels [128, 128] of a mask [512, 512] and of their immediate neighbours."""
    wide = Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(3))
    return np.asarray((np.asarray(wide) > 0).reshape(128, 4, 128, 4).any((1, 3)))


@pytest.mark.parametrize("key", sorted(OWN_PARTS))
@pytest.mark.parametrize("seed", [1, 3, 10, 21, 44])
def test_a_change_stays_within_its_parts(key: str, seed: int) -> None:
    portrait = sample(seed)
    if key == "hat_color" and portrait.attributes["hat"] == "none":
        portrait = portrait.with_attribute("hat", "cap")
    before = compose(portrait)
    masks = part_masks(before, 512)
    for value in [v for v in VALUES[key] if v != portrait.attributes[key]][:3]:
        after = compose(portrait.with_attribute(key, value))
        changed = (rasterize(before, 128) != rasterize(after, 128)).any(-1)
        allowed = np.zeros((512, 512), bool)
        for shown in (masks, part_masks(after, 512)):
            for part in OWN_PARTS[key]:
                allowed |= shown.get(part, allowed)
        outside = changed & ~touched(allowed)
        assert outside.sum() <= 3  # slivers thinner than a quarter of a pixel


@pytest.mark.parametrize("key", sorted(VALUES))
def test_every_value_of_a_visible_attribute_looks_different(key: str) -> None:
    portrait = sample(10)
    for other, value in (("glasses", "none"), ("hat", "none"), ("hair_style", "curly")):
        portrait = portrait.with_attribute(other, value)
    if key == "hat_color":
        portrait = portrait.with_attribute("hat", "beanie")
    pictures = [np.asarray(draw(portrait.with_attribute(key, v)), int) for v in VALUES[key]]
    for index, first in enumerate(pictures):
        for second in pictures[:index]:
            assert (np.abs(first - second).max(-1) > 40).sum() > 40


def test_a_face_keeps_its_geometry_whatever_it_wears() -> None:
    portrait = sample(8)
    nose = part_masks(compose(portrait), 128)["nose"]
    for key in ("hair_style", "hat", "earrings", "skin", "expression", "clothing"):
        for value in VALUES[key]:
            dressed = part_masks(compose(portrait.with_attribute(key, value)), 128)["nose"]
            assert (dressed == nose).all()
