"""Trains a CLIP on images and captions, of which several of a batch may be true of an image.

Targets are a matrix, since like captions are true together: symmetric cross-entropy with several
positives, and a balanced sigmoid loss.
Source: Radford et al. 2021 (symmetric cross-entropy); Zhai et al. 2023 (sigmoid loss).
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import open_clip
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerFast

from guided.core.long_texts import report_long
from guided.errors import CannotDo
from guided.nets.clip_text import TextReading, encode_trimmed, read_texts
from guided.training.clip_bundle import (
    CONFIG_FILE,
    END_ID,
    PAD_ID,
    WEIGHTS_FILE,
    bundle_config,
    normalized_pixels,
    tokenize,
    tokenizer_files,
    tokenizer_of,
    train_tokenizer,
)
from guided.training.contrastive_losses import (
    balanced_sigmoid_loss,
    hit_rate,
    sigmoid_loss,
    softmax_loss,
)
from guided.training.folder_pairs import FolderPairs
from guided.training.objective import BatchContext, Metric, ObjectiveSettings, Parts, Product
from guided.training.pair_objective import PairObjective
from guided.training.retrieval_figures import FolderRetrieval

log = logging.getLogger(__name__)

SIGMOIDS: dict[str, Callable[..., Tensor]] = {
    "balanced": balanced_sigmoid_loss,
    "siglip": sigmoid_loss,
}
#: On a CPU the plain form's backward pass is twice as fast at these lengths (under 80 tokens).
TEXT_ATTENTION = [SDPBackend.MATH]
ANY_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class ClipSettings(ObjectiveSettings):
    """The ``[settings]`` of a CLIP's recipe."""

    absent = frozenset({"hard_negatives", "attributes", "claims", "colors", "level"})

    role: Literal["scorer", "judge"] = "scorer"
    embed: int = Field(256, ge=8)
    vision: dict[str, Any] = Field(description="open_clip's keys of the image tower")
    text: dict[str, Any] = Field(description="open_clip's keys of the text tower")
    vocabulary: int = Field(1024, ge=300)
    cross_entropy: float = 1.0
    sigmoid: float = 1.0
    sigmoid_form: Literal["balanced", "siglip"] = "balanced"
    chunk: int = Field(0, ge=0, description="gradient caching: images encoded at a time, 0 = all")
    augment: float = Field(
        1.0, ge=0, le=2, description="how far images of your own are cropped, lit and mirrored"
    )
    noise: float = Field(0.02, ge=0, description="standard deviation of pixel noise")
    lock_image: bool = Field(
        False, description="train the text tower alone, on the image tower of the weights to start"
    )


@dataclass
class ClipBatch:
    """Images uint8 [B, 3, H, W], token ids [N, L], which texts are true of which images [B, N], and
    the seed of the pixels' noise; ``kept`` [M, L] are token ids of texts that are to be read as
    they were before.
    """

    pixels: Tensor
    tokens: Tensor
    true: Tensor
    seed: Tensor
    kept: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ClipOutput:
    """Embeddings of images [B, D] and texts [N, D], not normalized; the softmax's log scale, the
    sigmoid's, and its bias, [3]; what further heads say; how the kept texts are read.
    """

    images: Tensor
    texts: Tensor
    scales: Tensor
    heads: tuple[Tensor, ...] = ()
    kept: TextReading | None = None


class Similarities(NamedTuple):
    """Unit embeddings of images [B, D] and texts [N, D], the log of the scale [], and the scaled
    cosines [B, N].
    """

    images: Tensor
    texts: Tensor
    log_scale: Tensor
    logits: Tensor


