"""How a CLIP in training is doing, on validation portraits of the monitor's own.

These figures choose and stop nothing but are read by people; judges look at the end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from guided.training.clip_bundle import embed_pixels, embed_texts
from guided.worlds.portraits import draw
from guided.worlds.portraits.attributes import KEYS, UNSEEN_WORDS, VALUES, Portrait
from guided.worlds.portraits.grammar.captions import caption, value_prompts
from guided.worlds.portraits.grammar.frames import STYLES
from guided.worlds.portraits.splits import sample

#: World seeds of the validation split that belong to monitors; judges use lower ones.
FIRST_SEED = 5_000_000
COUNT = 400


@lru_cache(maxsize=1)
def monitor_portraits(count: int = COUNT) -> tuple[list[Portrait], Tensor]:
    """Validation portraits and their pictures [count, 3, 128, 128] uint8."""
    people = [sample(FIRST_SEED + i, "val") for i in range(count)]
    pixels = np.stack([np.asarray(draw(person, 128)) for person in people])
    return people, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def value_accuracy(
    clip: Any, tokenizer: PreTrainedTokenizerFast, key: str, style: str, seen: Tensor
) -> float:
    """Zero-shot accuracy of an attribute with the style's templates, on the monitor's portraits."""
    people, _ = monitor_portraits()
    values = [value for value in VALUES[key] if value not in UNSEEN_WORDS]
    rows = [i for i, p in enumerate(people) if p.visible()[key] and p.attributes[key] in values]
    columns = []
    for value in values:
        prompts = embed_texts(clip, tokenizer, value_prompts(key, value, STYLES[style]))
        columns.append(F.normalize(prompts.mean(0), dim=0))
    found = (seen[rows] @ torch.stack(columns).T).argmax(1).tolist()
    right = [values[f] == people[i].attributes[key] for f, i in zip(found, rows, strict=True)]
    return float(np.mean(right))


@torch.no_grad()
def measure(
    clip: nn.Module, tokenizer: PreTrainedTokenizerFast, style: str, seed: int
) -> dict[str, float]:
    """Recall at 1 both ways among ``COUNT`` captions and zero-shot accuracy of each attribute."""
    people, pixels = monitor_portraits()
    seen = embed_pixels(clip, pixels)
    rng = np.random.default_rng([seed, 77])
    texts = [caption(person, rng, count=9, style=STYLES[style]).text for person in people]
    cosines = seen @ embed_texts(clip, tokenizer, texts).T
    own = torch.arange(len(people), device=cosines.device)
    figures = {
        "recall_text": (cosines.argmax(1) == own).float().mean().item(),
        "recall_image": (cosines.argmax(0) == own).float().mean().item(),
    }
    shown = [key for key in KEYS if key != "sign"]
    accuracies = {
        f"zero_shot_{key}": value_accuracy(clip, tokenizer, key, style, seen) for key in KEYS
    }
    figures["zero_shot"] = float(np.mean([accuracies[f"zero_shot_{key}"] for key in shown]))
    return {**figures, **accuracies}


def floor(figure: str) -> float:
    """What guessing gets in a figure of ``measure``."""
    if figure.startswith("recall"):
        return 1 / COUNT
    shown = [key for key in KEYS if key != "sign"]
    if figure == "zero_shot":
        return float(np.mean([1 / len(VALUES[key]) for key in shown]))
    values = [v for v in VALUES[figure.removeprefix("zero_shot_")] if v not in UNSEEN_WORDS]
    return 1 / len(values)
