"""Words of a prompt that a text GAN has never been told: which, in which pieces, and how sure CLIP
is of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from guided.scorers.clip import ClipScorer

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
#: What a picture is compared with when a prompt has no known word at all.
PLAIN = "a person"


def words_of(text: str) -> list[str]:
    """The words of a text in lower case.

    >>> words_of("A red-haired person, 2 hats")
    ['a', 'red-haired', 'person', 'hats']
    """
    return [word.lower() for word in _WORD.findall(text)]


def unknown_words(prompt: str, known: Collection[str]) -> list[str]:
    """The words of a prompt that are not known, each once; none where nothing is known."""
    if not known:
        return []
    return list(dict.fromkeys(word for word in words_of(prompt) if word not in known))


def pieces_of(scorer: ClipScorer, word: str) -> list[str]:
    """The pieces the scorer's tokenizer reads a word in, as text."""
    tokenizer: Any = scorer.texts.tokenizer
    fast = getattr(tokenizer, "tokenizer", None)
    if fast is not None and hasattr(fast, "convert_ids_to_tokens"):
        ids = fast(" " + word, add_special_tokens=False)["input_ids"]
        return [fast.decode([i]).strip() or "?" for i in ids]
    ids = scorer.texts.tokens([word])[0].tolist()
    decode = getattr(tokenizer, "decode", None)
    inner = [i for i in ids if i not in (0, ids[0], max(ids))]
    return [decode([i]).strip() for i in inner] if decode is not None else [word]


def how_sure(scorer: ClipScorer, seen: Tensor, prompt: str, unknown: Sequence[str]) -> float:
    """CLIP's probability that unit features [n, D] show the prompt, not what is left without the
    unknown words; a mean over pictures."""
    left = " ".join(part for part in prompt.split() if not set(words_of(part)) & set(unknown))
    texts = scorer.embed_texts([prompt, left if words_of(left) else PLAIN])
    return float((scorer.scale * seen @ texts.T).softmax(1)[:, 0].mean())


def warning(
    prompt: str, unknown: Sequence[str], pieces: Sequence[Sequence[str]], sure: float
) -> str:
    """One sentence for a prompt with unknown words."""
    read = ", ".join(
        f"{word!r} (read as {' | '.join(parts)})"
        for word, parts in zip(unknown, pieces, strict=True)
    )
    return (
        f"{prompt!r}: the GAN was never told {read}; CLIP is {sure:.0%} sure that its pictures "
        "show the prompt and not just the rest of it."
    )
