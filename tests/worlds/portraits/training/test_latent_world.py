from __future__ import annotations

import math

import numpy as np
import pytest

from guided.errors import ShapeError
from guided.worlds.portraits import KEYS, VALUES, from_latent, sample
from guided.worlds.portraits.attributes import LATENT_SIZE, TRAITS, chances
from guided.worlds.portraits.training import latent_world
from guided.worlds.portraits.training.latent_world import (
    LATENT,
    conditional,
    facts,
    geometry_of,
    trees,
)
from guided.worlds.portraits.training.world_data import ABSENT, codes_of


def _world(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and geometry of portraits drawn freely, held-out pairs among them."""
    stream = np.random.default_rng(seed)
    people = [from_latent(stream.standard_normal(LATENT_SIZE)) for _ in range(count)]
    return np.array([codes_of(p) for p in people]), np.array([geometry_of(p) for p in people])


def _distance(values: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance from the standard normal, times the root of the count."""
    values = np.sort(values)
    steps = np.arange(len(values) + 1) / len(values)
    below = np.asarray(latent_world.ndtr(values))
    gap = max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max())
    return float(gap * math.sqrt(len(values)))


def test_attributes_and_traits_are_read_off_components_of_their_own() -> None:
    used = list(range(*latent_world.traits().indices(LATENT)))
    for key, tree in trees().items():
        used += tree.components
        assert {cut.component for cut in tree.cuts} == set(tree.components)
        assert len(tree.paths) == len(VALUES[key]) - (key == "hat_color")
    assert len(used) == len(set(used))
    assert max(used) < LATENT


def test_facts_do_not_depend_on_the_length_of_z() -> None:
    z = np.random.default_rng(0).standard_normal((100, LATENT))
    for first, second in zip(facts(z), facts(8 * z), strict=True):
        np.testing.assert_array_equal(first, second)


def test_what_was_drawn_for_a_picture_says_that_picture() -> None:
    codes, geometry = _world(3000, 1)
    assert (np.abs(geometry) == 1).any()  # clipped traits are among them
    z = conditional(codes, geometry, np.random.default_rng(2))
    assert np.isfinite(z).all()
    said, shape = facts(z)
    assert (said == codes).all()
    np.testing.assert_allclose(shape, geometry, atol=1e-12)


def test_over_many_pictures_z_is_a_standard_normal_vector() -> None:
    codes, geometry = _world(20_000, 3)
    z = conditional(codes, geometry, np.random.default_rng(4))
    distances = [_distance(column) for column in z.T]
    assert max(distances) < 2.2  # 1 in 30,000 for one component, 1 in 250 for all
    correlations = np.corrcoef(z.T) - np.eye(LATENT)
    assert np.abs(correlations).max() < 6 / math.sqrt(len(z))


def test_random_z_have_the_chances_of_the_world() -> None:
    codes, _ = facts(np.random.default_rng(5).standard_normal((40_000, LATENT)))
    for column, key in enumerate(KEYS):
        seen = codes[codes[:, column] != ABSENT, column]
        shares = np.bincount(seen, minlength=len(VALUES[key])) / len(seen)
        error = np.sqrt(chances(key) * (1 - chances(key)) / len(seen))
        assert (np.abs(shares - chances(key)) < 4.5 * error).all(), key


def test_a_hat_never_has_the_colour_of_the_clothing() -> None:
    z = np.random.default_rng(6).standard_normal((4000, LATENT))
    for portrait in latent_world.portraits(z):
        a = portrait.attributes
        assert (a["hat_color"] is None) == (a["hat"] == "none")
        assert a["hat_color"] != a["clothing"]


def test_a_training_portrait_and_its_z_are_the_same_picture() -> None:
    people = [sample(seed, "train") for seed in range(50)]
    codes = np.array([codes_of(p) for p in people])
    z = conditional(codes, np.array([geometry_of(p) for p in people]), np.random.default_rng(0))
    for again, person in zip(latent_world.portraits(z), people, strict=True):
        assert again.attributes == person.attributes
        assert again.geometry == pytest.approx(person.geometry, abs=1e-12)


def test_wrong_shapes_are_said() -> None:
    with pytest.raises(ShapeError, match=r"\[n, 128\], not \[3, 5\]"):
        facts(np.zeros((3, 5)))
    with pytest.raises(ShapeError, match=r"belong together; given are \[2, 13\] and \[3, 24\]"):
        conditional(np.zeros((2, 13)), np.zeros((3, len(TRAITS))), np.random.default_rng(0))
