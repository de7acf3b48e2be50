"""A family from outside the package: shifted flow, packed latents, three encoders, told guidance.

Its denoiser has a closed form: whatever the noise, the clean latents are a fixed pattern times a
number that depends on the prompt (through every text encoder) and on the scale of guidance.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from guided.generators.diffusion import Conditioning, Family, PromptBatch
from guided.generators.diffusion.base import (
    ANY_TOKENIZER,
    CLIP_TEXT,
    CLIP_TOKENIZER,
    TINY,
    VAE,
    Classes,
)
from guided.zoo.gate_calls import from_config
from tests.helpers.small_models import clip_text, clip_tokenizer, seeded, t5, t5_tokenizer, vae

TEXT = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"),
        ("tokenizer_3", "text_encoder_3"))  # fmt: skip


class FlowDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts noise - x0 for tokens [N, h w / 4, 4 C] at times [N] in (0, 1]."""

    @register_to_config
    def __init__(self, in_channels: int = 16, sample_size: int = 8, patch_size: int = 2) -> None:
        super().__init__()
        self.pattern = nn.Parameter(torch.randn((sample_size // 2) ** 2, in_channels))

    def scale(self, pooled: Tensor, guidance: Tensor) -> Tensor:
        return pooled.mean(1).tanh() + 0.1 * guidance

    def forward(self, tokens: Tensor, times: Tensor, pooled: Tensor, guidance: Tensor) -> Tensor:
        clean = self.scale(pooled, guidance)[:, None, None] * self.pattern
        return (tokens - clean) / times[:, None, None]


@dataclass(frozen=True)
class FlowConditioning(Conditioning):
    guidance: Tensor | None = None


class Flow(Family[FlowConditioning]):
    name = "tiny-flow"
    denoiser = "transformer"
    classes: ClassVar[Classes] = {
        "transformer": (f"{__name__}.FlowDenoiser",), "vae": VAE, "tiny": TINY,
        "text_encoder": CLIP_TEXT, "tokenizer": CLIP_TOKENIZER,
        "text_encoder_2": CLIP_TEXT, "tokenizer_2": CLIP_TOKENIZER,
        "text_encoder_3": ("transformers.T5EncoderModel",),
        "tokenizer_3": ("transformers.T5Tokenizer", "transformers.T5TokenizerFast", *ANY_TOKENIZER),
    }  # fmt: skip
    required = ("text_encoder_2", "text_encoder_3")
    cfg = 3.5
    embeds_guidance = True

    def prepare(self, pipe: Any) -> None:
        """Any denoiser fits: its channels are those of packed latents."""

    def latent_shape(self, pipe: Any, size: Any = None) -> tuple[int, int, int]:
        channels, height, width = super().latent_shape(pipe, size)
        return channels // 4, height, width

    def schedule(self, pipe: Any, scheduler: Any, size: Any = None) -> Any:
        """Shifted the more the more tokens there are, before the loop sets its time steps."""
        _, height, width = self.latent_shape(pipe, size)
        shift = math.exp(height * width / 64)
        return from_config(
            type(scheduler), scheduler.config, use_dynamic_shifting=False, shift=shift
        )

    @torch.no_grad()
    def encode_prompt(self, pipe: Any, batch: PromptBatch) -> FlowConditioning:
        states = []
        for tokenizer, encoder in TEXT:
            ids = getattr(pipe, tokenizer)(
                list(batch.prompts), padding="max_length", truncation=True, max_length=8,
                return_tensors="pt",
            )["input_ids"]  # fmt: skip
            states.append(getattr(pipe, encoder)(input_ids=ids).last_hidden_state)
        text = torch.cat(states, 1)
        guidance = text.new_full((len(text),), batch.cfg)
        return FlowConditioning(text, pooled=text.mean(1), guidance=guidance)

    def predict(self, pipe: Any, x_t: Tensor, time: Any, conditioning: FlowConditioning) -> Tensor:
        rows, channels, height, width = x_t.shape
        cells = x_t.view(rows, channels, height // 2, 2, width // 2, 2)
        tokens = cells.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, 4 * channels)
        times = torch.as_tensor(time).reshape(1).expand(rows) / 1000
        output = pipe.transformer(tokens, times, conditioning.pooled, conditioning.guidance)
        cells = output.view(rows, height // 2, width // 2, channels, 2, 2)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(x_t.shape)


FAMILY = Flow()


def write_flow_folder(folder: Path) -> Path:
    """A folder in diffusers' layout, each part saved by its own class."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    def parts() -> dict[str, Any]:
        return {
            "transformer": FlowDenoiser(), "vae": vae(),
            "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            "text_encoder": clip_text(True), "tokenizer": clip_tokenizer(folder / "words"),
            "text_encoder_2": clip_text(True), "tokenizer_2": clip_tokenizer(folder / "words2"),
            "text_encoder_3": t5(), "tokenizer_3": t5_tokenizer(),
        }  # fmt: skip

    index: dict[str, Any] = {"_class_name": "TinyFlowPipeline", "_diffusers_version": "0.42.0"}
    for name, part in seeded(parts, 0).items():
        part.save_pretrained(folder / "model" / name)
        module = type(part).__module__
        root = module.partition(".")[0]
        library = root if root in ("diffusers", "transformers") else module
        index[name] = [library, type(part).__name__]
    (folder / "model" / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder / "model"