class ClipTowers(nn.Module):
    """Both towers of a CLIP and what only its training needs: the sigmoid's scale and bias."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip
        self.locked = False
        self.sigmoid_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.sigmoid_bias = nn.Parameter(torch.tensor(-3.0))

    def lock_image_tower(self) -> None:
        """Train the text tower alone. Source: Zhai et al. 2022 (LiT)."""
        clip: Any = self.clip
        clip.visual.requires_grad_(False)
        self.locked = True

    def forward(
        self, images: Tensor, tokens: Tensor, chunk: int = 0, kept: Tensor | None = None
    ) -> ClipOutput:
        """Embeddings of normalized images [B, 3, H, W] and tokens [N, L]; kept texts [M, L]."""
        clip: Any = self.clip
        pictures = self._embed_images(images, chunk)
        scales = torch.stack([clip.logit_scale, self.sigmoid_scale, self.sigmoid_bias])
        with sdpa_kernel(TEXT_ATTENTION if tokens.device.type == "cpu" else ANY_ATTENTION):
            texts = encode_trimmed(clip, tokens, buckets=4)
            reading = None if kept is None else read_texts(clip, kept)
        return ClipOutput(pictures, texts, scales, self.helpers(pictures, texts), reading)

    def _embed_images(self, images: Tensor, chunk: int) -> Tensor:
        """Embeddings [B, D] of images, ``chunk`` at a time where that saves memory."""
        clip: Any = self.clip
        encode = clip.encode_image
        if self.locked:
            clip.visual.eval()
            with torch.no_grad():
                embedded: Tensor = encode(images)
        elif chunk and self.training and len(images) > chunk:
            chunks = torch.split(images, chunk)
            parts = [checkpoint(encode, part, use_reentrant=False) for part in chunks]
            embedded = torch.cat(parts)
        else:
            embedded = encode(images)
        return embedded

    def helpers(self, images: Tensor, texts: Tensor) -> tuple[Tensor, ...]:
        """What helper heads say of both embeddings; here there are none."""
        return ()


BatchT = TypeVar("BatchT", bound=ClipBatch)


class ClipTraining(PairObjective[BatchT]):
    """A CLIP from scratch, in open_clip's form; what a folder's and a world's have in common."""

    Settings: ClassVar[type[ObjectiveSettings]] = ClipSettings

    @property
    def size(self) -> int:
        """The side of the image tower's images."""
        return int(self.settings.vision["image_size"])

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One trained on the captions, or that of the weights that the training starts from."""
        context, start = self.settings.text["context_length"], self.ctx.start
        known = tokenizer_of(start.parent, context) if start is not None else None
        return known or train_tokenizer(
            self.dataset.corpus(), self.settings.vocabulary, context, spelled=False, seldom=2
        )

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

    def build(self) -> nn.Module:
        """The two towers."""
        towers = self.towers(open_clip.CLIP(**self.configuration))
        if self.settings.lock_image:
            if self.ctx.start is None:
                raise CannotDo(
                    "lock_image = true trains the text tower on an image tower that is there.",
                    hint="Name that CLIP's weights: --set start=FOLDER/open_clip_model.safetensors",
                )
            towers.lock_image_tower()
        return towers.to(memory_format=torch.channels_last)

    def towers(self, clip: nn.Module) -> ClipTowers:
        """A CLIP as it is trained."""
        return ClipTowers(clip)

    def loss(self, model: nn.Module, batch: BatchT, share: BatchContext) -> tuple[Tensor, Parts]:
        """The weighted sum of the losses that the recipe asks for."""
        images = normalized_pixels(batch.pixels)
        if self.settings.noise:
            stream = torch.Generator(images.device).manual_seed(int(batch.seed))
            noise = torch.randn(images.shape, generator=stream, device=images.device)
            images = images + 2 * self.settings.noise * noise
        images = images.contiguous(memory_format=torch.channels_last)
        output: ClipOutput = model(images, batch.tokens, self.settings.chunk, batch.kept)
        pictures = F.normalize(output.images.float(), dim=1)
        texts = F.normalize(output.texts.float(), dim=1)
        scale, sigmoid_scale, bias = output.scales[0].clamp(max=math.log(100)), *output.scales[1:]
        sigmoid = SIGMOIDS[self.settings.sigmoid_form]
        logits = scale.exp() * pictures @ texts.T
        pairs: dict[str, Any] = {"targets": batch.true, "ignored": self.ignored(batch)}
        parts = {
            "cross_entropy": softmax_loss(pictures, texts, scale, **pairs),
            "sigmoid": sigmoid(pictures, texts, sigmoid_scale, bias, **pairs),
            **self.terms(output, Similarities(pictures, texts, scale, logits), batch),
        }
        total = sum(
            (getattr(self.settings, key) * part for key, part in parts.items()), logits.sum() * 0
        )
        with torch.no_grad():
            parts["recall"] = hit_rate(logits, batch.true)
            parts |= self.figures(logits, batch)
        return total, parts

    def ignored(self, batch: BatchT) -> Tensor | None:
        """Pairs [B, N] bool that count neither for nor against; None: all count."""
        return None

    def terms(self, output: ClipOutput, pairs: Similarities, batch: BatchT) -> dict[str, Tensor]:
        """Further terms of the loss, by the settings that are their weights; here none."""
        return {}

    def figures(self, logits: Tensor, batch: BatchT) -> dict[str, Tensor]:
        """Further figures for the log; here none."""
        return {}

    def restore(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put a shipped bundle's weights back; what only training needs starts anew."""
        clip: Any = self.inside(model).clip
        clip.load_state_dict(dict(tensors))

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Weight decay on matrices and filters, not on embeddings, vectors and scales."""
        return parameter.ndim > 1 and "embedding" not in name

    def product(self, model: nn.Module) -> Product:
        """An open_clip bundle: weights, configuration and tokenizer."""
        clip: Any = self.inside(model).clip
        metrics, notes = self.measured(model)
        files = {CONFIG_FILE: bundle_config(self.configuration)}
        files.update(tokenizer_files(self.tokenizer))
        return Product(
            role=self.settings.role,
            kind="open_clip",
            metrics=metrics,
            notes=notes,
            licence=self.dataset.licence,
            weights=WEIGHTS_FILE,
            tensors={name: value.contiguous() for name, value in clip.state_dict().items()},
            files=files,
        )

    @abstractmethod
    def measured(self, model: nn.Module) -> tuple[dict[str, Metric], str]:
        """A card's metrics and notes."""


