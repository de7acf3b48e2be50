from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guided.errors import CannotDo, CorruptWeights, ShapeError
from guided.nets.text_gan import (
    MaskOverlay,
    TextDiscriminator,
    TextGanShape,
    TextGenerator,
    build_text_generator,
    unlikeness,
)
from tests.helpers.tiny_text_gan import SHAPE, tiny_generator


def test_the_default_fits_three_megabytes() -> None:
    count = sum(p.numel() for p in TextGenerator(TextGanShape()).parameters())
    assert count > 1_200_000
    assert 2 * count <= 3_000_000


def test_pictures_depend_on_z_and_text_but_not_on_the_length_of_z() -> None:
    net, stream = tiny_generator(), torch.Generator().manual_seed(0)
    z, text = torch.randn(3, 8, generator=stream), torch.randn(3, 24, generator=stream)
    text = torch.nn.functional.normalize(text, dim=1)
    with torch.no_grad():
        made = net(z, text)
        assert made.shape == (3, 3, 32, 32)
        assert made.dtype == torch.float32
        assert torch.allclose(net(2.5 * z, text), made, atol=1e-5)
        assert (net(z.roll(1, 0), text) - made).abs().max() > 1e-4
        assert (net(z, text.roll(1, 0)) - made).abs().max() > 1e-4
        assert torch.isfinite(net(z, torch.zeros(3, 24))).all()
        assert torch.allclose(net(z[:1], text[:1]), made[:1], atol=1e-5)


def test_a_stencil_lays_the_picked_mask_over_the_picture() -> None:
    torch.manual_seed(0)
    overlay = MaskOverlay(3, 4, 8)
    picture, styles = torch.rand(2, 3, 8, 8) - 0.5, torch.eye(4)[:2]
    with torch.no_grad():
        faint = overlay(picture, styles)
        assert (faint - picture).abs().max() < 0.08  # it starts at nearly nothing
        overlay.pick.weight.copy_(torch.eye(3, 4) * 50)
        overlay.pick.bias.zero_()
        overlay.masks.fill_(-1.0)
        overlay.masks[0, :4] = 1.0
        made = overlay(picture, styles)
    assert torch.allclose(made[0, :, :4], torch.ones(3, 4, 8), atol=1e-5)  # fresh ink is white
    assert torch.allclose(made[0, :, 4:], picture[0, :, 4:], atol=1e-5)
    assert torch.allclose(made[1], picture[1], atol=1e-5)
    picture.requires_grad_(True)
    overlay(picture, styles).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in overlay.parameters())


def test_faint_and_empty_masks_are_cleared() -> None:
    overlay = MaskOverlay(2, 4, 8)
    with torch.no_grad():
        overlay.masks[:, 0] = 1.0
        picture, styles = torch.rand(1, 3, 8, 8) - 0.5, torch.zeros(1, 4)
        overlay.prune(empty=(0,))
        overlay.pick.bias.copy_(torch.tensor([50.0, 0.0]))
        assert torch.allclose(overlay(picture, styles), picture, atol=1e-4)
        overlay.pick.bias.copy_(torch.tensor([0.0, 50.0]))
        made = overlay(picture, styles)
    assert torch.allclose(made[..., 0, :], torch.ones(1, 3, 8), atol=1e-5)
    assert torch.allclose(made[..., 1:, :], picture[..., 1:, :], atol=1e-4)


def test_a_generator_with_masks_is_saved_and_read() -> None:
    shape = replace(SHAPE, masks=5)
    net = TextGenerator(shape)
    twin = build_text_generator(shape.plain(), net.state_dict())
    z, text = torch.randn(2, 8), torch.zeros(2, 24)
    assert torch.equal(net(z, text), twin(z, text))
    with pytest.raises(CorruptWeights, match="mask_overlay"):
        build_text_generator(SHAPE.plain(), net.state_dict())


def test_other_shapes_are_errors() -> None:
    net = tiny_generator()
    with pytest.raises(ShapeError, match="z must have the shape"):
        net(torch.zeros(2, 7), torch.zeros(2, 24))
    with pytest.raises(ShapeError, match="text must have the shape"):
        net(torch.zeros(2, 8), torch.zeros(1, 24))
    with pytest.raises(CannotDo, match="3 widths make pictures of 32 px, not of 64 px"):
        TextGanShape(64, channels=(8, 8, 8))
    with pytest.raises(CannotDo, match="look at pictures of 16 px, not of 32 px"):
        TextDiscriminator(32, 24, (8, 8), 8)


def test_weights_of_another_size_are_refused() -> None:
    state = tiny_generator().state_dict()
    twin = build_text_generator(SHAPE.plain(), state)
    assert torch.equal(twin.colours.weight, state["colours.weight"])
    other = {**SHAPE.plain(), "size": 64, "channels": [12, 10, 8, 8]}
    with pytest.raises(CorruptWeights, match="not those of a text GAN of 64 px"):
        build_text_generator(other, state)
    with pytest.raises(CorruptWeights, match="belong together"):
        build_text_generator({**SHAPE.plain(), "unknown": 1}, state)


def test_a_row_of_the_statistic_has_a_gradient_to_that_row_alone() -> None:
    maps = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = unlikeness(maps, 4)
    assert found.shape == (6,)
    (gradient,) = torch.autograd.grad(found[1], maps)
    assert gradient[1].abs().max() > 0
    assert gradient[[0, 2, 3, 4, 5]].abs().max() == 0


def test_the_statistic_tells_copies_from_different_rows() -> None:
    row = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    assert unlikeness(row.expand(4, -1, -1, -1), 4).max() < 1e-3
    pair = torch.cat([row, row + 3])
    assert torch.allclose(unlikeness(pair, 4), torch.full((2,), 3.0), atol=1e-4)
    assert unlikeness(row, 4).tolist() == [0.0]


def test_the_text_term_is_a_projection() -> None:
    torch.manual_seed(0)
    net = TextDiscriminator(32, 24, (8, 12, 16), 12, group=2)
    pictures, text = torch.randn(4, 3, 32, 32), torch.randn(4, 24)
    with torch.no_grad():
        seen = net.look(pictures)
        logits = net(pictures, text)
        heard = net.text_proj(text * 24**0.5)
        expected = net.real(seen)[:, 0] + (seen * heard).sum(1) / 12**0.5
    assert torch.allclose(logits, expected, atol=1e-5)
