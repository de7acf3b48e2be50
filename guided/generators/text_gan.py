"""Text-conditional GAN as a generator: {z, text} to images, and paths between two latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.device import Device
from guided.core.prompts import embed_prompts
from guided.core.protocols import Latent, Scorer
from guided.core.reading import read_json
from guided.core.seeds import Seeds, seed_at
from guided.core.shapes import expect
from guided.errors import CannotDo, CorruptWeights, ShapeError, UsageError, library_message
from guided.nets.text_gan import TextGenerator, build_text_generator
from guided.zoo.packing import load_weights

CONFIG = "config.json"
#: What a configuration says besides the network's shape: its CLIP, and the words it was told.
NOT_SHAPE = ("scorer", "words")
_CENTRED = 32


class TextGan:
    """Renders ``{"z": [B, latent], "text": [B, D]}``: who it is, and what is said of them.

    ``text`` is a CLIP feature of words or of a picture (its length does not matter), or zeros for
    anything.  ``truncation`` in [0, 1] draws each picture's style towards the mean style of its
    text: 1 is the distribution that was learnt, less is less varied.  ``scorer`` is the CLIP it
    was trained with.  Source of the truncation: Sauer et al. 2023 (StyleGAN-T).
    """

    def __init__(
        self,
        net: TextGenerator,
        scorer: Scorer,
        *,
        name: str = "text_gan",
        truncation: float = 1.0,
        device: Device | None = None,
    ) -> None:
        """Raises ``CannotDo`` for a scorer of another width, ``UsageError`` for a truncation."""
        if scorer.width != net.shape.text:
            raise CannotDo(
                f"The GAN {name!r} listens to features of {net.shape.text} numbers and the CLIP "
                f"{scorer.name!r} gives {scorer.width}.",
                hint="Use the CLIP named on the GAN's card.",
            )
        if not 0 <= truncation <= 1:
            raise UsageError(f"truncation lies in [0, 1], not {truncation:g}.")
        self.name = name
        self.scorer = scorer
        self.truncation = truncation
        self.device = device or Device()
        self.net = self.device.prepare(net).to(memory_format=torch.channels_last)

    @property
    def size(self) -> int:
        """The side of the pictures in pixels."""
        return self.net.shape.size

    def start(self, seeds: Seeds, prompts: Sequence[str] | None = None) -> Latent:
        """A latent with a row for each seed; one prompt is for all rows, none asks for anything.

        Raises:
            ShapeError: another number of prompts than seeds.
            UsageError: a prompt with an empty part.
        """
        z = seeds.normal((self.net.shape.latent,), "text_gan/z", self.device.torch)
        if prompts is None:
            return {"z": z, "text": z.new_zeros(len(seeds), self.net.shape.text)}
        return self.condition({"z": z}, prompts)

    def condition(self, latent: Latent, prompts: Sequence[str]) -> Latent:
        """The same z with other words: the same person where the words leave them the same.

        Raises:
            ShapeError: another number of prompts than rows.
        """
        rows = len(latent["z"])
        if len(prompts) not in (1, rows):
            raise ShapeError(f"{len(prompts)} prompts were given for {rows} latents.")
        texts, weights = embed_prompts(self.scorer, list(prompts))
        text = F.normalize((weights[..., None] * texts).sum(1), dim=1)
        return {"z": latent["z"], "text": text.to(self.device.torch).expand(rows, -1).contiguous()}

    def condition_on_images(self, latent: Latent, images: Tensor) -> Latent:
        """The same z told by pictures [B, 3, H, W] in [0, 1] in the place of words."""
        with torch.no_grad():
            return {"z": latent["z"], "text": self.scorer.embed_images(images)}

    def render(self, latent: Latent) -> Tensor:
        """Pictures [B, 3, size, size] in [0, 1], float32; differentiable in both leaves.

        Raises:
            ShapeError: other leaves, or leaves of another shape.
        """
        if set(latent) != {"z", "text"}:
            raise ShapeError(
                f"A latent of {self.name!r} has the leaves z and text; given: "
                f"{', '.join(sorted(latent)) or 'none'}."
            )
        rows = expect(latent["z"], f"b {self.net.shape.latent}", "z")["b"]
        expect(latent["text"], f"{rows} {self.net.shape.text}", "text")
        kind = self.device.dtype
        text = F.normalize(latent["text"].float(), dim=1).to(kind)
        styles = self.net.styles(latent["z"].to(kind), text)
        if self.truncation < 1:
            styles = torch.lerp(self._centre(text), styles, self.truncation)
        return ((self.net.synthesis(styles) + 1) / 2).clamp(0, 1)

    def _centre(self, text: Tensor) -> Tensor:
        """The mean style [B, style] of each text over a fixed set of z."""
        z = Seeds.of(0, _CENTRED).normal((self.net.shape.latent,), "text_gan/centre", text.device)
        rows = len(text)
        every = self.net.styles(
            z.to(text.dtype).repeat(rows, 1), text.repeat_interleave(_CENTRED, 0)
        )
        return every.view(rows, _CENTRED, -1).mean(1)


def load_text_gan(
    path: str | Path,
    scorer: Scorer,
    device: Device | None = None,
    *,
    name: str = "",
    truncation: float = 1.0,
) -> TextGan:
    """The GAN in a weight file with its ``config.json`` beside it.

    Raises:
        MissingWeights: no such file.
        CorruptWeights: no configuration, or weights of another size than it says.
        CannotDo: a scorer of another width.
    """
    file = Path(path)
    config = read_config(file)
    net = build_text_generator(
        {key: value for key, value in config.items() if key not in NOT_SHAPE}, load_weights(file)
    )
    known = name or file.resolve().parent.name
    return TextGan(net, scorer, name=known, truncation=truncation, device=device)


def read_config(file: Path) -> dict[str, object]:
    """The configuration beside a weight file.

    Raises:
        CorruptWeights: there is none, or it cannot be read.
    """
    try:
        config = read_json(file.parent / CONFIG)
    except (OSError, ValueError) as error:
        raise CorruptWeights(
            f"The text GAN {file} has no readable {CONFIG} beside it: {library_message(error)}.",
            hint="Copy the whole folder that the training wrote.",
        ) from error
    if not isinstance(config, dict):
        raise CorruptWeights(f"{file.parent / CONFIG} holds no table.")
    return config


def slerp(first: Tensor, second: Tensor, part: Tensor) -> Tensor:
    """Between vectors [B, n] along the great circle, ``part`` [B] of the way, lengths in between.

    Source: Shoemake 1985; opposite or equal directions are joined by the straight line.
    """
    a, b = F.normalize(first, dim=1), F.normalize(second, dim=1)
    cosine = (a * b).sum(1, keepdim=True).clamp(-1, 1)
    angle, t = cosine.acos(), part.to(first)[:, None]
    sine = angle.sin()
    turned = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / sine.clamp_min(1e-6)
    lengths = torch.lerp(first.norm(dim=1, keepdim=True), second.norm(dim=1, keepdim=True), t)
    straight = torch.lerp(first, second, t)
    return torch.where(sine < 1e-4, straight, turned * lengths)


def between(first: Latent, second: Latent, parts: Sequence[float]) -> Latent:
    """The latents of one row each at ``parts`` of the way: z on the sphere, the text straight.

    Raises:
        ShapeError: latents of more than one row.
    """
    if any(len(leaf) != 1 for leaf in (*first.values(), *second.values())):
        raise ShapeError("A way leads between two latents of one row each.")
    t = torch.tensor([float(part) for part in parts], device=first["z"].device)
    rows = (len(t), -1)
    z = slerp(first["z"].expand(rows), second["z"].expand(rows), t)
    text = torch.lerp(first["text"].expand(rows), second["text"].expand(rows), t[:, None])
    return {"z": z, "text": text}


@dataclass(frozen=True)
class Pick:
    """The best of several: its latent (a row for each prompt), pictures, cosines, and seeds."""

    latent: Latent
    images: Tensor
    cosines: Tensor
    seeds: tuple[int, ...]


@torch.no_grad()
def best_of(gan: TextGan, seeds: Seeds, prompts: Sequence[str], tries: int) -> Pick:
    """For each row the one of ``tries`` seeds whose picture CLIP finds most like its prompt.

    Row i with the seed s tries s, s + T, s + 2 T, ... where T is the number of rows, so that rows
    with successive seeds share none.

    Raises:
        UsageError: fewer than one try.
    """
    if tries < 1:
        raise UsageError(f"At least 1 try is needed, not {tries}.")
    best: Pick | None = None
    for turn in range(tries):
        here = Seeds(tuple(seed_at(value, turn * len(seeds)) for value in seeds.values))
        latent = gan.start(here, prompts)
        images = gan.render(latent)
        cosines = (gan.scorer.embed_images(images) * latent["text"]).sum(1)
        tried = Pick(latent, images, cosines, here.values)
        best = tried if best is None else _better(best, tried)
    assert best is not None
    return best


def _better(one: Pick, other: Pick) -> Pick:
    wins = other.cosines > one.cosines
    latent = {
        name: torch.where(wins[:, None], other.latent[name], leaf)
        for name, leaf in one.latent.items()
    }
    seeds = tuple(
        b if win else a for a, b, win in zip(one.seeds, other.seeds, wins.tolist(), strict=True)
    )
    images = torch.where(wins[:, None, None, None], other.images, one.images)
    return Pick(latent, images, torch.where(wins, other.cosines, one.cosines), seeds)
