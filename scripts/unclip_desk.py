"""What scripts/judge_unclip judges: two stages, one that is told words, variations.

Everything is made as ``guided generate`` and ``guided vary`` make it, and kept.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from prior_desk import prior_folder  # noqa: E402
from torch import Tensor  # noqa: E402

from guided.core.images import to_tensor  # noqa: E402
from guided.core.run import drained  # noqa: E402
from guided.generators.diffusion_source import latents_of, picture_size  # noqa: E402
from guided.judging.diffusion_figures import Redraw  # noqa: E402
from guided.judging.kept import Kept, digest_of, short  # noqa: E402
from guided.judging.reader import Reader  # noqa: E402
from guided.judging.text_image_figures import MISSES, Asked, Make, rivals  # noqa: E402
from guided.scorers.clip import load_clip  # noqa: E402
from guided.tasks import _generate_diffusion, _generate_unclip, vary  # noqa: E402
from guided.tasks._generate_options import Options  # noqa: E402
from guided.tasks.base import Workbench  # noqa: E402
from guided.zoo.kits import load_kit  # noqa: E402

ROLES = ("denoiser", "prior", "scorer", "reader", "judge")
BATCH = 8


class Desk:
    """The models, who judges them, and what they make; ``given`` is the command line."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        kit = {**load_kit("portraits"), **{r: v for r in ROLES if (v := getattr(given, r))}}
        if (Path(kit["denoiser"]) / "model_index.json").is_file():
            kit["denoiser"] = f"local-dir:{kit['denoiser']}"
        self.bench = Workbench(device_name=given.device, kit=kit)
        self.reader = Reader.load(kit["reader"], self.bench.device)
        self.judge = load_clip(kit["judge"], self.bench.device, role="judge")
        self.varying = vary.Job.of(self.vary_options(), self.bench)
        self.size = picture_size(self.varying.model.pipe)
        decoder = _generate_unclip.decoder_folder("", self.bench)
        self.state = [digest_of(decoder), self.varying.scorer.fingerprint]
        self.kept = Kept.of(given.out, given.minutes)

    @cached_property
    def model(self) -> Any:
        """Both stages; what does without the prior is judged before there is one."""
        return _generate_unclip.open_model(self.options("unclip"), self.bench)

    def options(self, method: str, cfg: float | None = None) -> Options:
        """The verb's keys for a way to make pictures of words."""
        given = self.given
        return Options(
            prompts=["-"], method=method, steps=given.steps, cfg=given.cfg if cfg is None else cfg,
            prior_steps=given.prior_steps, prior_cfg=given.prior_cfg, tries=given.tries,
        )  # fmt: skip

    def vary_options(self, **more: Any) -> vary.Options:
        """The verb's keys for variations."""
        given = self.given
        return vary.Options(steps=given.vary_steps, **{"cfg": given.vary_cfg, **more})

    # ------------------------------------------------------------------ words

    def maker(self, method: str, cfg: float | None = None) -> Make:
        """Pictures of texts by a method of ``guided generate``, 8 bits a colour."""
        options = self.options(method, cfg)
        asked = options.model_dump(mode="json")
        state = [
            *self.state,
            *([digest_of(prior_folder(self.given))] if method == "unclip" else []),
        ]

        def make(texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
            parts = []
            for first in range(0, len(texts), BATCH):
                words, own = texts[first : first + BATCH], seeds[first : first + BATCH]
                rows = list(zip(words, own, strict=True))
                name = f"text/{method}-{short([state, asked, rows])}.png"
                parts.append(self.kept.images(name, partial(self._made, options, rows)))
            return torch.cat(parts)

        return make

    def _made(self, options: Options, rows: list[tuple[str, int]]) -> Tensor:
        if options.method == "unclip":
            job: Any = _generate_unclip.UnclipJob(options, self.bench, self.model)
            drained(job.imagined(rows))
        else:
            job = _generate_diffusion.Job(options, self.bench, self.varying.model)
        drained(job.make(rows, 0, len(rows)))
        return to_tensor([entry["image"].image for entry in job.results])

    def rivals(self, asked: Asked) -> Tensor:
        """The captions and their near misses as the judge reads them."""
        words = [said.text for said in asked.retold]
        name = f"rivals/{short([self.judge.fingerprint, MISSES, words])}.safetensors"
        return self.kept.tensors(name, lambda: {"rivals": rivals(asked, self.judge)})["rivals"]

    # ------------------------------------------------------------------ pictures

    def inverted(self, images: Tensor) -> vary.Found:
        """The embeddings and the noise of pictures [B, 3, S, S]."""
        name = f"vary/{self._key(images)}.safetensors"
        place = self.bench.device.torch
        found = self.kept.tensors(
            name, lambda: vars(drained(self.varying.inverted(images.to(place))))
        )
        return vary.Found(found["image"].to(place), found["noise"].to(place))

    def redraw(self, eta: float, cfg: float | None = None) -> Redraw:
        """Variations of pictures, one of each, at an eta."""
        options = self.vary_options(**({} if cfg is None else {"cfg": cfg}))
        job = replace(self.varying, options=options)

        def redrawn(images: Tensor) -> Tensor:
            found, key = self.inverted(images), self._key(images)
            seeds = range(int(key, 16), int(key, 16) + len(images))
            name = f"vary/{key}-{short([options.cfg, eta])}.png"
            return self.kept.images(name, lambda: drained(job.drawn([found], seeds, eta)))

        return redrawn

    def by_autoencoder(self, images: Tensor) -> Tensor:
        """What the autoencoder alone makes of pictures."""
        model = self.varying.model
        latents = latents_of(model.pipe, images.to(self.bench.device.torch))
        with torch.no_grad():
            return model.render({"x0": latents}).float()

    def _key(self, images: Tensor) -> str:
        shown = hashlib.sha256(images.float().cpu().numpy().tobytes()).hexdigest()
        return short([self.state, self.given.vary_steps, shown])

    # ------------------------------------------------------------------ words to move towards

    def turned(self, found: vary.Found, text: str, amounts: Sequence[float]) -> list[Tensor]:
        """A picture turned towards a text by each amount [1, 3, S, S]."""
        job = replace(self.varying, options=self.vary_options(toward=text))
        aim = job.aim(found.image)
        places = [vary.turned_to(found, aim, amount) for amount in amounts]
        return list(drained(job.drawn(places, [0] * len(places), 0.0)).clamp(0, 1).split(1))
