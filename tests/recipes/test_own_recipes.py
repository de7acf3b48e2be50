"""The recipes of the shipped diffusion model: they can be read, and what they make fits in."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.nets.denoiser import PortraitDenoiser
from guided.nets.latent_scorer import LatentNet
from guided.training.fit import parse
from guided.training.objective import TrainingContext
from guided.training.objectives.autoencoder import Autoencoders
from guided.training.registry import find
from guided.worlds.portraits.training.autoencoder import AutoencoderObjective
from guided.worlds.portraits.training.denoiser import DenoiserObjective
from guided.worlds.portraits.training.latent_scorer import LatentScorerObjective
from guided.zoo.kits import load_kit

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "train"
OBJECTIVES = {
    "vae": AutoencoderObjective, "denoiser": DenoiserObjective,
    "latent_scorer": LatentScorerObjective,
}  # fmt: skip
WORDS, EMBEDDING = 192, 256


def made(name: str) -> Any:
    table = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    settings, _, _ = parse(table)
    assert settings.title == name
    return find(settings.objective, settings.settings, TrainingContext())


def test_the_student_goes_on_from_its_first_part() -> None:
    first, second = (
        tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
        for name in ("latent_scorer_features", "latent_scorer")
    )
    parse(first)
    assert second["start"] == f"outputs/training/{first['name']}/model.safetensors"
    for key in ("denoiser", "width", "layers", "patch"):
        assert first["settings"][key] == second["settings"][key]


def half_bytes(module: torch.nn.Module) -> int:
    return 2 * sum(tensor.numel() for tensor in module.state_dict().values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_recipe_makes_what_the_kit_names(name: str) -> None:
    assert isinstance(made(name), OBJECTIVES[name])
    assert load_kit("portraits")[name] == name


def test_the_models_fit_their_room() -> None:
    vae, denoiser, student = (made(name).settings for name in OBJECTIVES)
    with torch.device("meta"):
        both = Autoencoders(vae)
        side = vae.size // (2 * 2 ** (len(vae.widths) - 1))
        net = PortraitDenoiser(
            in_channels=vae.channels, sample_size=side, patch_size=denoiser.patch,
            width=denoiser.width, heads=denoiser.heads, layers=denoiser.layers, text_width=WORDS,
            embed_width=EMBEDDING, image_tokens=denoiser.image_tokens,
        )  # fmt: skip
        latent = LatentNet(
            vae.channels, side, EMBEDDING, student.width, student.layers, student.patch
        )
    assert side == 16
    assert sum(p.numel() for p in latent.parameters()) <= 800_000
    assert half_bytes(both) + half_bytes(latent) <= 4 << 20
    assert sum(2 * p.numel() for p in net.parameters()) <= 7 << 20
    assert (side // denoiser.patch) ** 2 <= 256
