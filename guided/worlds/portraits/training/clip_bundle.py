"""The captions that a CLIP of the drawn world has its tokenizer from, and the tokenizers kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from guided.errors import MissingWeights
from guided.training.clip_bundle import wrapped
from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.grammar.frames import CaptionStyle
from guided.worlds.portraits.grammar.questions import questions
from guided.worlds.portraits.grammar.steps import drawing_steps
from guided.worlds.portraits.grammar.tags import tags
from guided.worlds.portraits.splits import sample

#: Common words of picture descriptions, so that a tokenizer does not spell them out.
COMMON_WORDS = Path(__file__).with_name("common_words.txt")
TOKENIZERS = Path(__file__).with_name("tokenizers")


def caption_corpus(style: CaptionStyle, seed: int, count: int = 12_000) -> Iterator[str]:
    """Captions of the world in one style, then its instructions, tags and questions, then words.

    The words on shirts stay out, so the tokenizer spells them letter by letter and a model can
    read words that it never saw whole.
    """
    rng = np.random.default_rng([seed, 5])
    for index in range(count):
        person = sample(seed * 1_000_003 + index).with_attribute("sign", "none")
        yield caption(person, rng, style=style, negation=0.2).text
        if index % 8 == 0:
            yield from drawing_steps(person)
            yield from tags(person)
            yield from (asked.question for asked in questions(person, rng))
    words = COMMON_WORDS.read_text("utf-8").split()
    for _ in range(20):
        yield from words


def load_tokenizer(name: str, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer kept under a name in ``guided/training/tokenizers``.

    A training that goes on must keep its tokenizer even when the captions it was made from have
    changed, so the tokenizers of shipped models are kept as files.

    Raises:
        MissingWeights: no such file.
    """
    file = TOKENIZERS / f"{name}.json"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in TOKENIZERS.glob("*.json")))
        raise MissingWeights(f"There is no tokenizer {name!r} in {TOKENIZERS}; there are: {known}.")
    return wrapped(Tokenizer.from_file(str(file)), context)
