"""How a language model is to be asked for captions: prompts, end of a sentence, usual length."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from guided.core.reading import read_toml
from guided.errors import CorruptWeights

PROFILE_FILE = "captions.toml"

#: The prompts of the paper, for models trained on text in general.
PAPER_PROMPTS = {
    "caption": "Image of a",
    "world": "Image of",
    "ocr": "Image of text that says",
}

#: Weight of the cosine in the rank of a beam, by mode: the paper's moves the context alone.
PAPER_WEIGHTS = {"optimise": 0.0, "fuse": 20.0}


@dataclass(frozen=True)
class Profile:
    """What suits one language model.

    ``prompts`` maps presets (caption, ocr, world) to the words a caption begins with; ``end`` is
    the text of the token that ends a sentence; ``length`` is the number of tokens a caption may
    have; ``shortest`` the number before which it may not end; ``end_bonus`` is added, in nats, to
    the end's log-probability.  ``candidates`` is the number of next tokens CLIP looks at.

    The others say how far a model of its size is moved: ``iterations`` and ``rate`` of the steps
    its context takes, ``temperature`` and ``prior`` of the loss word_clip, ``fluency``, the weight
    of the loss of that name, and ``weight``, by mode the cosine's weight in the rank of a beam.
    Where a profile is silent they are the paper's.  ``presets`` has what a preset wants otherwise.
    """

    prompts: dict[str, str] = field(default_factory=lambda: dict(PAPER_PROMPTS))
    end: str = "."
    length: int = 15
    shortest: int = 3
    end_bonus: float = 1.0
    candidates: int = 512
    iterations: int = 5
    rate: float = 0.3
    temperature: float = 0.01
    prior: float = 0.0
    fluency: float = 0.2
    weight: dict[str, float] = field(default_factory=lambda: dict(PAPER_WEIGHTS))
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def asked(self, preset: str) -> Profile:
        """The profile for one preset."""
        return replace(self, **self.presets.get(preset, {}))

    @classmethod
    def load(cls, folder: Path) -> Profile:
        """The profile in a model's folder, or the one for models of general text.

        Raises:
            CorruptWeights: a file that is no TOML or has other keys.
        """
        path = folder / PROFILE_FILE
        if not path.is_file():
            return cls()
        try:
            table: dict[str, Any] = read_toml(path)
            profile = cls(**table)
            for preset in profile.presets:
                profile.asked(preset)
            return profile
        except (tomllib.TOMLDecodeError, TypeError, UnicodeDecodeError) as error:
            allowed = ", ".join(known.name for known in fields(cls))
            raise CorruptWeights(f"{path} is no profile: {error}; allowed: {allowed}.") from error
