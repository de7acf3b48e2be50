"""Agreement with the public StyleCLIP, StyleGAN2 and e4e code on random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from guided.core.boxes import box_resize
from guided.core.objective import Candidate, LossContext
from guided.generators.stylegan2 import load_stylegan2
from guided.guidance.directions import channel_relevance, channel_weights, style_change
from guided.guidance.updates import ramp
from guided.losses.identity import Identity
from guided.nets.e4e import build_encoder
from guided.nets.irse50 import build_irse50, crop_face
from guided.nets.mappers import LevelsMapper, build_mapper, mapped
from guided.nets.stylegan2 import StyleGAN2, mix, truncate
from guided.nets.stylegan2_formats import build_stylegan2
from guided.scorers.arcface import ArcFace
from tests.helpers.tiny_faces import no_noise
from tests.parity.comparing import (
    GRADIENT,
    LATENT,
    PICTURE,
    Load,
    flat,
    near,
    near_norm,
    numbered,
    without_prefix,
)

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def io(load: Load) -> dict[str, Tensor]:
    return load("stylegan2_io")


# ------------------------------------------------------------------ generator


def test_mapping_and_pictures(net: StyleGAN2, io: dict[str, Tensor]) -> None:
    w = net.mapping(io["z"])
    near(w, io["w"], LATENT)
    near(net.mapping(io["z2"]), io["w2"], LATENT)
    near(net.spread(w), io["w_plus"], LATENT)
    near(net(net.spread(w)), io["image_const_noise"], PICTURE)
    near(net(io["w_plus_random"]), io["image_w_plus_random"], PICTURE)


@pytest.mark.parametrize("psi", [0.7, 0.5])
def test_truncation(net: StyleGAN2, io: dict[str, Tensor], psi: float) -> None:
    drawn = truncate(io["w_plus"], io["latent_avg"], psi)
    if psi == 0.7:
        near(drawn, io["w_plus_trunc07"], LATENT)
    near(net(drawn), io[f"image_trunc0{round(10 * psi)}"], PICTURE)


def test_style_mixing(net: StyleGAN2, io: dict[str, Tensor]) -> None:
    both = mix(net.spread(io["w"]), net.spread(io["w2"]), 4)
    near(net(both), io["image_mix_index4"], PICTURE)


def test_noise_given_and_off(net: StyleGAN2, io: dict[str, Tensor]) -> None:
    w_plus = net.spread(io["w"])
    near(net(w_plus, numbered(io, "explicit_noise")), io["image_explicit_noise"], PICTURE)
    near(net(w_plus, no_noise(net.shape)), io["image_zero_noise"], PICTURE)


def objective(image: Tensor, io: dict[str, Tensor]) -> Tensor:
    return (image * io["loss_head"]).mean() + 0.5 * image.square().mean()


def test_gradients_of_w_plus_and_z(net: StyleGAN2, io: dict[str, Tensor]) -> None:
    w_plus = io["w_plus_random"].clone().requires_grad_()
    loss = objective(net(w_plus), io)
    near(loss.detach(), io["loss_w_plus"][0], 1e-5)
    near_norm(torch.autograd.grad(loss, w_plus)[0], io["grad_w_plus"], GRADIENT)
    z = io["z"].clone().requires_grad_()
    loss = objective(net(net.spread(net.mapping(z))), io)
    near_norm(torch.autograd.grad(loss, z)[0], io["grad_z"], GRADIENT)


def test_style_space(net: StyleGAN2, io: dict[str, Tensor]) -> None:
    codes = net.codes(io["w_plus_random"])
    for ours, theirs in zip(codes, numbered(io, "s"), strict=True):
        near(ours, flat(theirs), LATENT)
    leaves = [code.clone().requires_grad_() for code in codes]
    gradients = torch.autograd.grad(objective(net.synthesis(leaves), io), leaves)
    for ours, theirs in zip(gradients, numbered(io, "grad_s"), strict=True):
        near_norm(ours, flat(theirs), GRADIENT)
    edited = [flat(code) for code in numbered(io, "s_edited")]
    near(net.synthesis(edited), io["image_s_edited"], PICTURE)


def test_modulated_weights_give_the_same(
    net: StyleGAN2, io: dict[str, Tensor], reference: ModuleType
) -> None:
    w_plus = io["w_plus_random"]
    near(net(w_plus), reference.render(net, w_plus), 1e-5)
    double = build_stylegan2(net.state_dict()).double().requires_grad_(False)
    near(double(w_plus.double()), reference.render(double, w_plus.double()), 1e-12)


def test_public_checkpoint_file(load: Load, io: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "stylegan2.pt"
    torch.save({"g_ema": load("stylegan2_g_ema"), "latent_avg": io["latent_avg"]}, path)
    generator = load_stylegan2(path, overshoot="keep")
    near(generator.average, io["latent_avg"], 0)
    pictures = generator.render({"w": io["w_plus_random"]})
    near(2 * pictures - 1, io["image_w_plus_random"], PICTURE)


def test_nvidia_names(load: Load) -> None:
    state, io = load("nvidia_stylegan2_state"), load("nvidia_stylegan2_io")
    net = build_stylegan2(state).requires_grad_(False)
    average = state["mapping.w_avg"]
    ws = net.spread(net.mapping(io["z"]))
    near(ws, io["ws"], LATENT)
    near(truncate(ws, average, 0.7), io["ws_psi07"], LATENT)
    coarse = truncate(ws, average, 0.7, rows=4)
    near(coarse, io["ws_psi07_cutoff4"], LATENT)
    near(net(ws), io["image_const"], PICTURE)
    near(net(coarse), io["image_const_psi07_cutoff4"], PICTURE)
    near(net(ws, no_noise(net.shape)), io["image_none"], PICTURE)


# ------------------------------------------------------------------ losses and schedule


def test_clip_resize_and_face_crop(load: Load) -> None:
    io = load("losses_io")
    sizes = [name.removeprefix("clip_in_") for name in io if name.startswith("clip_in_")]
    faces = [name.removeprefix("id_in_") for name in io if name.startswith("id_in_")]
    assert sizes
    assert faces
    for size in sizes:
        near(box_resize(io[f"clip_in_{size}"].float(), 224), io[f"clip_out_{size}"], 1e-5)
    for size in faces:
        near(crop_face(io[f"id_in_{size}"].float()), io[f"id_crop_{size}"], 1e-5)


def test_learning_rates(load: Load) -> None:
    tables = {k: v for k, v in load("losses_io").items() if k.startswith("lr_")}
    assert tables
    for rates in tables.values():
        ours = [0.1 * ramp(i / len(rates)) for i in range(len(rates))]
        near(torch.tensor(ours, dtype=torch.float64), rates, 1e-12)


# ------------------------------------------------------------------ mappers


def test_mappers(load: Load) -> None:
    state = without_prefix(load("levels_mapper"), "mapper.")
    io = load("mapper_io")
    mapper = build_mapper(state)
    assert isinstance(mapper, LevelsMapper)
    near(mapper(io["x"]), io["levels_out"], LATENT)
    near(io["x"] + mapped(mapper, io["x"]), io["levels_edited"], LATENT)
    near(mapper.course_mapping(io["x"][:, 0]), io["mapper_out_2d_input"], LATENT)
    coarse = build_mapper({k: v for k, v in state.items() if "fine" not in k})
    near(coarse(io["x"]), io["levels_out_no_fine"], LATENT)
    single = {k.replace("course_", ""): v for k, v in state.items() if "course" in k}
    near(build_mapper(single)(io["x"]), io["single_out"], LATENT)


def test_style_space_mapper(load: Load) -> None:
    io = load("mapper_io")
    mapper = build_mapper(without_prefix(load("stylespace_mapper"), "mapper."))
    changes = mapper([flat(code) for code in numbered(io, "ss_x")])
    for ours, theirs in zip(changes, numbered(io, "ss_out"), strict=True):
        near(ours, flat(theirs), LATENT)


# ------------------------------------------------------------------ identity and inversion


def test_face_network(load: Load) -> None:
    net, io = build_irse50(load("irse50_narrow")), load("irse50_io")
    with torch.no_grad():
        near(net(io["x112"].float()), io["embedding"], LATENT)
        maps = net.input_layer(io["x112"].float())
        for i, block in enumerate(net.body):
            maps = block(maps)
            if f"body_{i}_spatial_mean" in io:
                near(maps.mean((2, 3)), io[f"body_{i}_spatial_mean"], PICTURE)
            if i == 6:
                near(maps[:1], io["body_6_first"], PICTURE)
        near(maps, io["body_23"], PICTURE)


def test_identity_loss(load: Load) -> None:
    model = ArcFace(build_irse50(load("irse50_narrow")))
    io = load("irse50_io")
    first, second = ((io[name].float() + 1) / 2 for name in ("id_a", "id_b"))
    near(model.embed_images(first), io["id_feat_a"], LATENT)
    scene = LossContext(
        None, (), Candidate({"x": first}, lambda latent: latent["x"]), {"identity": model}
    )
    judge = Identity().bind(scene)
    moved = second.clone().requires_grad_()
    loss = judge(Candidate({"x": moved}, lambda latent: latent["x"])).mean()
    near(loss.detach(), io["id_loss"][0], 1e-5)
    # The recorded gradient is for pixels in [-1, 1], which run twice as fast as ours.
    near_norm(torch.autograd.grad(loss, moved)[0] / 2, io["id_loss_grad_b"], GRADIENT)


def test_encoders(load: Load) -> None:
    state = without_prefix(load("e4e_encoder_narrow_fp16"), "encoder.")
    io = load("e4e_io")
    with torch.no_grad():
        codes = build_encoder(state)(io["x256"].float())
        near(codes, io["e4e_codes_before_avg"], PICTURE)
        near(codes + io["latent_avg_repeated"], io["e4e_codes"], PICTURE)
        psp = build_encoder(state, "psp")(io["x256"].float())
    near(psp, io["psp_codes_before_avg"], PICTURE)


# ------------------------------------------------------------------ global directions


@pytest.fixture(scope="module")
def directions(load: Load) -> dict[str, Tensor]:
    return load("global_directions_io")


def betas(io: dict[str, Tensor]) -> Iterator[str]:
    for name in io:
        if name.startswith("num_channels_beta"):
            yield name.removeprefix("num_channels_beta")


def test_channel_relevance(directions: dict[str, Tensor]) -> None:
    features = directions["channel_image_features"]
    near(channel_relevance(features), directions["fs3"][: len(features)], LATENT)


def test_global_directions(directions: dict[str, Tensor]) -> None:
    deviations = numbered(directions, "code_std")
    colours = range(1, len(deviations), 3)
    found = list(betas(directions))
    assert found
    for beta in found:
        weights = channel_weights(directions["fs3"], directions["dt"], float(beta))
        assert int((weights != 0).sum()) == int(directions[f"num_channels_beta{beta}"])
        change = style_change(weights, deviations, colours)
        for ours, theirs in zip(change, numbered(directions, f"delta_beta{beta}"), strict=True):
            near(ours, theirs, LATENT)
    weights = channel_weights(directions["fs3"], directions["dt"], 0.15)
    for i, part in enumerate(style_change(weights, deviations, colours)):
        start = directions[f"dlatents_{i:02d}"][:2]
        moved = torch.stack([start + alpha * part for alpha in (-3, 0, 4)], dim=1)
        near(moved, directions[f"codes_{i:02d}"], LATENT)
