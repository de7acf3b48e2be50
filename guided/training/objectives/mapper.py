"""Trains a latent mapper: the change of a W+ code that one prompt asks for, in one pass.

Source: Patashnik et al. 2021 (StyleCLIP, arXiv 2103.17249), section 5; the weights are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from guided.core.device import Precision
from guided.core.objective import Candidate, LossContext
from guided.core.objective import Objective as Guidance
from guided.core.prompts import embed_prompts, parse
from guided.core.protocols import Latent
from guided.errors import CannotDo
from guided.generators.latents import read_delta
from guided.generators.stylegan2 import StyleGan2
from guided.losses.clip import Clip
from guided.losses.directional import Directional
from guided.losses.identity import Identity
from guided.losses.latent_l2 import LatentL2
from guided.models.loading import load_embedder, load_generator, load_scorer, placed
from guided.nets.mappers import STEP, LevelsMapper
from guided.scorers.clip import ClipScorer
from guided.training.objective import (
    BatchContext,
    Metric,
    ObjectiveSettings,
    Parts,
    Product,
    TrainingContext,
    TrainingObjective,
)

#: Batch positions of the monitor's images, which no training reaches.
MONITOR_POSITION, MONITOR_COUNT = 10**9, 32
_PREFIX = "mapper."

Level = Literal["course", "medium", "fine"]


class MapperSettings(ObjectiveSettings):
    """The ``[settings]`` of a mapper's recipe."""

    prompt: str = Field(description="what every image should become")
    neutral: str = Field("a person", description="what images show, in neutral words")
    generator: str = Field("stylegan2", description="the frozen generator, by name or file")
    scorer: str = Field("clip", description="the guiding CLIP")
    identity: str = Field("identity", description="the identity embedder; empty: none")
    frozen_precision: Precision = Field("bf16", description="precision of the frozen models")
    levels: tuple[Level, ...] = Field(
        ("course", "medium", "fine"), description="rows that may change: 0-3, 4-7, 8 on"
    )
    depth: int = Field(4, ge=1, description="layers of each level's mapper")
    truncation: float = Field(0.7, gt=0, le=1, description="how far images stray from the mean")
    clip: float = Field(1.0, ge=0, description="weight of the distance to the prompt")
    directional: float = Field(0.0, ge=0, description="weight of moving as the words do")
    same: float = Field(0.1, ge=0, description="weight of the loss of identity")
    near: float = Field(0.8, ge=0, description="weight of the mean squared change of the code")


class Recalling:
    """A scorer that encodes each list of texts once."""

    def __init__(self, scorer: ClipScorer) -> None:
        self._scorer = scorer
        self._known: dict[tuple[str, ...], Tensor] = {}
        self.name, self.width, self.scale = scorer.name, scorer.width, scorer.scale

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit vectors [B, width] of pictures."""
        return self._scorer.embed_images(images)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width] of texts."""
        key = tuple(texts)
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = self._scorer.embed_texts(list(texts))
        return self._known[key]


