"""The CLIP of the drawn world: the truth of every pair is known, and what pictures show.

A caption is true or false of every picture, not of its own alone.  To the losses of a CLIP come a
term that sets each caption against its near miss (one mentioned attribute changed), helper heads
that name attributes, claims and colours, and one that keeps pairs of values which training never
shows among the others.
Source: Yuksekgonul et al. 2023 (hard negative captions).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import open_clip
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from guided.errors import CannotDo
from guided.nets.clip_text import TextReading, read_texts
from guided.training.clip_bundle import train_tokenizer
from guided.training.objective import BatchContext, Metric, ObjectiveSettings
from guided.training.objectives import clip as general
from guided.worlds.portraits.attributes import COLOR_KEYS, KEYS, VALUES
from guided.worlds.portraits.grammar.claims import COLUMNS
from guided.worlds.portraits.grammar.frames import FREE, STYLES
from guided.worlds.portraits.training.clip_bundle import caption_corpus, load_tokenizer
from guided.worlds.portraits.training.clip_pairs import PairBatch
from guided.worlds.portraits.training.clip_source import WorldPairs
from guided.worlds.portraits.training.contrastive_monitor import floor, measure
from guided.worlds.portraits.training.truth_losses import level, masked_cross_entropy, near_miss
from guided.zoo.packing import load_weights

#: A logit whose share of a softmax is nothing.
NEVER = -1e4


class Settings(general.ClipSettings):
    """The keys of a contrastive training."""

    style: Literal["train", "judge"] = "train"
    pictures: int = Field(300_000, ge=1, description="how many pictures of the world are drawn")
    tokenizer: str = Field("", description="a kept tokenizer; without one it is trained")
    tokenizer_seed: int = 0
    hard_negatives: float = 1.0
    near_share: float = Field(0.5, ge=0, le=1, description="share of pictures with a near miss")
    attributes: float = Field(1.0, description="weight of helper heads: pictures name attributes")
    colors: float = Field(3.0, description="weight of a helper head: both sides give colours")
    claims: float = Field(3.0, description="weight of a helper head: texts name their claims")
    focus: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {}, description="attributes that a share of the captions speak of, beside two others"
    )
    shift: int = Field(4, ge=0, description="pictures are moved by up to this many pixels")
    recolored: float = Field(0.2, ge=0, le=1, description="share of pictures in other colours")
    excuse: bool = Field(
        True, description="hold nothing against pairs of values that no picture shows together"
    )
    free: float = Field(0.0, ge=0, le=1, description="share of captions in plain English")
    keep_texts: float = Field(
        0.0, ge=0, description="weight of reading captions as the weights that it starts from do"
    )
    level: float = Field(1.0, ge=0, description="weight of how far such pairs are from other ones")

    @field_validator("focus")
    @classmethod
    def _known(cls, focus: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(focus) - set(KEYS))
        if unknown:
            raise ValueError(f"there is no attribute {unknown[0]!r}; there are: {', '.join(KEYS)}")
        return focus


class PortraitTowers(general.ClipTowers):
    """Both towers and helper heads, which are left out of what is shipped."""

    def __init__(self, clip: nn.Module, embed: int) -> None:
        super().__init__(clip)
        self.claims = nn.Linear(embed, COLUMNS)
        self.colors = nn.Linear(embed, 3 * len(COLOR_KEYS))
        self.heads = nn.ModuleDict({key: nn.Linear(embed, len(VALUES[key])) for key in KEYS})

    def helpers(self, images: Tensor, texts: Tensor) -> tuple[Tensor, ...]:
        """Logits of attributes of images and of claims of texts; the colours of both."""
        named = torch.cat([self.heads[key](images) for key in KEYS], 1)
        both = F.normalize(torch.cat([images, texts]).float(), dim=1)
        colored = self.colors(math.sqrt(both.shape[1]) * both)
        return named, self.claims(texts), colored


class ClipObjective(general.ClipTraining[PairBatch]):
    """A CLIP of drawn portraits."""

    name = "clip"
    Settings: ClassVar[type[ObjectiveSettings]] = Settings
    needs_folder = False

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The kept tokenizer the settings name, or one trained on captions alone."""
        context = self.settings.text["context_length"]
        if self.settings.tokenizer:
            return load_tokenizer(self.settings.tokenizer, context)
        texts = caption_corpus(STYLES[self.settings.style], self.settings.tokenizer_seed)
        return train_tokenizer(texts, self.settings.vocabulary, context)

    @cached_property
    def dataset(self) -> WorldPairs:
        """Drawn portraits with true captions and near misses."""
        return WorldPairs(self.ctx, self.settings, self.tokenizer)

    def towers(self, clip: nn.Module) -> PortraitTowers:
        """The two towers and the helper heads."""
        return PortraitTowers(clip, self.settings.embed)

    def batch(self, share: BatchContext) -> PairBatch:
        """Pictures, their captions, near misses, and the truth of every pair."""
        return self.dataset.batch(share)

    def ignored(self, batch: PairBatch) -> Tensor:
        """Pairs that no picture can tell of."""
        return batch.excused

    def terms(
        self, output: general.ClipOutput, pairs: general.Similarities, batch: PairBatch
    ) -> dict[str, Tensor]:
        """Near misses, and what both sides name."""
        own, miss = _near(pairs.logits)
        judged = ~batch.excused[:, len(pairs.logits) :].diagonal()
        named, claimed, colored = output.heads
        # a smaller scale shall not do for the level
        fixed = pairs.log_scale.detach().exp() * pairs.images @ pairs.texts.T
        return {
            "hard_negatives": near_miss(own[judged], miss[judged]),
            "attributes": self._naming(
                named.float().masked_fill(batch.unlikely, NEVER), batch.codes
            ),
            "claims": self._claiming(claimed.float(), batch.forbidden),
            "level": level(fixed, batch.true, batch.excused),
            "colors": self._coloring(colored.float(), torch.cat([batch.colors, batch.spoken])),
            **({} if output.kept is None else {"keep_texts": self._keeping(output.kept, batch)}),
        }

    @cached_property
    def starting_clip(self) -> nn.Module:
        """The CLIP that the training starts from, whose readings of captions are kept."""
        if self.ctx.start is None:
            raise CannotDo(
                "keep_texts keeps readings of the CLIP that a training starts from; there is none.",
                hint="Name its weights: --set start=FOLDER/open_clip_model.safetensors",
            )
        clip = open_clip.CLIP(**self.configuration).eval().requires_grad_(False)
        clip.load_state_dict(load_weights(self.ctx.start))
        placed: nn.Module = clip.to(self.ctx.device)
        return placed

    def _keeping(self, reading: TextReading, batch: PairBatch) -> Tensor:
        """How far kept texts are from before []: states by their size, features by angle."""
        assert batch.kept is not None
        with torch.no_grad():
            before = read_texts(self.starting_clip, batch.kept)
        states, earlier = (r.states.float()[before.mask] for r in (reading, before))
        apart = (states - earlier).square().mean() / earlier.square().mean()
        cosine = F.cosine_similarity(reading.pooled.float(), before.pooled.float())
        return apart + (1 - cosine).mean()

    def figures(self, logits: Tensor, batch: PairBatch) -> dict[str, Tensor]:
        """How often a near miss is preferred to the caption."""
        own, miss = _near(logits)
        return {"miss_rate": (own <= miss).float().mean()} if len(miss) else {}

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
        clip: Any = self.inside(model).clip
        figures = measure(clip, self.tokenizer, self.settings.style, self.ctx.seed)
        if self.settings.free:
            plain = measure(clip, self.tokenizer, FREE.name, self.ctx.seed)
            figures |= {f"free_{key}": plain[key] for key in ("recall_text", "zero_shot")}
        return figures

    def measured(self, model: nn.Module) -> tuple[dict[str, Metric], str]:
        """The monitor's figures against guessing."""
        figures = {
            k: Metric(v, floor(k.removeprefix("free_")), 1.0)
            for k, v in self.monitor(model).items()
        }
        notes = "Trained on drawn portraits: knows their attributes, nothing of photographs."
        return figures, notes


def _near(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the first pictures with their captions and with their near misses, [n] each."""
    near = logits.shape[1] - len(logits)
    return logits.diagonal()[:near], logits[:, len(logits) :].diagonal()
