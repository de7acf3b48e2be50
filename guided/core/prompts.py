"""Prompts with weights: ``"purple hair | round glasses::0.5 | a hat::-0.3"``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.protocols import Scorer
from guided.errors import UsageError

PLAIN = ("{}",)
"""The template that leaves a text as it is."""

_NEAR = 1e-4  # lengths of differences of unit vectors below which two texts say the same

_WEIGHTED = re.compile(r"(?P<text>.*?)::(?P<weight>[^:|]*)", re.DOTALL)


@lru_cache(maxsize=4096)
def parse(prompt: str) -> tuple[tuple[str, float], ...]:
    """The texts of a prompt and their weights; ``|`` parts texts, ``::`` precedes a weight.

    A text without a weight has weight 1; a negative one asks to move away from its text.

    Raises:
        UsageError: an empty text, or a weight that is not a finite number other than 0.

    >>> parse("purple hair | a hat::-0.3")
    (('purple hair', 1.0), ('a hat', -0.3))
    """
    parts: list[tuple[str, float]] = []
    for piece in prompt.split("|"):
        match = _WEIGHTED.fullmatch(piece.strip())
        text = (match["text"] if match else piece).strip()
        weight = _weight(match["weight"], prompt) if match else 1.0
        if not text:
            raise UsageError(f"The prompt {prompt!r} has an empty part.", hint="Give each a text.")
        parts.append((text, weight))
    return tuple(parts)


def _weight(given: str, prompt: str) -> float:
    try:
        weight = float(given)
    except ValueError:
        weight = 0.0
    if weight == 0 or not math.isfinite(weight):
        raise UsageError(
            f"The weight {given.strip()!r} in the prompt {prompt!r} is not a number other than 0.",
            hint="Write for example 'purple hair::0.5'.",
        )
    return weight


def embed_prompts(
    scorer: Scorer, prompts: Sequence[str], templates: Sequence[str] = PLAIN
) -> tuple[Tensor, Tensor]:
    """Unit embeddings [N, T, D] and weights [N, T] of N prompts with up to T texts each.

    Weights of a prompt sum to 1 in absolute value; missing texts have weight 0.  A text's
    embedding is the normalised mean of the unit embeddings of its templates.  Every distinct text
    is encoded once.
    """
    parsed = [parse(prompt) for prompt in prompts]
    texts = list(dict.fromkeys(text for parts in parsed for text, _ in parts))
    with torch.no_grad():
        filled = [template.format(text) for text in texts for template in templates]
        each = scorer.embed_texts(filled).reshape(len(texts), len(templates), -1)
        table = F.normalize(each.mean(1), dim=1) if len(templates) > 1 else each[:, 0]
    most = max(len(parts) for parts in parsed)
    weights = torch.zeros(len(parsed), most, device=table.device, dtype=table.dtype)
    choice = torch.zeros(len(parsed), most, dtype=torch.long, device=table.device)
    for row, parts in enumerate(parsed):
        total = sum(abs(weight) for _, weight in parts)
        for column, (text, weight) in enumerate(parts):
            choice[row, column] = texts.index(text)
            weights[row, column] = weight / total
    return table[choice], weights


def embed_prompt(scorer: Scorer, prompt: str) -> Tensor:
    """The unit embedding [D] of a prompt: the weighted sum of its texts', normalised.

    A prompt of one text has that text's own embedding.

    Raises:
        UsageError: a prompt that cannot be read, or texts that cancel out.
    """
    texts, weights = embed_prompts(scorer, [prompt])
    if weights.tolist() == [[1.0]]:
        return texts[0, 0]
    mixed = (weights[0, :, None] * texts[0]).sum(0)
    if float(mixed.norm()) < _NEAR:
        raise UsageError(
            f"The texts of {prompt!r} cancel out with their weights.", hint="Give other weights."
        )
    return F.normalize(mixed, dim=0)


def text_direction(
    scorer: Scorer,
    prompts: Sequence[str],
    sources: Sequence[str],
    templates: Sequence[str] = PLAIN,
) -> Tensor:
    """Unit directions [N, D] from what a picture shows, in words, to N prompts.

    ``sources`` are one text for all prompts, or one for each.  A prompt of several texts goes along
    the weighted sum of their differences: from one source, or, where a source has as many texts,
    each from its own.

    Raises:
        UsageError: a prompt that says what its source says, or sources that do not fit.
    """
    if len(sources) not in (1, len(prompts)):
        raise UsageError(f"{len(sources)} sources were given for {len(prompts)} prompts.")
    each = list(sources) * (len(prompts) if len(sources) == 1 else 1)
    pairs = list(zip(prompts, each, strict=True))
    found = {pair: _change(scorer, pair, templates) for pair in dict.fromkeys(pairs)}
    return torch.cat([found[pair] for pair in pairs])


def _change(scorer: Scorer, pair: tuple[str, str], templates: Sequence[str]) -> Tensor:
    """The unit direction [1, D] from a source, the second of a pair, to a prompt."""
    prompt, source = pair
    targets, weights = embed_prompts(scorer, [prompt], templates)
    shown, _ = embed_prompts(scorer, [source], templates)
    if shown.shape[1] not in (1, targets.shape[1]):
        raise UsageError(
            f"What the picture shows, {source!r}, has {shown.shape[1]} texts, and the prompt "
            f"{prompt!r} has {targets.shape[1]}.",
            hint="Say one text, or as many as the prompt has, with | between them.",
        )
    change = (weights[..., None] * (targets - shown)).sum(1)
    if float(change.norm()) < _NEAR:
        raise UsageError(
            f"{prompt!r} says what the picture shows: {source!r}.",
            hint="Name something that the picture does not show.",
        )
    return F.normalize(change, dim=1)
