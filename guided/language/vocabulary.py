"""Token ids to text and back for byte-level BPE vocabularies, and which tokens no caption wants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from guided.errors import CorruptWeights, MissingWeights, library_message

#: Blanks that byte-level models leave before punctuation and clitics, and what they become.
_TIDY = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"),
    (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
_WORDLY = re.compile(r"[ ]?[A-Za-z]+|[ ]?[.,'-]|[ ]?'[a-z]+")


def tidy(text: str) -> str:
    """The text without blanks before punctuation and English clitics.

    >>> tidy("it 's a hat , not a cap .")
    "it's a hat, not a cap."
    """
    for before, after in _TIDY:
        text = text.replace(before, after)
    return text


class Vocabulary:
    """A byte-level BPE vocabulary (tokenizers' ``Tokenizer``) with cached single-token texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        self.rows: int | None = None

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """The vocabulary of a folder: ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.

        Raises:
            MissingWeights: neither is there.
            CorruptWeights: files that cannot be parsed.
        """
        whole = folder / "tokenizer.json"
        if whole.is_file():
            try:
                return cls(Tokenizer.from_file(str(whole)))
            except Exception as error:  # tokenizers raises nothing narrower
                raise CorruptWeights(
                    f"{whole} is no tokenizer: {library_message(error)}."
                ) from error
        if not (folder / "vocab.json").is_file() or not (folder / "merges.txt").is_file():
            raise MissingWeights(
                f"There is no tokenizer.json (nor vocab.json and merges.txt) in {folder}.",
                hint="Put them there, or fetch a model: guided models get gpt2 --online",
            )
        return cls.from_files(folder / "vocab.json", folder / "merges.txt")

    @classmethod
    def from_files(cls, vocabulary: Path, merges: Path) -> Vocabulary:
        """The vocabulary of GPT-2's two files.

        Raises:
            CorruptWeights: files that cannot be parsed.
        """
        try:
            tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
        except Exception as error:  # tokenizers raises nothing narrower
            raise CorruptWeights(
                f"{vocabulary} and {merges} are no BPE: {library_message(error)}."
            ) from error
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return cls(tokenizer)

    @property
    def size(self) -> int:
        """The number of token ids."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def learned_size(self) -> int:
        """The number of token ids without those that were added later, such as ``[PAD]``."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=False))

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; nothing is added before or after."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The tidy text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return tidy(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    def piece(self, token: int) -> str:
        """The tidy text of one token alone, with its leading blank if it has one."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self.decode([token])
        return found

    @cached_property
    def phantom_tokens(self) -> tuple[int, ...]:
        """Rows of the model's embedding that no token has: a padded vocabulary."""
        rows = range(self.rows or 0)
        return tuple(token for token in rows if self.tokenizer.id_to_token(token) is None)

    @cached_property
    def non_word_tokens(self) -> tuple[int, ...]:
        """Ids of tokens no caption wants: digits, symbols, line breaks, broken bytes.

        Kept are pieces of plain words, apostrophes, commas, hyphens and the full stop.  They are
        among the ``rows`` of the model's embedding, where that is known: rows without a token (a
        padded vocabulary) are no words, and tokens without a row are never asked for.
        """
        rows = self.size if self.rows is None else self.rows
        return tuple(token for token in range(rows) if not _WORDLY.fullmatch(self.piece(token)))
