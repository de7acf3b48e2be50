"""What scripts/judge unclip judges: two stages, one that is told words, variations.

Everything is made as ``guided generate`` and ``guided vary`` make it, and kept.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.core.images import to_tensor
from guided.core.run import drain
from guided.generators.diffusion.source import encode_images, image_size
from guided.judging.result_cache import ResultCache, digest_of, short
from guided.scorers.clip import load_clip
from guided.tasks import _generate_diffusion, _generate_unclip, vary
from guided.tasks._generate_options import Options
from guided.tasks.base import TaskContext
from guided.worlds.portraits.judging.diffusion_figures import Redraw
from guided.worlds.portraits.judging.prior_runs import prior_folder
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.judging.text_image_figures import (
    MISSES,
    Make,
    PromptSet,
    hard_negatives,
)
from guided.zoo.kits import load_kit

ROLES = ("denoiser", "prior", "scorer", "reader", "judge")
BATCH = 8


class UnclipContext:
    """The models, who judges them, and what they make; ``given`` is the command line."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        kit = {**load_kit("portraits"), **{r: v for r in ROLES if (v := getattr(given, r))}}
        if (Path(kit["denoiser"]) / "model_index.json").is_file():
            kit["denoiser"] = f"local-dir:{kit['denoiser']}"
        self.ctx = TaskContext(device_name=given.device, kit=kit, world_name="portraits")
        self.reader = Reader.load(kit["reader"], self.ctx.device)
        self.judge = load_clip(kit["judge"], self.ctx.device, role="judge")
        self.varying = vary.VariationJob.of(self.vary_options(), self.ctx)
        self.size = image_size(self.varying.model.pipe)
        decoder = self.ctx.models.needed("denoiser").locate().folder
        self.state = [digest_of(decoder), self.varying.scorer.fingerprint]
        self.kept = ResultCache.of(given.out, given.minutes)

    @cached_property
    def model(self) -> Any:
        """Both stages; what does without the prior is judged before there is one."""
        return self.ctx.models.unclip

    def options(self, texts: Sequence[str], method: str, cfg: float | None = None) -> Options:
        """The verb's keys for a method that makes images of texts."""
        given = self.given
        return Options(
            prompts=list(texts), method=method, steps=given.steps,
            cfg=given.cfg if cfg is None else cfg,
            prior_steps=given.prior_steps, prior_cfg=given.prior_cfg, tries=given.tries,
        )  # fmt: skip

    def vary_options(self, **more: Any) -> vary.Options:
        """The verb's keys for variations."""
        given = self.given
        return vary.Options(steps=given.vary_steps, **{"cfg": given.vary_cfg, **more})

    # ------------------------------------------------------------------ words

    def maker(self, method: str, cfg: float | None = None) -> Make:
        """Pictures of texts by a method of ``guided generate``, 8 bits a colour."""
        state = [
            *self.state,
            *([digest_of(prior_folder(self.given))] if method == "unclip" else []),
        ]

        def make(texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
            parts = []
            for first in range(0, len(texts), BATCH):
                words, own = texts[first : first + BATCH], seeds[first : first + BATCH]
                rows = list(zip(words, own, strict=True))
                options = self.options(words, method, cfg)
                asked = options.model_dump(mode="json", exclude={"prompts"})
                name = f"text/{method}-{short([state, asked, rows])}.png"
                parts.append(self.kept.images(name, partial(self._made, options, rows)))
            return torch.cat(parts)

        return make

    def _made(self, options: Options, rows: list[tuple[str, int]]) -> Tensor:
        if options.method == "unclip":
            job: Any = _generate_unclip.UnclipJob(options, self.ctx, self.model)
            drain(job.imagined(rows))
        else:
            job = _generate_diffusion.DiffusionJob(options, self.ctx, self.varying.model)
        drain(job.make(rows, 0, len(rows)))
        return to_tensor([entry["image"].image for entry in job.results])

    def hard_negatives(self, asked: PromptSet) -> Tensor:
        """The captions and their near misses as the judge reads them."""
        words = [said.text for said in asked.retold]
        name = f"rivals/{short([self.judge.fingerprint, MISSES, words])}.safetensors"
        return self.kept.tensors(name, lambda: {"rivals": hard_negatives(asked, self.judge)})[
            "rivals"
        ]

    # ------------------------------------------------------------------ pictures

    def inverted(self, images: Tensor) -> vary.InvertedImages:
        """The embeddings and the noise of pictures [B, 3, S, S]."""
        name = f"vary/{self._key(images)}.safetensors"
        place = self.ctx.device.torch
        found = self.kept.tensors(
            name, lambda: vars(drain(self.varying.inverted(images.to(place))))
        )
        return vary.InvertedImages(found["image"].to(place), found["noise"].to(place))

    def redraw(self, eta: float, cfg: float | None = None) -> Redraw:
        """Variations of pictures, one of each, at an eta."""
        options = self.vary_options(**({} if cfg is None else {"cfg": cfg}))
        job = replace(self.varying, options=options)

        def redrawn(images: Tensor) -> Tensor:
            found, key = self.inverted(images), self._key(images)
            seeds = range(int(key, 16), int(key, 16) + len(images))
            name = f"vary/{key}-{short([options.cfg, eta])}.png"
            return self.kept.images(name, lambda: drain(job.drawn([found], seeds, eta)))

        return redrawn

    def by_autoencoder(self, images: Tensor) -> Tensor:
        """What the autoencoder alone makes of pictures."""
        model = self.varying.model
        latents = encode_images(model.pipe, images.to(self.ctx.device.torch))
        with torch.no_grad():
            return model.render({"x0": latents}).float()

    def _key(self, images: Tensor) -> str:
        shown = hashlib.sha256(images.float().cpu().numpy().tobytes()).hexdigest()
        return short([self.state, self.given.vary_steps, shown])

    # ------------------------------------------------------------------ words to move towards

    def turned(
        self, found: vary.InvertedImages, text: str, amounts: Sequence[float]
    ) -> list[Tensor]:
        """A picture turned towards a text by each amount [1, 3, S, S]."""
        job = replace(self.varying, options=self.vary_options(toward=text))
        aim = job.aim(found.image)
        places = [vary.turned_to(found, aim, amount) for amount in amounts]
        images = drain(job.drawn(places, [0] * len(places), 0.0)).clamp(0, 1)
        return list(torch.split(images, 1))