class MapperObjective(TrainingObjective[Tensor]):
    """Agreement with the prompt, the same person, a small change."""

    name = "mapper"
    Settings = MapperSettings

    def __init__(self, settings: MapperSettings, ctx: TrainingContext) -> None:
        super().__init__(settings, ctx)
        parse(settings.prompt)  # a prompt that cannot be read fails here, not after the loading
        if settings.same > 0 and not settings.identity:
            raise CannotDo(
                "The loss of identity has a weight, but no embedder is named.",
                hint="Set identity to a model's name or file, or same = 0.",
            )

    @cached_property
    def generator(self) -> StyleGan2:
        """The frozen generator."""
        place = placed(self.ctx.device, self.settings.frozen_precision)
        return load_generator(self.settings.generator, place)

    @cached_property
    def scorer(self) -> Recalling:
        """The guiding CLIP."""
        place = placed(self.ctx.device, self.settings.frozen_precision)
        return Recalling(load_scorer(self.settings.scorer, place))

    @cached_property
    def models(self) -> dict[str, Any]:
        """The models that losses ask for by role."""
        if self.settings.same == 0:
            return {}
        place = placed(self.ctx.device, self.settings.frozen_precision)
        return {"identity": load_embedder(self.settings.identity, place)}

    @cached_property
    def guidance(self) -> Guidance:
        """The weighted losses."""
        s = self.settings
        terms = (
            (s.clip, Clip(s.prompt)),
            (s.directional, Directional(s.prompt, source=s.neutral)),
            (s.same, Identity()),
            (s.near, LatentL2(form="mean")),
        )
        return Guidance.of(*(weight * loss for weight, loss in terms if weight > 0))

    @cached_property
    def own_codes(self) -> Tensor | None:
        """The codes [N, rows, style] of a user's folder of latent files, if there is one."""
        if self.ctx.data is None:
            return None
        suffixes = (".pt", ".pth", ".safetensors")
        files = sorted(f for f in Path(self.ctx.data).iterdir() if f.suffix in suffixes)
        if not files:
            raise CannotDo(
                f"{self.ctx.data} holds no latent files.",
                hint=f"Expected are files that end in {', '.join(suffixes)} with W+ codes.",
            )
        return torch.cat([self._w_of(file) for file in files])

    def _w_of(self, file: Path) -> Tensor:
        start = read_delta(file).start
        shape = self.generator.net.shape
        if "w" not in start or start["w"].shape[1:] != (shape.rows, shape.style):
            shapes = {name: list(leaf.shape) for name, leaf in start.items()}
            raise CannotDo(
                f"{file} holds {shapes}, but {self.generator.name!r} takes W+ codes "
                f"[N, {shape.rows}, {shape.style}].",
                hint="Use codes of the same generator.",
            )
        return start["w"]

    def build(self) -> nn.Module:
        """A fresh mapper."""
        s = self.settings
        return LevelsMapper(self.generator.net.shape.style, s.levels, s.depth)

    @torch.no_grad()
    def batch(self, share: BatchContext) -> Tensor:
        """Codes [n, rows, style] of random images, or of the user's latents."""
        stream = share.generator("mapper")
        own = self.own_codes
        if own is not None:
            rows = torch.randint(len(own), (share.size,), generator=stream)[share.rows]
            return own[rows]
        net, place = self.generator.net, self.generator.device
        z = torch.randn(share.size, net.shape.latent, generator=stream)[share.rows]
        styles = net.mapping(z.to(place.torch, place.dtype)).float()
        average: Tensor = self.generator.middle()["w"][0]
        codes: Tensor = average + self.settings.truncation * (styles[:, None] - average)
        return codes

    def loss(self, model: nn.Module, batch: Tensor, share: BatchContext) -> tuple[Tensor, Parts]:
        """The mean over images of the weighted losses of their changed codes."""
        change = STEP * model(batch).float()
        with torch.autocast(batch.device.type, enabled=False):
            total, parts = self._judged(batch, change)
        return total.mean(), {name: part.mean() for name, part in parts.items()}

    def _judged(self, codes: Tensor, change: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        def render(latent: Latent) -> Tensor:
            return self.generator.render(latent)

        with torch.no_grad():
            first = Candidate({"w": codes}, render)
            prompts = (self.settings.prompt,) * len(codes)
            bound = self.guidance.bind(LossContext(self.scorer, prompts, first, self.models))
        return bound(Candidate({"w": codes + change}, render, 1.0, first))

    @torch.no_grad()
    def monitor(self, model: nn.Module) -> dict[str, float]:
        """The gain in the cosine with the prompt, and what is lost of the person."""
        codes = self.batch(BatchContext(self.ctx.seed, MONITOR_POSITION, MONITOR_COUNT))
        codes = codes.to(next(model.parameters()).device)
        texts, weights = embed_prompts(self.scorer, (self.settings.prompt,))
        wanted = F.normalize((weights[..., None] * texts).sum(1), dim=1)
        before = self.generator.render({"w": codes})
        after = self.generator.render({"w": codes + STEP * model(codes)})
        old, new = self.scorer.embed_images(before), self.scorer.embed_images(after)
        found = {
            "gain": float(((new - old) * wanted).sum(1).mean()),
            "change": float((after - before).abs().mean()),
        }
        if "identity" in self.models:
            same = self.models["identity"].embed_images
            found["identity"] = float((same(before) * same(after)).sum(1).mean())
        return {f"monitor_{name}": value for name, value in found.items()}

    def product(self, model: nn.Module) -> Product:
        """The mapper in the form of StyleCLIP's public files."""
        found = self.monitor(model)
        ideal = {"monitor_identity": 1.0, "monitor_change": 0.0}
        lows = {"monitor_identity": None, "monitor_change": None}
        metrics = {
            name.removeprefix("monitor_"): Metric(value, lows.get(name, 0.0), ideal.get(name))
            for name, value in found.items()
        }
        notes = (
            f"Changes images of the generator {self.settings.generator} as the prompt "
            f"{self.settings.prompt!r} asks. gain: of the cosine under the guiding CLIP; change: "
            "mean absolute difference of the picture; identity: cosine with the person before."
        )
        tensors = {f"{_PREFIX}{name}": t for name, t in model.state_dict().items()}
        return Product("mapper", "styleclip", metrics, notes=notes, tensors=tensors)

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a mapper's file back."""
        state = {name.removeprefix(_PREFIX): t for name, t in tensors.items()}
        self.inside(model).load_state_dict(state)
