"""Where a folder behaves as under diffusers' own pipeline of its family, and what is refused.

Prompts are encoded by the stock pipelines themselves, built around the same parts; what they set
right in old folders is set right here too, once, when a pipeline is made.  Not offered are their
``clip_skip``, ``guidance_rescale``, ``denoising_end``, second prompts, IP-adapters, SDXL's sizes
other than those of the picture that is made, and PixArt's resolution bins: the stock pipelines'
values that leave these out are the ones that hold.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from diffusers.configuration_utils import FrozenDict

from guided.errors import CannotDo

logger = logging.getLogger(__name__)

#: How many tokens of a prompt the transformer of a stock pipeline reads.
PIXART_WORDS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}


def stock_pipeline(pipe: Any) -> Any:
    """The stock pipeline around the same parts."""
    import diffusers

    shared = {"vae": pipe.vae, "scheduler": pipe.scheduler, "tokenizer": pipe.tokenizer,
              "text_encoder": pipe.text_encoder}  # fmt: skip
    if pipe.family == "pixart":
        return diffusers.PixArtAlphaPipeline(transformer=pipe.transformer, **shared)
    if pipe.family == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            unet=pipe.unet, text_encoder_2=pipe.text_encoder_2, tokenizer_2=pipe.tokenizer_2,
            force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
            add_watermarker=False, **shared,
        )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        unet=pipe.unet, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, **shared,
    )  # fmt: skip


def cleans_captions() -> bool:
    """Whether PixArt's prompts are cleaned: stock does so where these libraries are there."""
    return all(find_spec(each) for each in ("bs4", "ftfy"))


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Without what the libraries write about long texts, which ``report_cuts`` says shorter."""
    from diffusers.utils import logging as theirs
    from transformers.utils import logging as others

    levels = theirs.get_verbosity(), others.get_verbosity()
    theirs.set_verbosity_error()
    others.set_verbosity_error()
    try:
        yield
    finally:
        theirs.set_verbosity(levels[0])
        others.set_verbosity(levels[1])


def report_cuts(pipe: Any, texts: Sequence[str]) -> None:
    """Log each text, once, that is longer than the model can read: what is too long is cut."""
    limit = _limit(pipe)
    for text in dict.fromkeys(texts):
        with hushed():
            tokens = len(pipe.tokenizer(" ".join(text.split()))["input_ids"])
        if tokens > limit:
            shown = text if len(text) <= 60 else text[:57] + "..."
            logger.warning(
                "The text %r (%d characters) has %d tokens; this model reads %d: the rest was left "
                "out.", shown, len(text), tokens, limit,
            )  # fmt: skip


def _limit(pipe: Any) -> int:
    if pipe.family == "pixart":
        return int(pipe.config.max_sequence_length)
    if pipe.family == "own":
        return int(pipe.text_encoder.config.max_position_embeddings)
    return int(pipe.tokenizer.model_max_length)


def set_right(scheduler: Any, unet: Any) -> None:
    """Change settings of SD 1.x folders that its stock pipeline holds to be outdated.

    It counts time steps from 1 and does not clip x0, whatever the folder says, and takes pictures
    of folders that predate version 0.9 to be 512 pixels wide.
    """
    settings, wanted = dict(scheduler.config), {"steps_offset": 1, "clip_sample": False}
    changes = {key: wanted[key] for key in wanted if settings.get(key, wanted[key]) != wanted[key]}
    if changes:
        stated = [key for key in settings.get("_use_default_values", ()) if key not in changes]
        scheduler._internal_dict = FrozenDict(
            {**settings, **changes, "_use_default_values": stated}
        )
    side, version = unet.config.sample_size, str(unet.config.get("_diffusers_version", "1"))
    if _before_0_9(version) and isinstance(side, int) and side < 64:
        unet._internal_dict = FrozenDict({**unet.config, "sample_size": 64})


def _before_0_9(version: str) -> bool:
    parts = version.split(".")
    return parts[0] == "0" and len(parts) > 1 and parts[1].isdigit() and int(parts[1]) < 9


def refuse_others(denoiser: Any, vae: Any) -> None:
    """Raise for denoisers that ask for more than noisy latents, a time step and words.

    Raises:
        CannotDo: a distilled one that is told the strength of guidance, or one that also reads
            a mask or a picture.
    """
    config = denoiser.config
    if config.get("time_cond_proj_dim"):
        raise CannotDo(
            "This denoiser was distilled to be told the strength of guidance (time_cond_proj_dim), "
            "which is not supported.",
            hint="Take the model that it was distilled from.",
        )
    takes, there = int(config.in_channels), int(vae.config.latent_channels)
    if takes != there:
        raise CannotDo(
            f"This denoiser reads {takes} channels, but the autoencoder's latents have {there}: it "
            "was made for inpainting or for instructions.",
            hint="Take a text-to-image model; guided edit --method inpaint does without a mask "
            "channel.",
        )
