"""What all methods share that a diffusion model draws: encoding, trajectories, the part redone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator as Stream
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from guided.core.keys import option
from guided.core.run import Step
from guided.editing.base import AUTO, Editor, EditState

if TYPE_CHECKING:
    from torch import Tensor

    from guided.generators.diffusion import BoundDiffusion
    from guided.guidance.edit_sampler import InversionTrajectory, KnownRegion, PartialSampler
    from guided.guidance.inversion import Inversion
    from guided.models import Models


def noise_key(default: float) -> Any:
    """The key ``noise``."""
    about = "the part of the denoising that is done again at strength 1"
    return option(about, default, ge=0, le=1)


def cfg_key(default: float) -> Any:
    """The key ``cfg``."""
    return option("classifier-free guidance, 1 is none", default, ge=1)


def steps_key(default: int) -> Any:
    """The key ``steps``."""
    return option("denoising steps", default, ge=1, le=1000, was="denoise_steps")


class DenoisingEditor(Editor):
    """A method that noises an image and denoises it again, told what to change."""

    draws: ClassVar[str] = "denoiser"
    tried: ClassVar[Sequence[float]] = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5)

    steps: int = steps_key(30)
    cfg: float = cfg_key(5.0)

    def size(self, models: Models) -> int | None:
        """The side of the model's images."""
        from guided.generators.diffusion.source import image_size

        return image_size(models.denoiser.pipe)

    # ------------------------------------------------------------------ what is kept

    def latents(self, state: EditState) -> Tensor:
        """The autoencoder's latents [B, C, h, w] of the rows' images, encoded once."""
        from guided.generators.diffusion.source import encode_images

        def encode() -> Tensor:
            return encode_images(state.models.denoiser.pipe, state.every.images)

        return state.picked(state.once("latents", encode))

    def source_texts(self, state: EditState, prompts: Sequence[str]) -> list[str]:
        """What each row's image shows, in words; empty where nothing is known."""
        from guided.editing.texts import source_text

        if state.sources.neutral != AUTO:
            return [state.sources.neutral] * len(prompts)
        scorer, world = state.sources.scorer, state.models.world
        texts = []
        for row, (image, prompt) in enumerate(zip(state.rows, prompts, strict=True)):
            find = partial(source_text, prompt, state.features[row], scorer, world)
            texts.append(state.once(("source text", image, prompt), find))
        return texts

    def neutral_texts(self, state: EditState, prompts: Sequence[str]) -> list[str]:
        """The same, with the world's neutral text where nothing is known."""
        neutral = state.models.world.neutral
        return [text or neutral for text in self.source_texts(state, prompts)]

    # ------------------------------------------------------------------ parts of a run

    def bound(self, state: EditState, prompts: Sequence[str], cfg: float) -> BoundDiffusion:
        """The model told a prompt for each row."""
        return state.models.denoiser.bound(prompts, cfg=cfg)

    def sampler(self, state: EditState, model: Any, noise: Tensor, **more: Any) -> PartialSampler:
        """The sampler that denoises the rows."""
        from guided.generators.diffusion.source import ddim_scheduler
        from guided.guidance.edit_sampler import PartialSampler

        scheduler = ddim_scheduler(state.models.denoiser)
        seeds = more.pop("seeds", state.seeds)
        return PartialSampler(model, scheduler, noise, seeds, self.steps, self.cfg, **more)

    def decoded(self, state: EditState, latents: Tensor) -> Tensor:
        """The images [B, 3, S, S] of clean latents."""
        return state.models.denoiser.decode(latents)


class PartialEditor(DenoisingEditor):
    """A method that denoises a part of the schedule again: the more, the stronger."""

    noise: float = noise_key(0.85)

    def render(
        self, state: EditState, prompts: Sequence[str], strength: float
    ) -> Stream[Step[Any], None, Tensor]:
        """The images at a strength."""
        from guided.guidance.edit_sampler import start_index

        first = start_index(self.steps, min(1.0, strength * self.noise))
        if first == self.steps:
            return state.images
        latents = yield from self.denoised(state, prompts, first)
        return self.decoded(state, latents)

    @abstractmethod
    def denoised(
        self, state: EditState, prompts: Sequence[str], first: int
    ) -> Stream[Step[Any], None, Tensor]:
        """The clean latents [B, C, h, w] of the edit, from evaluation ``first`` on."""


class ReplayEditor(PartialEditor):
    """A method that replays, with other words, the noise that an inversion found."""

    inversion: ClassVar[Inversion] = "ddpm"

    def replayed(
        self, state: EditState, prompts: Sequence[str], first: int
    ) -> Stream[Step[Any], None, InversionTrajectory]:
        """The noise that gives the images, told what they show, from evaluation ``first`` on.

        It is found once; what is missing of a longer one is added to it.
        """
        from guided.generators.diffusion.source import ddim_scheduler
        from guided.guidance.inversion import invert

        texts = self.source_texts(state, prompts)
        key = ("trajectory", state.rows, tuple(texts))
        known = state.known.get(key)
        path = yield from invert(
            self.bound(state, texts, 1.0), ddim_scheduler(state.models.denoiser),
            self.latents(state), state.seeds, self.steps, first=first, kind=self.inversion,
            known=known,
        )  # fmt: skip
        if known is None or known.steps < path.steps:
            state.known[key] = path
        return path

    def denoised(
        self, state: EditState, prompts: Sequence[str], first: int
    ) -> Stream[Step[Any], None, Tensor]:
        """The replay."""
        path = yield from self.replayed(state, prompts, first)
        sampler = self.sampler(
            state, self.bound(state, prompts, self.cfg), self.latents(state), first=first,
            sample=path.latents[0], residuals=path.residuals, eta=path.eta,
        )  # fmt: skip
        return (yield from sampler.steps())


def known_region(state: EditState, latents: Tensor, noise: Tensor) -> KnownRegion | None:
    """What stays of the latents: those of which no pixel may change."""
    import torch.nn.functional as F

    from guided.guidance.edit_sampler import KnownRegion

    if state.mask is None:
        return None
    factor = state.mask.shape[-1] // latents.shape[-1]
    mask = (F.max_pool2d(state.mask, factor) > 0).to(latents)
    return KnownRegion(latents, mask, noise)
