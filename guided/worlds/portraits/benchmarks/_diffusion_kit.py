"""The models that the diffusion benchmark times: the shipped kit, or its recipes' shapes at random.

What a step costs does not depend on the weights, so that speed can be measured before a training.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

import torch

from guided.core.device import Device
from guided.errors import GuidedError
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion.portrait_folder import assemble, load_own, parts_of, scheduler
from guided.generators.diffusion.vae import Autoencoder, prepare_vae
from guided.nets.denoiser import PortraitDenoiser
from guided.nets.latent_scorer import LatentNet
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.latent import LatentClip, load_latent_scorer
from guided.training.objectives.autoencoder import Autoencoders
from guided.worlds.portraits.training.autoencoder import AutoencoderSettings
from guided.worlds.portraits.training.denoiser import DenoiserSettings
from guided.worlds.portraits.training.latent_scorer import LatentScorerSettings
from guided.zoo import find
from guided.zoo.recipes import shipped_recipes


@dataclass(frozen=True)
class Kit:
    """A model, the CLIP that guides it, the latent scorer, and what of them is trained."""

    model: Diffusion
    scorer: ClipScorer
    student: LatentClip
    trained: tuple[str, ...]


def settings(name: str) -> dict[str, Any]:
    """The ``[settings]`` of a training recipe."""
    found: dict[str, Any] = tomllib.loads(
        (shipped_recipes() / "train" / f"{name}.toml").read_text("utf-8")
    )["settings"]
    return found


def kit(device: Device) -> Kit:
    """The shipped kit where it is installed; what is not is random, in its recipe's shape."""
    torch.manual_seed(0)
    scorer = load_clip("clip", device)
    trained = ["clip"]
    try:
        folder = find("denoiser", "denoiser").folder
        assert parts_of(folder) is not None
        model = load_own(folder, scorer, device)
        trained += ["vae", "denoiser"]
    except GuidedError:
        model = random_model(scorer, device)
    try:
        student = load_latent_scorer("latent_scorer", scorer.fingerprint, device)
        trained.append("latent_scorer")
    except GuidedError:
        student = random_student(model, scorer, device)
    return Kit(model, scorer, student, tuple(trained))


def random_model(scorer: ClipScorer, device: Device) -> Diffusion:
    """The recipes' autoencoder and denoiser with random weights."""
    told, s = AutoencoderSettings(**settings("vae")), DenoiserSettings(**settings("denoiser"))
    both = Autoencoders(told)
    preview = (0.2 * torch.randn(told.channels + 1, 3)).tolist()
    own = Autoencoder(prepare_vae(both.vae, device), prepare_vae(both.tiny, device), preview)
    words = scorer.model.get_parameter("token_embedding.weight").shape[1]
    net = PortraitDenoiser(
        in_channels=own.channels, sample_size=told.size // own.factor, patch_size=s.patch,
        width=s.width, heads=s.heads, layers=s.layers, text_width=words, embed_width=scorer.width,
        image_tokens=s.image_tokens,
    )  # fmt: skip
    with torch.no_grad():
        for layer in (net.words_time, net.image_time, net.net.proj_out):
            layer.weight.normal_(std=0.02)
    return assemble(net, scheduler(), own, scorer, device)


def random_student(model: Diffusion, scorer: ClipScorer, device: Device) -> LatentClip:
    """The recipe's latent scorer with random weights."""
    s = LatentScorerSettings(**settings("latent_scorer"))
    channels, side, _ = model.pipe.latent_shape()
    net = LatentNet(channels, side, scorer.width, s.width, s.layers, s.patch)
    return LatentClip(net, device, scorer.fingerprint)
