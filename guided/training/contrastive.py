"""Training a CLIP on pictures and captions whose truth is known for every pair of a batch.

In the drawn world a caption is true or false of every picture, not of its own alone, so targets
are a matrix: symmetric cross-entropy with several positives, a balanced sigmoid loss, and a term
that sets each caption against its near miss (one mentioned attribute changed).
Source: Radford et al. 2021 (symmetric cross-entropy); Zhai et al. 2023 (sigmoid loss); Yuksekgonul
et al. 2023 (hard negative captions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerFast

from guided.nets.clip_text import encode_trimmed
from guided.portraits.attributes import COLOR_KEYS, KEYS, VALUES
from guided.portraits.claims import COLUMNS
from guided.portraits.frames import STYLES
from guided.training.clip_bundle import (
    CONFIG_FILE,
    END_ID,
    MEAN,
    PAD_ID,
    STD,
    WEIGHTS_FILE,
    bundle_config,
    caption_corpus,
    load_tokenizer,
    tokenizer_files,
    train_tokenizer,
)
from guided.training.clip_folder import FolderPairs, folder_corpus
from guided.training.clip_pairs import PairBatch, PairSource, WorldPairs
from guided.training.contrastive_losses import (
    balanced_sigmoid_loss,
    sigmoid_loss,
    softmax_loss,
)
from guided.training.contrastive_monitor import floor, measure
from guided.training.objective import Metric, Objective, ObjectiveSettings, Parts, Product, Share
from guided.training.truth_losses import (
    hit_rate,
    level,
    masked_cross_entropy,
    near_miss,
)

SIGMOIDS: dict[str, Callable[..., Tensor]] = {
    "balanced": balanced_sigmoid_loss,
    "siglip": sigmoid_loss,
}
#: A logit whose share of a softmax is nothing.
NEVER = -1e4
#: On a CPU the plain form's backward pass is twice as fast at these lengths (under 80 tokens).
TEXT_ATTENTION = [SDPBackend.MATH]
ANY_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class Settings(ObjectiveSettings):
    """The keys of a contrastive training."""

    role: Literal["scorer", "judge"] = "scorer"
    style: Literal["train", "judge"] = "train"
    embed: int = Field(256, ge=8)
    vision: dict[str, Any] = Field(description="open_clip's keys of the picture tower")
    text: dict[str, Any] = Field(description="open_clip's keys of the text tower")
    vocabulary: int = Field(1024, ge=300)
    pictures: int = Field(300_000, ge=1, description="how many pictures of the world are drawn")
    tokenizer: str = Field("", description="a kept tokenizer; without one it is trained")
    tokenizer_seed: int = 0
    cross_entropy: float = 1.0
    sigmoid: float = 1.0
    sigmoid_form: Literal["balanced", "siglip"] = "balanced"
    hard_negatives: float = 1.0
    near_share: float = Field(0.5, ge=0, le=1, description="share of pictures with a near miss")
    attributes: float = Field(1.0, description="weight of helper heads: pictures name attributes")
    colors: float = Field(3.0, description="weight of a helper head: both sides give colours")
    claims: float = Field(3.0, description="weight of a helper head: texts name their claims")
    chunk: int = Field(0, ge=0, description="gradient caching: pictures encoded at a time, 0 = all")
    focus: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {}, description="attributes that a share of the captions speak of, beside two others"
    )
    shift: int = Field(4, ge=0, description="pictures are moved by up to this many pixels")
    recolored: float = Field(0.2, ge=0, le=1, description="share of pictures in other colours")
    excuse: bool = Field(
        True, description="hold nothing against pairs of values that no picture shows together"
    )
    level: float = Field(1.0, ge=0, description="weight of how far such pairs are from other ones")
    noise: float = Field(0.02, ge=0, description="standard deviation of pixel noise")

    @field_validator("focus")
    @classmethod
    def _known(cls, focus: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(focus) - set(KEYS))
        if unknown:
            raise ValueError(f"there is no attribute {unknown[0]!r}; there are: {', '.join(KEYS)}")
        return focus


class Pair(nn.Module):
    """Both towers of a CLIP and what only its training needs: sigmoid scale, bias, helper heads."""

    def __init__(self, clip: nn.Module, embed: int) -> None:
        super().__init__()
        self.clip = clip
        self.sigmoid_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.sigmoid_bias = nn.Parameter(torch.tensor(-3.0))
        self.claims = nn.Linear(embed, COLUMNS)
        self.colors = nn.Linear(embed, 3 * len(COLOR_KEYS))
        self.heads = nn.ModuleDict({key: nn.Linear(embed, len(VALUES[key])) for key in KEYS})

    def forward(self, images: Tensor, tokens: Tensor, chunk: int = 0) -> tuple[Tensor, ...]:
        """Embeddings of pictures [B, D] and texts [N, D], three scales, what the helpers say."""
        clip: Any = self.clip
        encode = clip.encode_image
        if chunk and self.training and len(images) > chunk:
            chunks = torch.split(images, chunk)
            parts = [checkpoint(encode, part, use_reentrant=False) for part in chunks]
            seen = torch.cat(parts)
        else:
            seen = encode(images)
        named = torch.cat([self.heads[key](seen) for key in KEYS], 1)
        scales = torch.stack([clip.logit_scale, self.sigmoid_scale, self.sigmoid_bias])
        with sdpa_kernel(TEXT_ATTENTION if tokens.device.type == "cpu" else ANY_ATTENTION):
            read = encode_trimmed(clip, tokens, buckets=4)
        both = F.normalize(torch.cat([seen, read]).float(), dim=1)
        colored = self.colors(math.sqrt(both.shape[1]) * both)
        return seen, read, scales, named, self.claims(read), colored


def normalised_pixels(pixels: Tensor) -> Tensor:
    """Pictures uint8 [B, 3, H, W] as the towers want them, float32."""
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(3, 1, 1)
    return (pixels.float().div(255) - mean) / std


class ContrastiveObjective(Objective[PairBatch]):
    """A CLIP from scratch, in open_clip's form."""

    name = "contrastive"
    Settings = Settings

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The kept tokenizer the settings name, or one trained on captions alone."""
        if self.settings.tokenizer:
            context = self.settings.text["context_length"]
            return load_tokenizer(self.settings.tokenizer, context)
        if self.around.data is None:
            texts = caption_corpus(STYLES[self.settings.style], self.settings.tokenizer_seed)
        else:
            texts = folder_corpus(self.around.data)
        context = self.settings.text["context_length"]
        return train_tokenizer(texts, self.settings.vocabulary, context)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """open_clip's model configuration."""
        text = {
            **self.settings.text,
            "vocab_size": len(self.tokenizer),
            "hf_tokenizer_name": "guided",
            "pool_type": "eos",
            "eos_id": END_ID,
            "pad_id": PAD_ID,
        }
        vision = dict(self.settings.vision)
        return {"embed_dim": self.settings.embed, "vision_cfg": vision, "text_cfg": text}

    @cached_property
    def source(self) -> PairSource:
        """Where pictures and captions come from."""
        if self.around.data is not None:
            return FolderPairs(self.around.data, self.settings.vision["image_size"], self.tokenizer)
        return WorldPairs(self.around, self.settings, self.tokenizer)

    def build(self) -> nn.Module:
        """The two towers and the helper heads."""
        clip = open_clip.CLIP(**self.configuration)
        return Pair(clip, self.settings.embed).to(memory_format=torch.channels_last)

    def batch(self, share: Share) -> PairBatch:
        """Pictures, their captions, near misses, and the truth of every pair."""
        return self.source.batch(share)

    def loss(self, model: nn.Module, batch: PairBatch, share: Share) -> tuple[Tensor, Parts]:
        """The weighted sum of the losses the recipe asks for."""
        images = normalised_pixels(batch.pixels)
        if self.settings.noise:
            draw = torch.Generator(images.device).manual_seed(int(batch.seed))
            noise = torch.randn(images.shape, generator=draw, device=images.device)
            images = images + 2 * self.settings.noise * noise
        images = images.contiguous(memory_format=torch.channels_last)
        seen, read, scales, named, claimed, colored = model(
            images, batch.tokens, self.settings.chunk
        )
        pictures = F.normalize(seen.float(), dim=1)
        texts = F.normalize(read.float(), dim=1)
        scale, sigmoid_scale, bias = scales[0].clamp(max=math.log(100)), scales[1], scales[2]
        sigmoid = SIGMOIDS[self.settings.sigmoid_form]
        logits = scale.exp() * pictures @ texts.T
        near = len(texts) - len(pictures)
        own, miss = logits.diagonal()[:near], logits[:, len(pictures) :].diagonal()
        judged = ~batch.excused[:, len(pictures) :].diagonal()
        parts = {
            "cross_entropy": softmax_loss(
                pictures, texts, scale, targets=batch.true, ignored=batch.excused
            ),
            "sigmoid": sigmoid(
                pictures, texts, sigmoid_scale, bias, targets=batch.true, ignored=batch.excused
            ),
            "hard_negatives": near_miss(own[judged], miss[judged]),
            "attributes": self._naming(
                named.float().masked_fill(batch.unlikely, NEVER), batch.codes
            ),
            "claims": self._claiming(claimed.float(), batch.forbidden),
            "level": level(
                scale.detach().exp() * pictures @ texts.T, batch.true, batch.excused
            ),  # a smaller scale shall not do for it
            "colors": self._coloring(colored.float(), torch.cat([batch.colors, batch.spoken])),
        }
        total = sum(
            (getattr(self.settings, key) * part for key, part in parts.items()), logits.sum() * 0
        )
        with torch.no_grad():
            parts["recall"] = hit_rate(logits, batch.true)
            if near:
                parts["miss_rate"] = (own <= miss).float().mean()
        return total, parts

    @staticmethod
    def _naming(named: Tensor, codes: Tensor) -> Tensor:
        """The mean cross-entropy [] of the helper heads over attributes."""
        blocks = torch.split(named, [len(VALUES[key]) for key in KEYS], 1)
        losses = [masked_cross_entropy(block, codes[:, i].long()) for i, block in enumerate(blocks)]
        return torch.stack(losses).mean()

    @staticmethod
    def _coloring(colored: Tensor, colors: Tensor) -> Tensor:
        """The mean absolute error [] of colours [B + N, 6, 3]; 0 where none is known.

        One head for both sides: where a picture's colour lies in the embedding there lies the same
        colour's word, whatever wears it.
        """
        known = ~colors.isnan()
        if not bool(known.any()):
            return colored.sum() * 0
        return (colored.view(colors.shape)[known] - colors[known]).abs().mean()

    @staticmethod
    def _claiming(claimed: Tensor, forbidden: Tensor) -> Tensor:
        """How well texts name what they rule out []; 0 where nothing is known of the texts."""
        if not bool(forbidden.any()):
            return claimed.sum() * 0
        return F.binary_cross_entropy_with_logits(claimed, forbidden)

    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Recall and zero-shot accuracy on validation portraits of the monitor's own."""
        if self.around.data is not None:
            return {}
        clip: Any = self.inside(model).clip
        return measure(clip, self.tokenizer, self.settings.style, self.around.seed)

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped bundle's weights back; the helper heads start anew."""
        clip: Any = self.inside(model).clip
        clip.load_state_dict(dict(tensors))

    def close(self) -> None:
        """End the drawing workers."""
        if "source" in self.__dict__:
            self.source.close()

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Weight decay on matrices and filters, not on embeddings, vectors and scales."""
        return parameter.ndim > 1 and "embedding" not in name

    def product(self, model: nn.Module) -> Product:
        """An open_clip bundle: weights, configuration and tokenizer."""
        clip: Any = self.inside(model).clip
        figures = self.monitor(model)
        files = {CONFIG_FILE: bundle_config(self.configuration)}
        files.update(tokenizer_files(self.tokenizer))
        return Product(
            role=self.settings.role,
            kind="open_clip",
            metrics={name: Metric(value, floor(name), 1.0) for name, value in figures.items()},
            notes="Trained on drawn portraits: knows their attributes, nothing of photographs.",
            weights=WEIGHTS_FILE,
            tensors={name: value.contiguous() for name, value in clip.state_dict().items()},
            files=files,
        )
