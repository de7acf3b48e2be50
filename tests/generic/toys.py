"""Toy models one can see through, for tests of anything that a registry finds."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.language_model import TextCandidate
from guided.core.objective import Candidate, LossContext

SIDE, WIDTH, VOCABULARY = 8, 6, 12


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class ToyScorer:
    """Unit projections of the pixels; a text's embedding is drawn from its letters."""

    name, width, scale = "toy", WIDTH, 100.0
    preprocess = SimpleNamespace(size=(4, 4), mean=(0.5, 0.4, 0.3), std=(0.3, 0.25, 0.2))

    def embed_images(self, images: Tensor) -> Tensor:
        pixels = F.interpolate(images, (4, 4), mode="area").flatten(1)
        return F.normalize(pixels @ noise(0, pixels.shape[1], WIDTH) + 0.1, dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        rows = [noise(1 + sum(map(ord, text)), WIDTH) for text in texts]
        return F.normalize(torch.stack(rows), dim=1)


class ToyTrunk:
    """The pixels are their own features."""

    name = "toy"

    def features(self, images: Tensor) -> Tensor:
        return images

    def distance(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours - theirs).square().flatten(1).mean(1)


class ToyContinuations:
    """The cosine of token i is (i mod 5) / 5, whatever the row."""

    def cosines(self, tokens: Tensor) -> Tensor:
        return (tokens % 5) / 5


def render(latent: dict[str, Tensor]) -> Tensor:
    return torch.sigmoid(latent["x"])


def image_draft(x: Tensor, start: Candidate | None = None) -> Candidate:
    return Candidate({"x": x}, render, 0.5, start)


def text_draft(x: Tensor) -> TextCandidate:
    """A draft of x [B, 12], whose logits are x beside a plain model's that differ by row."""
    plain = torch.log_softmax(noise(9, 4, VOCABULARY)[: len(x)], dim=-1)
    return TextCandidate(lambda: x, plain)


def image_scene(x: Tensor, rows: slice) -> LossContext:
    """A scene of the rows of a batch of four, with everything that losses of images ask for."""
    prompts = ("pink hair", "a hat", "pink hair | a hat::-0.3", "bald")[rows]
    toward = ToyScorer().embed_texts
    extras: dict[str, Any] = {
        "sources": ["a face", "a person", "a face", "hair"][rows],
        "image_prompts": [torch.sigmoid(noise(7, 1, 3, 5, 9))],
        "mask": (noise(8, 4, 1, SIDE, SIDE) > 0).float()[rows],
        "target": torch.sigmoid(noise(6, 4, 3, SIDE, SIDE))[rows],
        "towards": lambda text, seen: toward([text]).expand(len(seen), -1),
    }
    models = {"identity": ToyScorer(), "perceptual": ToyTrunk()}
    return LossContext(ToyScorer(), prompts, image_draft(x), models, extras)


def text_scene(x: Tensor) -> LossContext:
    models = {"continuations": ToyContinuations()}
    return LossContext(None, (), Candidate({"x": x}, render), models)
