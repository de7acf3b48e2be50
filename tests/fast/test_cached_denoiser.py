"""Packed layers and the cached denoiser: the numbers of the plain modules, and when they pass."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn

from guided.core.device import multiplies_bf16
from guided.core.seeds import Seeds
from guided.fast.cached_denoiser import CachedDenoiser
from guided.fast.packed_linear import PackedLinear, pack_linears
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion.portrait_folder import load_own
from guided.guidance.denoise import Denoising
from guided.nets.attention import PlainAttention, set_attention_backend
from tests.helpers import small_own
from tests.helpers.small_models import seeded
from tests.helpers.tiny_clip import write_clip

TEXTS = ("a photo of the red cat", "a dog")


class TwoLayers(nn.Module):
    """A product and a gelu as in diffusers' feed-forward, then a product without a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.up = GELU(16, 40, approximate="tanh")
        self.down = nn.Linear(40, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.up(x))
        return found


def frozen() -> nn.Module:
    made: nn.Module = seeded(TwoLayers, 0)
    return made.requires_grad_(False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slope(net: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad((3 * net(leaf)).sin().sum(), leaf)[0]


@pytest.mark.parametrize("rows", [1, 3, 130])
def test_packed_layers_are_the_plain_ones(rows: int) -> None:
    plain, packed, x = frozen(), frozen(), normal(2, rows, 16)
    pack_linears(packed)
    assert [type(each) for each in packed.modules()].count(PackedLinear) == 2
    assert packed.state_dict().keys() == plain.state_dict().keys()
    for _ in range(2):
        assert torch.allclose(packed(x), plain(x), atol=1e-6)
        assert torch.allclose(slope(packed, x), slope(plain, x), atol=1e-5)
    assert torch.allclose(packed(x.transpose(0, 1)), plain(x.transpose(0, 1)), atol=1e-6)


def test_packed_layers_follow_their_weights_and_copies_pack_their_own() -> None:
    packed, x = frozen(), normal(2, 5, 16)
    pack_linears(packed)
    before = packed(x)
    other = copy.deepcopy(packed)
    with torch.no_grad():
        for each in packed.parameters():
            each.mul_(2)
    plain = frozen()
    plain.load_state_dict(packed.state_dict())
    assert torch.allclose(packed(x), plain(x), atol=1e-5)
    assert torch.equal(other(x), before)


def test_what_cannot_be_packed_goes_the_plain_way() -> None:
    packed, plain, x = frozen(), frozen(), normal(2, 5, 16)
    pack_linears(packed)
    double = copy.deepcopy(packed).double()
    assert torch.equal(double(x.double()), copy.deepcopy(plain).double()(x.double()))
    packed.requires_grad_(True)
    assert torch.equal(packed(x), plain(x))
    packed(x).sum().backward()
    assert all(each.grad is not None for each in packed.parameters())
    assert packed(x[:, :0]).shape == (2, 0, 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    root = tmp_path_factory.mktemp("fast")
    bundle = write_clip(root / "clip")
    own = small_own.write_autoencoder(root / "vae")
    folder: Path = small_own.write_denoiser(root / "denoiser", own, bundle)
    return load_own(folder, small_own.clip(bundle))


def bound(model: Diffusion, **more: Any) -> Any:
    return model.bound(TEXTS, ("a cat", ""), cfg=3.0, **more)


@pytest.mark.parametrize("pictured", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
def test_the_cached_denoiser_is_the_plain_one(
    pictured: bool, size: tuple[int, int], model: Diffusion
) -> None:
    image = nn.functional.normalize(normal(2, 24, seed=1), dim=1) if pictured else None
    asked = bound(model, image=image)
    plain = small_own.denoiser()
    tables = [*plain.net.transformer_blocks, plain.net]
    for number, part in enumerate(tables):
        part.scale_shift_table.data = normal(*part.scale_shift_table.shape, seed=number)
    packed = copy.deepcopy(plain).requires_grad_(False)
    pack_linears(packed)
    words = asked.words
    told = (words.text, words.mask, words.pooled, words.image, words.image_mask)
    cached, given = CachedDenoiser(packed, told), normal(4, 6, *size)
    assert cached.fits(given)
    with torch.no_grad():
        for time in (999, 250):
            wanted = plain(given, torch.full((4,), time), *told)
            assert torch.allclose(cached(given, torch.tensor(time)), wanted, atol=1e-5, rtol=1e-5)


def test_a_run_takes_the_fast_path_unless_it_is_switched_off(
    model: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran() -> Tensor:
        seeds = Seeds.of(0, 2)
        noise = model.start(seeds)["noise"]
        moves = Denoising(bound(model), model.scheduler(), noise, seeds, 3, 3.0).steps()
        while True:
            try:
                next(moves)
            except StopIteration as end:
                latents: Tensor = end.value
                return latents

    cached = ran()
    assert torch.equal(cached, ran())
    monkeypatch.setenv("GUIDED_FAST", "0")
    assert not CachedDenoiser.takes(model.pipe.transformer)
    plain = ran()
    assert torch.allclose(cached, plain, atol=1e-4)
    assert not torch.equal(cached, plain)  # or nothing was cached


def test_when_the_fast_path_is_not_taken(model: Diffusion) -> None:
    asked = bound(model)
    cached, given = asked.bound.quick, normal(4, 6, 8, 8)
    assert cached.fits(given)
    assert not cached.fits(given[:2])
    assert not cached.fits(given.double())
    assert not cached.fits(given.clone().requires_grad_())
    net: Any = model.pipe.transformer.net
    kept = net.attn_processors
    try:

        class Watching(type(next(iter(kept.values())))):  # type: ignore[misc]
            """A processor of an edit."""

        net.set_attn_processor(Watching())
        assert not cached.fits(given)
        net.set_attn_processor(PlainAttention(lambda seen, *, words: seen))
        assert not cached.fits(given)
    finally:
        set_attention_backend(net, torch.device("cpu"))
    leaf = given.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(asked.predict(leaf, torch.tensor(500)).sum(), leaf)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 0


def test_the_quick_denoiser_in_bf16_is_as_near_as_the_plain_one(model: Diffusion) -> None:
    words = bound(model).words
    told = (words.text, words.mask, words.pooled, None, None)
    exact = small_own.denoiser()
    given, time = normal(4, 6, 8, 8), 400
    low = copy.deepcopy(exact).to(torch.bfloat16).requires_grad_(False)
    packed = copy.deepcopy(low)
    pack_linears(packed)
    half = tuple(None if each is None else each.bfloat16() for each in told)
    with torch.no_grad():
        wanted = exact(given, torch.full((4,), time), *told)
        plain = low(given.bfloat16(), torch.full((4,), time), *half).float()
        taken = CachedDenoiser.takes(packed)
        assert taken == multiplies_bf16(torch.device("cpu"))
        if taken:
            cached = CachedDenoiser(packed, half)
            assert cached.fits(given.bfloat16())
            found = cached(given.bfloat16(), torch.tensor(time))
        else:  # a processor without such products takes the plain way
            found = packed(given.bfloat16(), torch.full((4,), time), *half)
    assert found.dtype == torch.bfloat16
    off = float((plain - wanted).abs().max())
    assert 0 < off < 0.1 * float(wanted.abs().max())
    assert float((found.float() - wanted).abs().max()) < 2 * off
