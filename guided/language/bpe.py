"""An own byte-level vocabulary, learnt from text and saved as a fast tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"


def learn_vocabulary(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE of ``size`` entries; the last id begins and ends texts.

    All bytes are in the alphabet, so no text is unknown.

    Raises:
        ValueError: fewer entries than there are bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size < len(alphabet) + 1:
        raise ValueError(f"a vocabulary has at least {len(alphabet) + 1} entries, not {size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer
