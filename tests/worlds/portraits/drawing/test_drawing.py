"""The drawn picture: sizes, determinism, what fits and what shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from guided.worlds.portraits import (
    PARTS,
    SIGN_WORDS,
    VALUES,
    Portrait,
    compose,
    draw,
    part_boxes,
    part_map,
    part_masks,
    rasterize,
    sample,
    sheet,
)
from guided.worlds.portraits.attributes import TRAITS
from guided.worlds.portraits.drawing.letters import GLYPHS, word
from guided.worlds.portraits.drawing.palette import PALETTES, difference

PLAIN = {"hat": "none", "glasses": "none", "beard": "none", "earrings": "none", "sign": "none"}


def person(seed: int, **attributes: str) -> Portrait:
    """A portrait without accessories, changed as asked."""
    portrait = sample(seed)
    for key, value in {**PLAIN, **attributes}.items():
        portrait = portrait.with_attribute(key, value)
    return portrait


def extremes(portrait: Portrait, seed: int) -> Portrait:
    """The same attributes on a face whose every trait is at one of its ends."""
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), len(TRAITS))
    return replace(portrait, geometry=dict(zip(TRAITS, map(float, signs), strict=True)))


@pytest.mark.parametrize("size", [32, 128, 200])
def test_picture_has_the_size_asked_for_and_repeats_exactly(size: int) -> None:
    first, again = draw(sample(3), size), draw(sample(3), size)
    assert first.size == (size, size)
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes()
    assert draw(sample(4), size).tobytes() != first.tobytes()


@pytest.mark.parametrize("size", [31, 1025, 0, -4])
def test_a_size_outside_the_range_says_which_sizes_there_are(size: int) -> None:
    with pytest.raises(ValueError, match=rf"{size} pixels.*from 32 to 1024"):
        draw(sample(0), size)
    with pytest.raises(ValueError, match="from 32 to 1024"):
        part_map(compose(sample(0)), size)


@pytest.mark.parametrize("seed", [0, 3, 6, 10, 95])
def test_a_large_picture_reduces_to_the_small_one(seed: int) -> None:
    scene = compose(sample(seed))
    large = Image.fromarray(rasterize(scene, 512)).reduce(4)
    small = rasterize(scene, 128)
    assert np.abs(np.asarray(large, float) - small).mean() < 3.0


@pytest.mark.parametrize("palette", sorted(PALETTES))
def test_colours_of_a_palette_are_far_apart(palette: str) -> None:
    colors = list(PALETTES[palette].values())
    assert set(PALETTES[palette]) == set(VALUES[palette])
    gaps = [difference(a, b) for i, a in enumerate(colors) for b in colors[:i]]
    assert min(gaps) > 18


@pytest.mark.parametrize("seed", range(4))
def test_masks_cover_the_picture_once_and_boxes_frame_them(seed: int) -> None:
    scene = compose(sample(seed))
    masks, boxes = part_masks(scene, 96), part_boxes(scene, 96)
    assert (np.sum(list(masks.values()), axis=0) == 1).all()
    assert set(masks) == set(boxes) <= set(PARTS)
    for part, (x0, y0, x1, y1) in boxes.items():
        inside = masks[part][y0:y1, x0:x1]
        assert inside.sum() == masks[part].sum()
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


@pytest.mark.parametrize("attribute", ["glasses", "hat", "beard", "earrings", "sign"])
def test_what_is_worn_has_a_part_and_what_is_absent_has_none(attribute: str) -> None:
    without = part_masks(compose(person(5)), 128)
    assert attribute not in without
    for value in VALUES[attribute][1:4]:
        worn = part_masks(compose(person(5, **{attribute: value})), 128)
        assert worn[attribute].sum() > 60


@pytest.mark.parametrize("seed", range(24))
def test_nothing_but_the_shoulders_leaves_the_canvas(seed: int) -> None:
    hats, styles = VALUES["hat"], VALUES["hair_style"]
    portrait = person(seed, hat=hats[seed % 4], hair_style=styles[seed % 8], earrings="earrings")
    owners = part_map(compose(extremes(portrait, seed)), 128)
    frame = np.concatenate([owners[0], owners[:96, 0], owners[:96, -1]])
    assert set(frame) == {PARTS.index("background")}


@pytest.mark.parametrize("style", ["short", "spiky", "curly", "bob", "long", "bun"])
@pytest.mark.parametrize("hat", VALUES["hat"])
def test_no_background_shows_between_hair_hat_and_face(style: str, hat: str) -> None:
    for seed in range(4):
        portrait = extremes(person(seed, hair_style=style, hat=hat), seed + 40)
        canvas = Image.fromarray(part_map(compose(portrait), 128)).copy()
        ImageDraw.floodfill(canvas, (0, 0), 255)
        ImageDraw.floodfill(canvas, (127, 0), 255)
        left = np.asarray(canvas) == PARTS.index("background")
        left[96:] = False  # beside the shoulders the background is its own region
        assert left.sum() <= 2  # at most a notch where two outlines meet


@pytest.mark.parametrize("beard", VALUES["beard"][1:])
@pytest.mark.parametrize("expression", VALUES["expression"])
def test_no_beard_hides_the_mouth(beard: str, expression: str) -> None:
    for seed in range(3):
        shaved = part_masks(compose(person(seed, expression=expression)), 128)["mouth"]
        bearded = person(seed, expression=expression, beard=beard)
        mouth = part_masks(compose(bearded), 128)["mouth"]
        assert mouth.sum() >= 0.9 * shaved.sum()
        assert mouth.sum() > 60


def test_every_word_is_whole_and_large_on_every_shirt_and_under_long_hair() -> None:
    for index, text in enumerate(SIGN_WORDS):
        portrait = extremes(person(index, sign=text, hair_style="long"), index)
        masks = part_masks(compose(portrait), 128)
        bare = part_masks(compose(portrait.with_attribute("hair_style", "bald")), 128)
        assert (masks["sign"] == bare["sign"]).all()
        _, top, _, bottom = part_boxes(compose(portrait), 128)["sign"]
        assert 13 <= bottom - top <= 15
        assert bottom <= 126


def test_glyphs_cover_the_words_and_differ_from_each_other() -> None:
    assert set("".join(SIGN_WORDS)) <= set(GLYPHS)
    drawn = {}
    for letter in GLYPHS:
        canvas = Image.new("L", (28, 28))
        for polygon in word(letter, 22.0, 4.2):
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in polygon + 14], fill=1)
        drawn[letter] = np.asarray(canvas).astype(bool)
    for letter, mask in drawn.items():
        for other in drawn:
            if other < letter:
                assert (mask ^ drawn[other]).sum() > 0.12 * (mask | drawn[other]).sum()


def test_a_character_without_a_glyph_is_named() -> None:
    with pytest.raises(ValueError, match=r"no glyph for !, q"):
        word("q!A", 1.0, 0.1)


def test_irises_are_large_enough_to_carry_a_colour() -> None:
    for eyes in VALUES["eyes"]:
        picture = np.asarray(draw(person(2, eyes=eyes, expression="neutral")), float)
        near = np.linalg.norm(picture - PALETTES["eyes"][eyes], axis=-1) < 40
        mask = part_masks(compose(person(2, eyes=eyes, expression="neutral")), 128)["eyes"]
        assert (near & mask).sum() > 40


def test_a_sheet_holds_all_images_and_their_captions() -> None:
    images = [Image.new("RGB", (40, 40), (10 * i, 0, 0)) for i in range(5)]
    page = sheet(images, 3)
    assert page.size == (120, 80)
    assert page.getpixel((45, 45)) == (40, 0, 0)
    captioned = sheet(images, 3, ["one", "two", "a caption much too long for it", "", "five"])
    assert captioned.height > page.height
    under = np.asarray(captioned)[40:54, 80:120]
    assert (under < 120).any()
    assert sheet(images[:2], 8).width == 80


def test_a_sheet_refuses_what_it_cannot_lay_out() -> None:
    image = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match="at least one image and one column"):
        sheet([], 3)
    with pytest.raises(ValueError, match="at least one image and one column"):
        sheet([image], 0)
    with pytest.raises(ValueError, match="2 images need as many captions, not 1"):
        sheet([image, image], 2, ["one"])
