"""An own small CLIP as an open_clip bundle: tokenizer, configuration, folder.

The bundle is what ``open_clip`` loads under the name ``local-dir:FOLDER``: a configuration, a
``safetensors`` file and a fast tokenizer, so no loading code of our own is needed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from guided.errors import MissingWeights
from guided.portraits.captions import caption
from guided.portraits.frames import CaptionStyle
from guided.portraits.questions import questions
from guided.portraits.splits import sample
from guided.portraits.steps import drawing_steps
from guided.portraits.tags import tags

PAD, START, END = "<pad>", "<start>", "<end>"
PAD_ID, START_ID, END_ID = 0, 1, 2
#: Common words of picture descriptions, so that a tokenizer does not spell them out.
COMMON_WORDS = Path(__file__).with_name("common_words.txt")
TOKENIZERS = Path(__file__).with_name("tokenizers")
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
MEAN = STD = (0.5, 0.5, 0.5)


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


def train_tokenizer(
    texts: Iterator[str] | Sequence[str], vocabulary: int, context: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``vocabulary`` entries, padding id 0, start 1, end 2.

    Text is lower-cased; words in capitals are first spelled with hyphens ("OK" -> "o-k"), so the
    letters on a shirt stay apart from the same word in a sentence.  Bytes are the alphabet, so no
    text is unknown.
    """
    tokenizer = Tokenizer(models.BPE())
    spelled = normalizers.Replace(Regex("(?<=[A-Z])(?=[A-Z])"), "-")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), spelled, normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, START_ID), (END, END_ID)]
    )
    return wrapped(tokenizer, context)


def wrapped(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer with this module's special tokens, for texts of up to ``context`` tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
    )


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


def tokenizer_files(tokenizer: PreTrainedTokenizerFast) -> dict[str, bytes]:
    """The files of a fast tokenizer by name."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def bundle_config(model: dict[str, Any]) -> bytes:
    """The text of ``open_clip_config.json`` for a model configuration."""
    preprocess = {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    return (json.dumps(config, indent=2) + "\n").encode()
