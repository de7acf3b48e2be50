from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from guided.errors import CannotDo, CorruptWeights, ShapeError
from guided.nets.equalized import EqualLinear, PixelNorm, activation
from guided.nets.resample import blur, fir_kernel, upsample_twice
from guided.nets.stylegan2 import StyleGAN2Shape, mix, truncate
from guided.nets.stylegan2_formats import build_stylegan2, from_nvidia, read_shape
from tests.helpers.tiny_faces import SHAPE, no_noise, nvidia_state, tiny_stylegan2


@pytest.fixture(scope="module")
def net():
    return tiny_stylegan2()


def latent(rows: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, SHAPE.rows, SHAPE.style, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        StyleGAN2Shape(8, 6, 10, 2, (5, 7)),
        StyleGAN2Shape(64, 12, 12, 8, (12, 10, 8, 6, 4)),
    ],
)
def test_sizes_are_read_off_the_shapes(shape: StyleGAN2Shape) -> None:
    state = tiny_stylegan2(1, shape).state_dict()
    assert read_shape(state) == shape
    picture = build_stylegan2(state)(torch.zeros(1, shape.rows, shape.style))
    assert picture.shape == (1, 3, shape.size, shape.size)


def test_names_are_the_public_ones(net) -> None:
    names = set(net.state_dict())
    assert {
        "style.1.weight", "input.input", "conv1.conv.weight", "conv1.conv.modulation.bias",
        "conv1.noise.weight", "conv1.activate.bias", "to_rgb1.conv.weight", "to_rgb1.bias",
        "convs.0.conv.blur.kernel", "convs.5.conv.weight", "to_rgbs.2.upsample.kernel",
        "noises.noise_0", "noises.noise_6",
    } <= names  # fmt: skip
    assert net.state_dict()["convs.0.conv.weight"].shape == (1, 16, 16, 3, 3)


def test_rows_of_a_batch_do_not_mix(net) -> None:
    codes = latent(3)
    together = net(codes)
    for row in range(3):
        assert torch.allclose(net(codes[row : row + 1])[0], together[row], atol=1e-5)


def test_style_space_leads_to_the_same_picture(net) -> None:
    assert torch.equal(net(latent()), net.synthesis(net.codes(latent())))


def test_noise_matters_only_where_it_is_weighted(net) -> None:
    codes = net.codes(latent(1))
    stored = net.synthesis(codes)
    assert torch.equal(stored, net.synthesis(codes, net.stored_noise))
    assert not torch.allclose(stored, net.synthesis(codes, no_noise(net.shape)))
    with pytest.raises(ShapeError, match="11 codes and 7 noise maps, not 10 and 7"):
        net.synthesis(codes[:-1])


def test_truncation_and_mixing() -> None:
    codes, centre = latent(), torch.ones(SHAPE.style)
    assert torch.allclose(truncate(codes, centre, 0.0), centre.expand_as(codes))
    assert torch.equal(truncate(codes, centre, 1.0)[:, 0], centre + (codes - centre)[:, 0])
    coarse = truncate(codes, centre, 0.5, rows=3)
    assert torch.equal(coarse[:, 3:], codes[:, 3:])
    other = latent(seed=1)
    mixed = mix(codes, other, 2)
    assert torch.equal(mixed[:, :2], codes[:, :2])
    assert torch.equal(mixed[:, 2:], other[:, 2:])


def test_frozen_weights_keep_their_squares_until_they_change(net) -> None:
    own = build_stylegan2(net.state_dict()).requires_grad_(False)
    before = own(latent(1))
    own.convs[0].conv.weight.mul_(2.0)  # demodulation divides a factor out again
    assert torch.allclose(own(latent(1)), before, atol=1e-4)


def test_trained_weights_get_gradients(net) -> None:
    own = build_stylegan2(net.state_dict())
    own.requires_grad_(True)
    own(latent(1)).square().mean().backward()
    assert own.convs[0].conv.weight.grad is not None
    assert own.convs[0].conv.weight.grad.abs().max() > 0


def test_gradients_are_right_in_float64() -> None:
    shape = StyleGAN2Shape(8, 3, 3, 1, (3, 2))
    net = tiny_stylegan2(3, shape).double()
    codes = torch.randn(1, shape.rows, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (codes,))


# ------------------------------------------------------------------ filters


