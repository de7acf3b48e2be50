"""Two stages from words to a picture: a prior imagines its embedding, a decoder draws that.

The decoder is the shipped denoiser, which takes embeddings of pictures; the prior is a model of its
own, a folder with config.json and model.safetensors, that belongs to one CLIP, named by its hash.
Together they are a pipeline of diffusers' kind that is saved and loaded whole.
Source: Ramesh et al. 2022 (unCLIP, DALL-E 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.core.device import Device
from guided.core.reading import read_json
from guided.errors import CannotDo, CorruptWeights, ShapeError, library_message
from guided.generators.diffusion import Diffusion, check_weights, quiet
from guided.generators.diffusion.folder import INDEX, read_index
from guided.generators.diffusion.pipeline import OPTIONAL, GuidedPipeline
from guided.generators.diffusion.portrait_folder import parts_of
from guided.generators.diffusion.text import (
    TextFeatures,
    encode_text,
    expect_one_window,
    report_truncation,
)
from guided.generators.diffusion.vae import prepare_vae
from guided.nets.prior import PortraitPrior
from guided.zoo.belonging import check_same
from guided.zoo.gate import inspect, read_settings, snapshot_of
from guided.zoo.gate_calls import from_config, load_pipeline
from guided.zoo.packing import load_weights
from guided.zoo.resolve import find_folder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
CLIP = "scorer_sha256"
_NEEDED = ("transformer", "text_encoder", "tokenizer")
_OPTIONAL = [part for part in OPTIONAL if part not in _NEEDED]
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample",
    "timestep_spacing": "trailing", "clip_sample": False,
}  # fmt: skip
"""The prior's schedule: it predicts the clean embedding."""


def prior_scheduler() -> Any:
    """A fresh scheduler of the prior: steps of DDIM that draw noise anew are DDPM's own."""
    from diffusers import DDIMScheduler

    return from_config(DDIMScheduler, SCHEDULE)


@dataclass(frozen=True)
class BoundPrior:
    """A prior that was told some words; N rows, or twice as many, those without words first."""

    net: PortraitPrior
    words: TextFeatures
    scheduler: Any

    @property
    def width(self) -> int:
        """The width of embeddings."""
        return int(self.net.config.embed_width)

    def predict(self, given: Tensor, time: Any) -> Tensor:
        """The clean embeddings [N, D] behind noisy ones [N, D], float32, as inside the prior."""
        words = self.words
        times = torch.as_tensor(time, device=given.device).reshape(1).expand(len(given))
        with torch.no_grad():
            found: Tensor = self.net(given, times, words.states, words.mask, words.pooled)
        return found.float()

    def denormalize(self, inside: Tensor) -> Tensor:
        """Unit embeddings [N, D] of clean samples."""
        with torch.no_grad():
            return self.net.denormalize(inside)


class UnclipPipeline(GuidedPipeline):
    """A pipeline of the shipped kind, with the prior of its CLIP.

    ``scorer_sha256`` names the CLIP whose embeddings both stages speak.
    """

    _optional_components = _OPTIONAL

    def __init__(
        self,
        vae: Any,
        scheduler: Any,
        transformer: Any,
        text_encoder: Any,
        tokenizer: Any,
        prior: Any,
        prior_scheduler: Any,
        unet: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        text_encoder_3: Any = None,
        tokenizer_3: Any = None,
        tiny: Any = None,
        force_zeros_for_empty_prompt: bool = True,  # noqa: FBT001, FBT002
        preview: list[list[float]] | None = None,
        scorer_sha256: str = "",
        max_sequence_length: int = 120,
    ) -> None:
        self.register_modules(prior=prior, prior_scheduler=prior_scheduler)
        self.register_to_config(scorer_sha256=scorer_sha256)
        super().__init__(
            vae=vae, scheduler=scheduler, transformer=transformer, text_encoder=text_encoder,
            tokenizer=tokenizer, tiny=tiny, preview=preview, unet=unet,
            text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3, tokenizer_3=tokenizer_3,
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
            max_sequence_length=max_sequence_length,
        )  # fmt: skip
        if not self.family.takes_image_embeddings:
            raise CannotDo(
                "This denoiser takes no embeddings of pictures, so it decodes none.",
                hint="Take one that scripts/build denoiser made.",
            )
        width = int(transformer.config.embed_width)
        if int(prior.config.embed_width) != width:
            raise ShapeError(
                f"The prior gives embeddings of {prior.config.embed_width} numbers, the decoder "
                f"takes {width}."
            )

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str] = (), *, both: bool = False
    ) -> BoundPrior:
        """The prior for these prompts; ``both`` puts rows of ``negatives`` before them.

        Raises:
            CannotDo: a text beyond the context that is to be read in windows.
        """
        apart = list(negatives) or [""] * len(prompts)
        texts = [*(apart if both else ()), *prompts]
        report_truncation(self, texts)
        if self.long_text == "windows":
            expect_one_window(self, texts, "The prior")
        words = encode_text(self.text_encoder, self.tokenizer, texts)
        plan = from_config(type(self.prior_scheduler), self.prior_scheduler.config)
        return BoundPrior(self.prior, words, plan)


