"""The recipe keys of ``caption``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from guided.captioning import ALIASES, CAPTIONERS
from guided.captioning.base import Captioner
from guided.core.long_texts import LONG_TEXT_HELP, LongText
from guided.core.loss_tables import LossTable
from guided.tasks._method_tables import MethodOptions, with_tables
from guided.tasks._scoring import SCORER_HELP
from guided.tasks.base import argument, option, recipe_only


class CaptionOptions(MethodOptions):
    """The recipe keys of ``caption``."""

    registry = CAPTIONERS
    renamed = ALIASES
    usual = "zerocap"

    images: list[Path] = argument("pictures, or folders of pictures", min_length=1)
    preset: Literal["caption", "ocr", "world"] = option(
        "what to write: a caption, the words in the picture, or what is known of it", "caption"
    )
    prompt: str | None = option(
        "the words captions begin with (the preset's own if not given)", None
    )
    method: str = option(
        "zerocap moves the language model's context; fuse only weighs its words, and is quicker "
        "(guided list captioners)", "zerocap", was="mode",
    )  # fmt: skip
    compat: Literal["none", "zerocap"] = option(
        "zerocap repeats the paper's code with all its quirks", "none"
    )
    plus: list[str] = option(
        "add a picture or a text to what is described (2*TEXT for weight 2)", []
    )
    minus: list[str] = option(
        "take a picture or a text away from what is described; what is added less what is taken "
        "away counts by its weights, however small it is",
        [],
    )
    beams: int = option("how many captions are tried side by side", 5, ge=1, le=100)
    length: int | None = option("the most tokens a caption has", None, ge=1, le=500)
    batch: int = option("pictures of a folder that are captioned together", 16, ge=1, le=256)
    sheet: bool = option("also make a contact sheet of pictures and captions", False)
    relevance: bool = option("also show which part of the picture each word comes from", False)
    scorer: str = option(SCORER_HELP, "")
    long_text: LongText = option(LONG_TEXT_HELP, "cut")
    language: str = option(
        "the language model instead of the kit's: a name, a folder or a hub repository", ""
    )
    precision: Literal["fp32", "bf16"] = recipe_only(
        "precision of CLIP's text half; bf16 is quicker and not identical", "fp32"
    )
    loss: list[LossTable] | None = recipe_only("losses in place of the usual ones (zerocap)", None)
    end_bonus: float | None = recipe_only("nats added to the end of a sentence", None)
    shortest: int | None = recipe_only("tokens before a sentence may end", None, ge=0)
    repetition: float = recipe_only("nats taken from the last four tokens", 0.0, ge=0)
    forbid: bool = recipe_only("bar digits, symbols and broken words", True)
    ranking: float = recipe_only("weight of the language loss in a caption's total", 0.01, ge=0)

    @property
    def captioner(self) -> Captioner:
        """The method with its options."""
        captioner: Captioner = self.chosen
        return captioner


#: The options of the verb: ``CaptionOptions`` with a table for each captioner.
Options: type[CaptionOptions] = with_tables(CaptionOptions)
