"""Diffusion models as generators: folders of diffusers' form, prompts bound, schedulers by name."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.core.device import Device
from guided.core.protocols import Latent
from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, ShapeError, UsageError, nearest
from guided.generators.diffusion_folder import COPY, components, made_for
from guided.generators.diffusion_pipeline import Conditions, Decode, GuidedPipeline
from guided.generators.diffusion_stock import PIXART_WORDS
from guided.nets.packed_linear import pack_linears
from guided.nets.quick_denoiser import QuickDenoiser

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "flow": "FlowMatchEulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names of schedulers and their diffusers classes."""
#: Classifier-free guidance by family: ours obeys words with little; the others as published.
CFG = {"own": 3.0, "sd": 7.5, "sdxl": 5.0, "pixart": 4.5}
_FOR_FLOW = ("dpm++", "flow", "unipc")


def scheduler_of(present: Any, name: str = "") -> Any:
    """A fresh scheduler: like ``present``, or the named one on the same noise schedule.

    Raises:
        UsageError: no such name; the message lists them.
        CannotDo: a solver of the other kind of model (flow or noise).
    """
    import diffusers

    if not name:
        return type(present).from_config(present.config)
    if name not in SCHEDULERS:
        raise UsageError(
            f"There is no scheduler {name!r}; there are: {', '.join(SCHEDULERS)}.",
            hint=nearest(name, SCHEDULERS),
        )
    kind = getattr(diffusers, SCHEDULERS[name])
    if is_flow(present):
        if name not in _FOR_FLOW:
            raise CannotDo(
                f"This model predicts a flow, which {name!r} cannot take.",
                hint=f"Take one of: {', '.join(_FOR_FLOW)}.",
            )
        flow = {} if name == "flow" else {"prediction_type": "flow_prediction",
                                          "use_flow_sigmas": True}  # fmt: skip
        return kind.from_config(_config(present), **flow)
    if name == "flow":
        raise CannotDo("This model predicts no flow.", hint="Take --scheduler dpm++ or ddim.")
    return kind.from_config(_config(present))


def _config(scheduler: Any) -> dict[str, Any]:
    """The settings to hand over to another scheduler."""
    return {**scheduler.config, "skip_prk_steps": True}


def is_flow(scheduler: Any) -> bool:
    """Whether the scheduler's model predicts a flow."""
    if type(scheduler).__name__ == SCHEDULERS["flow"]:
        return True
    return bool(scheduler.config.get("prediction_type") == "flow_prediction")