def test_blur_and_upsampling_against_their_definition() -> None:
    kernel = fir_kernel((1.0, 2.0, 3.0, 1.0))  # not symmetric: a flip would show
    maps = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    padded = F.pad(maps, [1, 1, 1, 1]).reshape(6, 1, 7, 6)
    expected = F.conv2d(padded, kernel.flip((0, 1))[None, None]).view(2, 3, 4, 3)
    assert torch.allclose(blur(maps, kernel), expected, atol=1e-6)
    spread = torch.zeros(2, 3, 10, 8)
    spread[:, :, ::2, ::2] = maps
    padded = F.pad(spread, [2, 1, 2, 1]).reshape(6, 1, 13, 11)
    expected = F.conv2d(padded, kernel.flip((0, 1))[None, None]).view(2, 3, 10, 8)
    assert torch.allclose(upsample_twice(maps, kernel), expected, atol=1e-6)


# ------------------------------------------------------------------ strictness


def test_missing_unknown_and_misshapen_weights_are_named(net) -> None:
    state = dict(net.state_dict())
    del state["convs.1.activate.bias"]
    with pytest.raises(CorruptWeights, match=r"missing: convs\.1\.activate\.bias"):
        build_stylegan2(state)
    with pytest.raises(CorruptWeights, match="unknown: discriminator"):
        build_stylegan2({**net.state_dict(), "discriminator": torch.zeros(1)})
    wrong = {**net.state_dict(), "conv1.activate.bias": torch.zeros(3)}
    with pytest.raises(CorruptWeights, match=r"conv1\.activate\.bias \[3\] instead of \[16\]"):
        build_stylegan2(wrong)
    with pytest.raises(CorruptWeights, match=r"lacks style\.1\.weight, input\.input"):
        build_stylegan2({"model.weight": torch.zeros(1)})


def test_noise_and_kernels_may_be_missing(net) -> None:
    kept = {k: v for k, v in net.state_dict().items() if "noises" not in k and "kernel" not in k}
    first, second = build_stylegan2(kept), build_stylegan2(kept)
    assert torch.equal(first(latent(1)), second(latent(1)))


def test_nvidia_names_give_the_same_pictures(net) -> None:
    other = build_stylegan2(nvidia_state(net)).requires_grad_(False)
    assert torch.allclose(other(latent()), net(latent()), atol=1e-6)


def test_other_families_are_refused(net) -> None:
    state = nvidia_state(net)
    with pytest.raises(CannotDo, match="class labels"):
        from_nvidia({**state, "mapping.embed.weight": torch.zeros(1)})
    with pytest.raises(CannotDo, match="residual"):
        from_nvidia({**state, "synthesis.b8.skip.weight": torch.zeros(1)})
    with pytest.raises(CannotDo, match="StyleGAN3"):
        from_nvidia({**state, "synthesis.input.weight": torch.zeros(1)})
    with pytest.raises(CorruptWeights, match=r"synthesis\.b8\.extra"):
        from_nvidia({**state, "synthesis.b8.extra": torch.zeros(1)})


def test_a_batch_in_parts_is_the_batch(net, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = latent(5).requires_grad_()
    noise = [
        torch.randn(5 if i % 2 else 1, 1, side, side, generator=torch.Generator().manual_seed(i))
        for i, side in enumerate(net.shape.noise_sizes)
    ]

    def drawn() -> tuple[torch.Tensor, torch.Tensor]:
        picture = net(codes, noise)
        return picture.detach(), torch.autograd.grad(picture.square().sum(), codes)[0]

    whole = drawn()
    monkeypatch.setattr("guided.nets.stylegan2.LARGEST", 2 * 4 * 12 * 16 * 16)
    for ours, theirs in zip(drawn(), whole, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_equalised_layer_keeps_variance_whatever_its_pace() -> None:
    x = torch.randn(512, 64)
    for pace in (1.0, 0.01):
        layer = EqualLinear(64, 256, bias=2.0, pace=pace)
        moved, still = layer(x), layer(torch.zeros(1, 64))
        assert float((moved - still).detach().std()) == pytest.approx(1.0, rel=0.05)
        assert torch.allclose(still, torch.full((1, 256), 2.0 * pace))
        (slope,) = torch.autograd.grad(layer(x[:1]).sum(), layer.weight)
        assert torch.allclose(slope[0], x[0] * pace / 8, rtol=1e-4)


def test_equal_activations_keep_the_second_moment_and_pixels_their_length() -> None:
    x = torch.randn(100_000)
    assert float(activation(x).square().mean()) == pytest.approx(1.04, rel=0.02)  # 2 (1 + .2^2) / 2
    rows = PixelNorm()(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1e3, 0.0]]))
    expected = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-5.0, 0.0]]) / 12.5**0.5
    expected[2] = torch.tensor([-(2.0**0.5), 0.0])
    torch.testing.assert_close(rows, expected)
