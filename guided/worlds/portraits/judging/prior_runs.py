"""For scripts/judge unclip: what a prior imagines of words, without the denoiser to draw it."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guided.core.device import Device
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.generators.diffusion.text import encode_text, text_encoder_of
from guided.generators.unclip import CONFIG, BoundPrior, load_prior, prior_scheduler
from guided.guidance.prior_sampling import sample_prior
from guided.judging.result_cache import ResultCache, digest_of, short
from guided.scorers.clip import load_clip
from guided.zoo import find
from guided.zoo.kits import load_kit

IMAGINED = 64


def prior_folder(given: argparse.Namespace) -> Path:
    """The folder of the prior that is judged."""
    wanted = given.prior or load_kit("portraits")["prior"]
    return Path(wanted) if (Path(wanted) / CONFIG).is_file() else find(wanted, "prior").folder


class PriorContext:
    """A prior and the CLIP that it was taught by; ``given`` is the command line."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.folder = given, prior_folder(given)
        device = Device.pick(given.device)
        self.scorer = load_clip(given.scorer or load_kit("portraits")["scorer"], device)
        self.net = load_prior(str(self.folder), self.scorer.fingerprint, device).net
        shared: Any = self.scorer.texts.tokenizer
        self.tokenizer = copy.deepcopy(shared.tokenizer)
        self.encoder = device.prepare(
            text_encoder_of(self.scorer.model, int(self.tokenizer.eos_token_id))
        )
        self.size = int(self.scorer.preprocess.size[0])
        self.state = [digest_of(self.folder), self.scorer.fingerprint]
        self.kept = ResultCache.of(given.out, given.minutes)

    def sample_prior(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """What the prior imagines of texts, as ``guided generate --method unclip`` asks it."""
        given, parts = self.given, []
        asked = [given.prior_steps, given.prior_cfg, given.tries]
        for first in range(0, len(texts), IMAGINED):
            rows = list(zip(texts, seeds, strict=True))[first : first + IMAGINED]
            name = f"prior/{short([self.state, asked, rows])}.safetensors"
            parts.append(self.kept.tensors(name, partial(self._imagined, rows))["image"])
        return torch.cat(parts)

    def _imagined(self, rows: list[tuple[str, int]]) -> dict[str, Tensor]:
        given, texts = self.given, [text for text, _ in rows]
        both = [*([""] * len(rows) if given.prior_cfg > 1 else ()), *texts]
        words = encode_text(self.encoder, self.tokenizer, both)
        stream = sample_prior(
            BoundPrior(self.net, words, prior_scheduler()), words.pooled[-len(rows) :],
            Seeds(tuple(seed for _, seed in rows)), given.prior_steps, cfg=given.prior_cfg,
            tries=given.tries,
        )  # fmt: skip
        return {"image": drain(stream)}
