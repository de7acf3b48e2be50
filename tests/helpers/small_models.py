"""Tiny random diffusion models in the folder formats of SD 1.5, SDXL and PixArt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FAMILIES = ("sd", "sdxl", "pixart")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def seeded(make: Callable[[], Any], seed: int) -> Any:
    """What ``make`` gives under a seed, with the state of the global stream put back."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    made = make()
    torch.random.set_rng_state(state)
    return made


def clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "re", "red</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


def t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in _LETTERS]
    inner = Tokenizer(models.Unigram(pieces, unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    base = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    try:
        return T5TokenizerFast(
            tokenizer_object=inner, extra_ids=0, pad_token="<pad>", eos_token="</s>",
            unk_token="<unk>",
        )  # fmt: skip
    except TypeError:
        return base


def clip_text(projection: bool, width: int = 16) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=56, hidden_size=width, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=8, projection_dim=width,
        bos_token_id=54, eos_token_id=55, pad_token_id=55,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def vae(channels: int = 4) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=channels, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=16,
    )  # fmt: skip


def tiny_decoder() -> Any:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), latent_channels=4,
    )  # fmt: skip


def unet(xl: bool) -> Any:
    from diffusers import UNet2DConditionModel

    more: dict[str, Any] = (
        {"addition_embed_type": "text_time", "addition_time_embed_dim": 4,
         "projection_class_embeddings_input_dim": 16 + 6 * 4, "use_linear_projection": True}
        if xl else {}
    )  # fmt: skip
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=32 if xl else 16, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
    )  # fmt: skip


def pixart(learned: bool = True, sample: int = 8, sized: bool = False) -> Any:
    """``sized``: told the size of the picture, as models of 1024 pixels are."""
    from diffusers import PixArtTransformer2DModel

    head = 12 if sized else 8
    return PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=head, in_channels=4,
        out_channels=8 if learned else 4, num_layers=2, cross_attention_dim=2 * head,
        sample_size=sample, patch_size=2, caption_channels=16, norm_type="ada_norm_single",
        use_additional_conditions=sized,
    )  # fmt: skip


def t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    )


def stock(family: str, folder: Path, seed: int = 0) -> Any:
    """The stock pipeline of a family with random weights."""
    import diffusers

    plan = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "clip_sample": False, "steps_offset": 1}  # fmt: skip

    def make() -> Any:
        parts: dict[str, Any] = {"vae": vae(), "scheduler": diffusers.DDIMScheduler(**plan)}
        if family in ("pixart", "sigma"):
            parts |= {"transformer": pixart(), "tokenizer": t5_tokenizer(), "text_encoder": t5()}
            parts["scheduler"] = diffusers.DPMSolverMultistepScheduler()
            kind = "PixArtAlphaPipeline" if family == "pixart" else "PixArtSigmaPipeline"
            return getattr(diffusers, kind)(**parts)
        parts |= {"tokenizer": clip_tokenizer(folder / "words"), "unet": unet(family == "sdxl")}
        parts["text_encoder"] = clip_text(False)
        if family == "sdxl":
            parts |= {"tokenizer_2": clip_tokenizer(folder / "words2")}
            parts |= {"text_encoder_2": clip_text(True)}
            return diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
        return diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )

    made = seeded(make, seed)
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # a T5 that was not loaded drops a tenth out
    made.set_progress_bar_config(disable=True)
    return made


def write_folder(family: str, folder: Path, seed: int = 0) -> Path:
    """A folder as the stock pipeline of a family saves it."""
    folder.mkdir(parents=True, exist_ok=True)
    stock(family, folder / "made", seed).save_pretrained(folder / "model")
    return folder / "model"
