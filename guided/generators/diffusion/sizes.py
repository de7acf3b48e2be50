"""Sizes of a diffusion model's parts that must agree, compared when the model is put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from guided.errors import CannotDo, CorruptWeights

if TYPE_CHECKING:
    from guided.generators.diffusion.pipeline import GuidedPipeline

_TEXT = ("", "_2", "_3")
_TOGETHER = "Take all parts from one model: copy the whole folder again."
#: What denoisers read beside the latents, by how many channels more these are.
_MORE = {5: "a mask and a picture: it was made for inpainting",
         4: "a picture: it was made for instructions or for larger sizes",
         1: "a depth map"}  # fmt: skip


def check_sizes(pipe: GuidedPipeline) -> None:
    """Accept parts whose sizes agree: latents, colors, width of texts, tokens.

    Raises:
        CannotDo: a denoiser that reads more than noisy latents, an autoencoder of other images
            than RGB.
        CorruptWeights: parts of different models; both sizes and files are named.
    """
    _check_channels(pipe)
    _check_width(pipe)
    for suffix in _TEXT:
        _check_vocabulary(pipe, suffix)


def _check_channels(pipe: GuidedPipeline) -> None:
    """Channels of latents, as denoiser and decoders count them, and of images."""
    name, config = _denoiser_name(pipe), pipe.denoiser.config
    takes, there = int(config.in_channels), int(pipe.vae.config.latent_channels)
    if takes - there in _MORE:
        raise CannotDo(
            f"The denoiser reads {takes} channels ({name}/config.json), but the autoencoder's "
            f"latents have {there} (vae/config.json): it also reads {_MORE[takes - there]}.",
            hint="Take a text-to-image model; guided edit --method inpaint does without a mask "
            "channel.",
        )
    _agree("denoiser reads", takes, "channels", name, "autoencoder's latents have", there, "vae")
    if pipe.tiny is not None:
        small = int(pipe.tiny.config.latent_channels)
        _agree(
            "small decoder reads", small, "channels", "tiny", "autoencoder's latents have", there,
            "vae",
        )  # fmt: skip
    for key in ("in_channels", "out_channels"):
        colors = pipe.vae.config.get(key, 3)
        if colors != 3:
            raise CannotDo(
                f"The autoencoder is of images with {colors} channels ({key} in vae/config.json); "
                "only RGB images, of 3, are supported."
            )


def _check_width(pipe: GuidedPipeline) -> None:
    """The width of the texts that the denoiser reads, where its family says under which key."""
    key = pipe.family.text_width
    encoders = [pipe.components.get(f"text_encoder{suffix}") for suffix in _TEXT]
    widths = [_hidden(each) for each in encoders if each is not None]
    read = pipe.denoiser.config.get(key) if key else None
    if not widths or not read or pipe.denoiser.config.get("encoder_hid_dim"):
        return
    files = [f"text_encoder{suffix}" for suffix, each in zip(_TEXT, encoders, strict=True) if each]
    reads = {int(each) for each in ([read] if isinstance(read, int) else read)}
    for each in sorted(reads - {sum(widths)}):
        _agree(
            "denoiser reads texts of", each, "numbers a token", _denoiser_name(pipe),
            f"text encoder{'s give' if len(files) > 1 else ' gives'}", sum(widths),
            " and ".join(files),
        )  # fmt: skip


def _check_vocabulary(pipe: GuidedPipeline, suffix: str) -> None:
    """The tokens of a tokenizer and the rows of its encoder's embedding.

    Rows without a token do no harm; added tokens may lack a row, but for those that every text
    gets.
    """
    tokenizer, rows = _with_rows(pipe, suffix)
    if tokenizer is None or rows is None:
        return
    learned = int(getattr(tokenizer, "vocab_size", 0))
    always = [getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad")]
    last = max([learned - 1, *(each for each in always if isinstance(each, int))])
    if last >= rows:
        raise CorruptWeights(
            f"The tokenizer needs {last + 1} tokens (tokenizer{suffix}), but the embedding has "
            f"{rows} rows (text_encoder{suffix}): they belong to different models.",
            hint=_TOGETHER,
        )


def check_tokens(pipe: GuidedPipeline, texts: Iterable[str]) -> None:
    """Accept texts whose tokens all have a row in the embedding of every text encoder.

    Raises:
        CannotDo: a token that was added to a tokenizer, but not to the embedding.
    """
    for suffix in _TEXT:
        tokenizer, rows = _with_rows(pipe, suffix)
        if tokenizer is None or rows is None or len(tokenizer) <= rows:
            continue
        for text in texts:
            ids: Sequence[int] = tokenizer(pipe.family.normalize_prompt(text))["input_ids"]
            if max(ids, default=0) >= rows:
                piece = tokenizer.convert_ids_to_tokens(max(ids))
                raise CannotDo(
                    f"The text {text[:60]!r} holds the token {piece!r} (id {max(ids)} of "
                    f"tokenizer{suffix}), but the embedding has {rows} rows "
                    f"(text_encoder{suffix}).",
                    hint="Leave that token out of the text.",
                )


def _with_rows(pipe: GuidedPipeline, suffix: str) -> tuple[Any, int | None]:
    """A tokenizer, and the number of rows of its encoder's embedding where that is known."""
    encoder = pipe.components.get(f"text_encoder{suffix}")
    rows = getattr(getattr(encoder, "config", None), "vocab_size", None)
    return pipe.components.get(f"tokenizer{suffix}"), rows


def _hidden(encoder: Any) -> int:
    config = encoder.config
    return int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 0))


def _denoiser_name(pipe: GuidedPipeline) -> str:
    return "unet" if pipe.transformer is None else "transformer"


def _agree(
    one: str, size: int, unit: str, part: str, other: str, present: int, beside: str
) -> None:
    if size != present:
        raise CorruptWeights(
            f"The {one} {size} {unit} ({part}/config.json), but the {other} {present} "
            f"({beside}): they belong to different models.",
            hint=_TOGETHER,
        )