class ClipObjective(ClipTraining[ClipBatch]):
    """A CLIP of a folder's images and captions; like captions are true together."""

    name = "clip"

    @cached_property
    def pairs(self) -> FolderPairs:
        """The folder; captions that the text tower cannot read whole are logged."""
        assert isinstance(self.dataset, FolderPairs)
        tokenizer = self.tokenizer
        report_long(
            self.dataset.corpus(),
            lambda text: len(tokenizer(text, verbose=False)["input_ids"]),
            tokenizer.model_max_length,
        )
        return self.dataset

    @cached_property
    def retrieval(self) -> FolderRetrieval:
        """Retrieval on held-out images and on as many that are trained on."""
        return FolderRetrieval(self.pairs, self.tokenizer)

    def batch(self, share: BatchContext) -> ClipBatch:
        """Images with one of their captions each, and which captions are true of which images."""
        data, rows = self.pairs, self.pairs.rows(share)
        mine = rows[share.rows]
        words = [data.texts[row] for row in mine.tolist()]
        keys = [w[pick] for w, pick in zip(words, data.picks(rows, share), strict=True)]
        true = torch.tensor([[key in own for key in keys] for own in map(set, words)])
        return ClipBatch(
            pixels=data.augmented(mine, share, self.settings.augment),
            tokens=tokenize(self.tokenizer, data.captions(rows, share)),
            true=true,
            seed=torch.tensor(share.number("noise")),
        )

    def monitor(self, model: nn.Module) -> dict[str, float]:
        """Recall on the user's images."""
        clip: Any = self.inside(model).clip
        return {name: metric.value for name, metric in self.retrieval.measure(clip).items()}

    def measured(self, model: nn.Module) -> tuple[dict[str, Metric], str]:
        """Retrieval against chance, and what the CLIP is of, in words."""
        clip: Any = self.inside(model).clip
        metrics = self.retrieval.measure(clip)
        verdict = self.retrieval.verdict(metrics)
        notes = (
            f"Trained on {self.dataset.summary()}; {self.size} x {self.size} pixels, "
            f"{len(self.tokenizer)} text tokens, data {self.data_digest()[:16]}. {verdict} It "
            "knows what these captions say and nothing else; its licence depends on the images and "
            "captions."
        )
        return metrics, notes
