from __future__ import annotations

import numpy as np
import pytest
import torch

from guided.errors import CannotDo
from guided.nets.stylegan2 import StyleGAN2, StyleGAN2Shape
from guided.worlds.portraits import KEYS
from guided.worlds.portraits.training import latent_mapping, latent_world
from guided.worlds.portraits.training.latent_mapping import install
from guided.worlds.portraits.training.world_data import ABSENT
from tests.helpers.latent_codes import expected_w

SHAPE = StyleGAN2Shape(8, 128, 128, 8, (8, 8))


def _net(shape: StyleGAN2Shape = SHAPE) -> StyleGAN2:
    torch.manual_seed(0)
    net = StyleGAN2(shape).requires_grad_(False)
    install(net.style)
    return net


def _clear(z: np.ndarray) -> np.ndarray:
    """Which rows lie near no threshold."""
    u = latent_world.normalised(z)
    near = [
        np.abs(u[:, cut.component] - cut.threshold) < latent_mapping.border()
        for tree in latent_world.trees().values()
        for cut in tree.cuts
    ]
    return ~np.logical_or.reduce(near)


def _both(kind: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The w of clear z, from the network and from the facts (unknown where a hat is absent)."""
    z = np.random.default_rng(1).standard_normal((6000, 128))
    z = z[_clear(z)]
    assert len(z) > 1500
    codes, geometry = (torch.from_numpy(part) for part in latent_world.facts(z))
    wanted = expected_w(codes, geometry, 128)
    bare = codes[:, KEYS.index("hat_color")] == ABSENT
    wanted[bare, latent_mapping.value_columns()["hat_color"]] = torch.nan
    net = _net().to(kind)
    return net.mapping(torch.from_numpy(z).to(kind)).float(), wanted


def test_w_holds_every_fact_of_z() -> None:
    found, wanted = _both()
    known = ~wanted.isnan()
    values = latent_mapping.trait_columns().start
    error = (found - wanted)[:, :values][known[:, :values]]
    assert error.abs().max() < 0.06 * latent_mapping.SCALE
    traits = (found - wanted)[:, latent_mapping.trait_columns()]
    assert traits.abs().max() < 0.02 * latent_mapping.SCALE
    assert (found[:, latent_mapping.trait_columns().stop :] == 0).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_enough_to_tell_the_facts(kind: torch.dtype) -> None:
    net = _net()
    for tensor in net.parameters():
        assert tensor.to(torch.float16).isfinite().all()
    found, wanted = _both(kind)
    known = ~wanted.isnan()
    values = latent_mapping.trait_columns().start
    error = (found - wanted)[:, :values][known[:, :values]].abs() / latent_mapping.SCALE
    assert error.max() < 0.5
    assert error.mean() < 0.01


def test_few_z_lie_near_a_border() -> None:
    z = np.random.default_rng(2).standard_normal((4000, 128))
    w = _net().mapping(torch.from_numpy(z).float()) / latent_mapping.SCALE
    shares = []
    for key, columns in latent_mapping.value_columns().items():
        if key != "hat_color":
            shares.append(float((w[:, columns].amax(1) < 0.8).float().mean()))
    assert max(shares) < 0.06
    assert sum(shares) < 0.4


def test_other_networks_are_refused() -> None:
    with pytest.raises(CannotDo, match="3 layers; the facts take 8"):
        install(StyleGAN2(StyleGAN2Shape(8, 128, 128, 3, (8, 8))).style)
    with pytest.raises(CannotDo, match=r"64 numbers cannot hold.*\n?.*takes 64 and 12"):
        install(StyleGAN2(StyleGAN2Shape(8, 64, 128, 8, (8, 8))).style)
