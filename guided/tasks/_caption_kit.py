"""What captions are made with: the kit's scorer and language model, set up by the options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guided.captioning.base import Captioner
from guided.core.files import IMAGE_SUFFIXES
from guided.core.images import to_tensor
from guided.core.loss_tables import TEXT_LOOP, TEXT_ROLES, check_losses, objective_of
from guided.core.objective import Objective
from guided.core.prompts import embed_prompt
from guided.core.text import absolute, there, weighted_term
from guided.errors import UsageError
from guided.guidance.caption_decoder import CaptionConfig, CaptionDecoder
from guided.guidance.zerocap_target import mixed, turned
from guided.language.load import LanguageModelBundle
from guided.language.profile import Profile
from guided.scorers.clip import ClipScorer
from guided.scorers.prefix_text import PrefixTextScorer
from guided.tasks._caption_options import CaptionOptions
from guided.tasks.base import TaskContext

#: The factor of the end token in the paper's code by preset, and its settings for sums.
REFERENCE_END = {"caption": 1.01, "world": 1.04, "ocr": 1.04}
REFERENCE_SUM: dict[str, Any] = {"end_factor": 1.06, "fusion": 0.95, "power": 0.95}

#: Taken from the total of a sentence that was cut off, about what a false word costs in cosine.
UNFINISHED = 0.1


@dataclass(frozen=True)
class CaptionKit:
    """Everything loaded that captions are made with."""

    options: CaptionOptions
    ctx: TaskContext
    scorer: ClipScorer
    speaker: LanguageModelBundle
    decoder: CaptionDecoder
    config: CaptionConfig
    captioner: Captioner
    objective: Objective
    terms: tuple[tuple[float, Tensor], ...]

    @classmethod
    def open(cls, options: CaptionOptions, ctx: TaskContext) -> CaptionKit:
        """Load the kit's scorer and language model.

        Raises:
            MissingWeights: files that are not on this computer.
            UsageError: no language model named.
            CannotDo: no scorer named.
        """
        check(options)
        models = ctx.models.of(options)
        models.needed("language")
        scorer, speaker = models.scorer, models.language
        captioner = captioner_of(options, speaker)
        words = PrefixTextScorer.of(scorer, precision=options.precision)
        return cls(
            options,
            ctx,
            scorer,
            speaker,
            CaptionDecoder(speaker.language, words, speaker.language.words.piece),
            config_of(options, speaker),
            captioner,
            objective_of(options.loss or captioner.usual_losses() or []),
            tuple(terms(options, ctx, scorer)),
        )

    def target(self, image: Image.Image) -> Tensor:
        """What the captions of a picture should fit: a unit vector [D]."""
        with torch.no_grad():
            own = self.scorer.embed_images(to_tensor(image).to(self.ctx.device.torch))[0]
        weights = [weight for weight, _ in self.terms]
        others = torch.stack([own, *(feature for _, feature in self.terms)])[1:]
        if self.options.compat == "zerocap":
            return mixed(torch.cat([own[None], others]), [1.0, *weights])
        return turned(own, others, weights)


def _profile(options: CaptionOptions, speaker: LanguageModelBundle) -> Profile:
    """The language model's profile, with the options instead; the paper's to repeat the paper."""
    own = speaker.profile.asked(options.preset)
    if options.compat == "zerocap":
        paper = Profile()
        own = replace(
            own, iterations=paper.iterations, rate=paper.rate, temperature=paper.temperature,
            prior=paper.prior, fluency=paper.fluency, weight=paper.weight,
        )  # fmt: skip
    given = {
        "length": options.length, "shortest": options.shortest, "end_bonus": options.end_bonus
    }  # fmt: skip
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return replace(own, **chosen)


def captioner_of(options: CaptionOptions, speaker: LanguageModelBundle) -> Captioner:
    """The captioner, with what suits the language model where its options are silent."""
    captioner = options.captioner.of_profile(_profile(options, speaker))
    sums = options.compat == "zerocap" and (options.plus or options.minus)
    paper = {key: value for key, value in REFERENCE_SUM.items() if hasattr(captioner, key)}
    return captioner.model_copy(update=paper) if sums else captioner


def check(options: CaptionOptions) -> None:
    """Check that the losses given are for captions.

    Raises:
        UsageError: a captioner that follows none, or a loss that looks at something else than text.
        CannotDo: a loss that needs a model which captions cannot load.
    """
    if options.loss and options.captioner.usual_losses() is None:
        raise UsageError(
            f"--method {options.method} follows no losses; a [[loss]] is given.",
            hint="Leave it out, or take --method zerocap.",
        )
    check_losses(options.loss or (), TEXT_LOOP, TEXT_ROLES)


def config_of(options: CaptionOptions, speaker: LanguageModelBundle) -> CaptionConfig:
    """How captions are written: the options, the language model's profile where they are silent.

    Raises:
        UsageError: an end of sentence that is not one token of the language model.
    """
    language, profile = speaker.language, _profile(options, speaker)
    reference = options.compat == "zerocap"
    end = language.encode(profile.end)
    if len(end) != 1:
        raise UsageError(
            f"{profile.end!r} ends sentences and must be one token of {language.name!r}, "
            f"not {len(end)}.",
            hint=f"Change 'end' in {speaker.folder / 'captions.toml'}.",
        )
    barred = tuple(token for token in language.words.non_word_tokens if token != end[0])
    config = CaptionConfig(
        prompt=profile.prompts[options.preset] if options.prompt is None else options.prompt,
        end=end[0],
        forbidden=barred if options.forbid else (),
        reference=reference,
        beams=options.beams,
        length=profile.length,
        shortest=profile.shortest,
        end_bonus=profile.end_bonus,
        end_factor=REFERENCE_END[options.preset],
        repetition=options.repetition,
        fluency=options.ranking,
        unfinished=UNFINISHED,
    )
    if reference and (options.plus or options.minus):
        return replace(config, end_factor=REFERENCE_SUM["end_factor"])
    return config


def terms(
    options: CaptionOptions, ctx: TaskContext, scorer: ClipScorer
) -> Iterator[tuple[float, Tensor]]:
    """The weights and features [D] of what is added and taken away.

    Raises:
        UsageError: a name of a picture that is not there.
        ImageError: a file that does not give a picture.
    """
    for sign, several in ((1.0, options.plus), (-1.0, options.minus)):
        for given in several:
            weight, what = weighted_term(given)
            if what in ctx.given or (there(absolute(what)) and absolute(what).is_file()):
                image = to_tensor(ctx.open_image(what)).to(ctx.device.torch)
                with torch.no_grad():
                    yield sign * weight, scorer.embed_images(image)[0]
            elif Path(what).suffix.lower() in IMAGE_SUFFIXES:
                raise UsageError(f"There is no picture {what!r} to add or take away.")
            else:
                yield sign * weight, embed_prompt(scorer, what)