@dataclass(frozen=True)
class Prior:
    """A prior and the hash of the CLIP whose embeddings it gives."""

    net: PortraitPrior
    scorer_sha256: str


def load_prior(name: str, scorer_sha256: str, device: Device | None = None) -> Prior:
    """The prior of that name (or in that folder), of the CLIP with that hash ("": not known).

    Raises:
        MissingWeights: there is none of that name here.
        CorruptWeights: files that do not fit together, or a prior of another CLIP.
    """
    folder, _ = find_folder(name, "prior", CONFIG)
    try:
        table = read_settings(folder / CONFIG)
        inspect(folder)
        learnt = str(table.pop(CLIP))
        net = PortraitPrior(**table)
        state = {k: v.float() for k, v in load_weights(folder / WEIGHTS).items()}
        net.load_state_dict(state)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise CorruptWeights(
            f"The prior in {folder} does not fit this version: {library_message(error)}.",
            hint="Rebuild it with scripts/build prior.",
        ) from error
    check_same(
        f"The prior in {folder} gives embeddings of another CLIP than the decoder takes",
        learnt, scorer_sha256 or learnt,
        "Rebuild it with scripts/build prior, or name another one with --prior.",
    )  # fmt: skip
    home = device or Device()
    net.set_attention_backend(home.torch)
    return Prior(prepare_vae(net, home), learnt)


def with_prior(decoder: Diffusion, prior: Prior) -> Diffusion:
    """The two stages as one generator, whose ``pipe`` is an UnclipPipeline.

    Raises:
        CannotDo: a decoder that takes no embeddings of pictures.
        ShapeError: embeddings of another width.
    """
    pipe = decoder.pipe
    if not pipe.family.takes_image_embeddings:
        raise CannotDo(
            f"The model {decoder.name!r} takes no embeddings of pictures, so it decodes none.",
            hint="Take --method diffusion, or the shipped denoiser.",
        )
    both = UnclipPipeline(
        vae=pipe.vae, scheduler=pipe.scheduler, transformer=pipe.transformer, tiny=pipe.tiny,
        text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, preview=pipe.config.preview,
        prior=prior.net, prior_scheduler=prior_scheduler(), scorer_sha256=prior.scorer_sha256,
    )  # fmt: skip
    return Diffusion(both, name=decoder.name, device=decoder.device)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds both stages, as ``UnclipPipeline.save_pretrained`` writes them."""
    try:
        table = read_json(folder / INDEX)
    except (OSError, ValueError):
        return False
    return isinstance(table, dict) and "prior" in table


def clip_of(folder: Path) -> str:
    """The hash of the CLIP whose embeddings the denoiser in a folder takes; "" where none is said.

    Raises:
        CorruptWeights: an index or a parts.json that cannot be read.
    """
    parts = parts_of(folder)
    if parts is not None:
        return parts.scorer_sha256
    try:
        return str(read_json(folder / INDEX).get(CLIP, ""))
    except (OSError, ValueError, AttributeError) as error:
        reason = library_message(error)
        raise CorruptWeights(f"{folder / INDEX} cannot be read: {reason}.") from error


def load_unclip(folder: Path, device: Device | None = None, *, name: str = "") -> Diffusion:
    """The generator of two stages in a folder that was saved whole.

    Raises:
        MissingWeights: a component that is not there; it is named.
        UnsafeWeights: a component of an unknown class, or weights that are pickled.
        CorruptWeights: files that do not fit together.
    """
    folder = snapshot_of(folder)
    named, home = read_index(folder).parts, device or Device()
    for part in ("prior", "prior_scheduler"):
        if part not in named:
            raise CorruptWeights(
                f"{folder / INDEX} names no {part!r}.", hint="Save the whole pipeline again."
            )
    absent = {part: None for part in _OPTIONAL if part not in named}
    try:
        with quiet():
            pipe = load_pipeline(UnclipPipeline, folder, named, torch_dtype=home.dtype, **absent)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CorruptWeights(f"{folder} cannot be loaded: {library_message(error)}.") from error
    check_weights(pipe, folder)
    pipe.prior.set_attention_backend(home.torch)
    return Diffusion(pipe, name=name or folder.name, device=home)
