"""For scripts/judge_unclip: what a prior imagines of words, without the denoiser to draw it."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from guided.core.device import Device  # noqa: E402
from guided.core.run import drained  # noqa: E402
from guided.core.seeds import Seeds  # noqa: E402
from guided.generators.diffusion_words import read_words, text_encoder_of  # noqa: E402
from guided.generators.unclip import CONFIG, BoundPrior, load_prior, prior_scheduler  # noqa: E402
from guided.guidance.imagine import imagine  # noqa: E402
from guided.judging.kept import Kept, digest_of, short  # noqa: E402
from guided.scorers.clip import load_clip  # noqa: E402
from guided.zoo import find  # noqa: E402
from guided.zoo.kits import load_kit  # noqa: E402

IMAGINED = 64


def prior_folder(given: argparse.Namespace) -> Path:
    """The folder of the prior that is judged."""
    wanted = given.prior or load_kit("portraits")["prior"]
    return Path(wanted) if (Path(wanted) / CONFIG).is_file() else find(wanted, "prior").folder


class PriorDesk:
    """A prior and the CLIP that it was taught by; ``given`` is the command line."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.folder = given, prior_folder(given)
        device = Device.pick(given.device)
        self.scorer = load_clip(given.scorer or load_kit("portraits")["scorer"], device)
        self.net = load_prior(str(self.folder), self.scorer.fingerprint, device).net
        shared: Any = self.scorer.texts.tokenizer
        self.tokenizer = copy.deepcopy(shared.tokenizer)
        self.encoder = device.settle(
            text_encoder_of(self.scorer.model, int(self.tokenizer.eos_token_id))
        )
        self.size = int(self.scorer.preprocess.size[0])
        self.state = [digest_of(self.folder), self.scorer.fingerprint]
        self.kept = Kept.of(given.out, given.minutes)

    def imagine(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
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
        words = read_words(self.encoder, self.tokenizer, both)
        stream = imagine(
            BoundPrior(self.net, words, prior_scheduler()), words.pooled[-len(rows) :],
            Seeds(tuple(seed for _, seed in rows)), given.prior_steps, cfg=given.prior_cfg,
            tries=given.tries,
        )  # fmt: skip
        return {"image": drained(stream)}
