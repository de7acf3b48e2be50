"""The language model of the portraits world: captions of people of every kind alike, plain English.

It is trained on texts made by grammar, of which none is read twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from guided.language.bpe import END_OF_TEXT
from guided.training.objective import LICENCE, ObjectiveSettings
from guided.training.objectives import language as general
from guided.worlds.portraits.grammar.corpus import document

#: The corpus of the monitor and of the card, apart from every training's.
HELD_OUT_SEED = 7_000_003
#: Training reads other texts than the vocabulary is learnt from.
_APART = 1_000_000_007

#: How the trained model wants to be asked; ``captions.toml`` beside its weights.
PROFILE = f"""end = "{END_OF_TEXT}"
length = 40
shortest = 20
end_bonus = 1.0
candidates = 32
iterations = 2
rate = 0.7
temperature = 0.05
prior = 1.0
fluency = 0.2

[prompts]
caption = "a portrait of"
ocr = "a person in a shirt that says"
world = "This person has"

[weight]
optimise = 5.0
fuse = 5.0

[presets.ocr]
length = 3
shortest = 1
"""


class LanguageSettings(general.LanguageSettings):
    """The ``[settings]`` of its recipe."""

    corpus: int = Field(30_000, ge=100, description="texts the vocabulary is learnt from")


class LanguageObjective(general.LanguageObjective):
    """Cross entropy of the next token of texts made by grammar."""

    name = "language"
    Settings: ClassVar[type[ObjectiveSettings]] = LanguageSettings
    own_data = "texts made by grammar"
    needs_folder = False
    licence = LICENCE

    def corpus(self) -> Iterable[str]:
        """The first texts."""
        return (document(self.ctx.seed, index) for index in range(self.settings.corpus))

    def text(self, number: int) -> str:
        """A new text: each is read once and never again."""
        return document(self.ctx.seed + _APART, number)

    def held_out_text(self, number: int) -> str:
        """A text that no training reads."""
        return document(HELD_OUT_SEED + _APART, number)

    def notes(self) -> str:
        """What a card says."""
        return "Trained on text alone; attributes drawn uniformly."

    def profile(self) -> str:
        """How the shipped model wants to be asked."""
        return PROFILE