@dataclass(frozen=True)
class BoundDiffusion:
    """A pipeline with its prompts encoded: what the denoising loop drives."""

    pipe: GuidedPipeline
    words: Conditions

    def predict(self, given: Tensor, time: Any) -> Tensor:
        """The model's outputs [N, C, h, w]; N rows, or fewer where the words say."""
        quick = self._quick
        if quick is not None and quick.fits(given):
            return quick(given, torch.as_tensor(time, device=given.device))
        return self.pipe.predict(given, time, self.words)

    @cached_property
    def _quick(self) -> QuickDenoiser | None:
        """The shipped model on a CPU, told these words once."""
        net, words = self.pipe.transformer, self.words
        if self.pipe.family != "own" or not QuickDenoiser.takes(net):
            return None
        return QuickDenoiser(net, (words.text, words.mask, words.pooled, words.image, words.shown))

    def picture(self, latents: Tensor, decode: Decode) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] of clean latents."""
        return self.pipe.picture(latents, decode)

    def sketch(self, latents: Tensor) -> Tensor:
        """Pictures in haste: by the tiny decoder where there is one, else by the linear preview."""
        return self.pipe.picture(latents, "preview" if self.pipe.tiny is None else "tiny")


class Diffusion:
    """A diffusion pipeline as a generator; its parts are frozen and on ``device``.

    Latents: ``{"noise": [B, C, h, w]}`` to begin with, ``{"x0": [B, C, h, w]}`` to render.
    """

    def __init__(
        self, pipe: GuidedPipeline, *, name: str = "diffusion", device: Device | None = None
    ) -> None:
        self.name = name
        self.device = device or Device()
        self.pipe = pipe.to(self.device.torch)
        if pipe.dtype != self.device.dtype:
            self.pipe.to(self.device.dtype)
        if pipe.family == "own":
            pipe.transformer.suit(self.device.torch)
            pack_linears(pipe.transformer)

    @property
    def cfg(self) -> float:
        """Classifier-free guidance that suits the model."""
        return CFG[self.pipe.family]

    def start(
        self,
        seeds: Seeds,
        prompts: Sequence[str] | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> Latent:
        """Standard normal noise, a row for each seed, for pictures of ``size`` (height, width).

        Prompts do not matter here; they are bound with ``bound``.
        """
        noise = seeds.normal(self.pipe.latent_shape(size), "diffusion/noise", self.device.torch)
        return {"noise": noise.to(self.device.dtype)}

    def render(self, latent: Latent) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] of clean latents ``{"x0": ...}``; differentiable.

        Raises:
            ShapeError: other leaves; noise has no picture before it was denoised.
        """
        if set(latent) != {"x0"}:
            raise ShapeError(
                f"A diffusion latent to render has the leaf 'x0', not {', '.join(latent)}."
            )
        images: Tensor = self.pipe.picture(latent["x0"], "vae")
        return images

    def bound(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str] = (),
        *,
        cfg: float = 1.0,
        size: tuple[int, int] | None = None,
        image: Tensor | None = None,
    ) -> BoundDiffusion:
        """The model for these prompts; with ``cfg`` above 1 it also runs without words.

        ``image`` [B, D] are unit embeddings of pictures, for the shipped model; what runs without
        words runs without them too.

        Raises:
            CannotDo: the pipeline has no text encoder, or takes no pictures.
        """
        _, rows, columns = self.pipe.latent_shape(size)
        whole = (rows * self.pipe.factor, columns * self.pipe.factor)
        apart = list(negatives) or [""] * len(prompts)
        words = self.pipe.encode(prompts, apart, whole, both=cfg > 1, image=image)
        return BoundDiffusion(self.pipe, words)

    def scheduler(self, name: str = "") -> Any:
        """A fresh scheduler: the model's own, or the named one."""
        return scheduler_of(self.pipe.scheduler, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars of the libraries while a model loads, nor notes on names that changed there."""
    from diffusers.utils import logging as theirs
    from transformers.utils import logging as others

    shown = others.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    others.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        theirs.enable_progress_bar()
        if shown:
            others.enable_progress_bar()


def load_diffusion(
    folder: str | Path, device: Device | None = None, *, name: str = ""
) -> Diffusion:
    """The model in a folder of diffusers' form (SD 1.5, SDXL, PixArt, or saved by this package).

    Raises:
        MissingWeights: a component that is not there; it is named.
        UnsafeWeights: a component of an unknown class, or weights that are pickled.
        CorruptWeights: files that do not fit together.
    """
    place = Path(folder).expanduser()
    wanted = components(place)
    _known_scheduler(place, wanted["scheduler"][1])
    device = device or Device()
    accepted = inspect.signature(GuidedPipeline.__init__).parameters
    absent: dict[str, Any] = {
        part: None for part in accepted if part in _PARTS and part not in wanted
    }
    stock = made_for(place)
    if stock in PIXART_WORDS:
        absent["max_sequence_length"] = PIXART_WORDS[stock]
    try:
        with quiet():
            pipe = GuidedPipeline.from_pretrained(
                str(place), local_files_only=True, use_safetensors=True, torch_dtype=device.dtype,
                **absent,
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        reason = reason.partition(". If you")[0]
        raise CorruptWeights(f"{place} cannot be loaded: {reason}", hint=COPY) from error
    return Diffusion(pipe, name=name or place.name, device=device)


def _known_scheduler(folder: Path, kind: str) -> None:
    """Raise for a class that diffusers does not have."""
    import diffusers

    if not hasattr(diffusers, kind):
        raise CannotDo(
            f"{folder} wants the scheduler {kind}, which diffusers {diffusers.__version__} does "
            f"not have; supported: {', '.join(SCHEDULERS.values())}.",
            hint="Write one of these into its model_index.json.",
        )


_PARTS = frozenset(
    ("unet", "transformer", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "tiny")
)
