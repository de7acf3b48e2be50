"""What captions are made with: the kit's scorer and language model, set up by the options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guided.core.files import PICTURES
from guided.core.images import to_tensor
from guided.core.objective import Objective
from guided.errors import UsageError
from guided.guidance.zerocap_captioner import Manner, Narrator
from guided.guidance.zerocap_target import mixed, turned
from guided.language.load import Speaker, load_language
from guided.language.profile import Profile
from guided.losses.fluency import Fluency
from guided.losses.word_clip import WordClip
from guided.scorers.clip import ClipScorer
from guided.scorers.prefix_text import PrefixTextScorer
from guided.tasks._caption_options import Options
from guided.tasks._scoring import pick_scorer
from guided.tasks.base import Workbench

_WEIGHTED = re.compile(r"([0-9]*\.?[0-9]+)\*(.+)", re.DOTALL)

#: The factor of the end token in the paper's code by preset, and its settings for sums.
REFERENCE_END = {"caption": 1.01, "world": 1.04, "ocr": 1.04}
REFERENCE_SUM: dict[str, Any] = {"end_factor": 1.06, "fusion": 0.95, "power": 0.95}

#: Taken from the total of a sentence that was cut off, about what a false word costs in cosine.
UNFINISHED = 0.1


@dataclass(frozen=True)
class CaptionKit:
    """Everything loaded that captions are made with."""

    options: Options
    bench: Workbench
    scorer: ClipScorer
    speaker: Speaker
    narrator: Narrator
    manner: Manner
    objective: Objective
    terms: tuple[tuple[float, Tensor], ...]

    @classmethod
    def open(cls, options: Options, bench: Workbench) -> CaptionKit:
        """Load the kit's scorer and language model.

        Raises:
            MissingWeights: files that are not on this computer.
            UsageError: no language model named.
            CannotDo: no scorer named.
        """
        named = options.language or bench.kit.get("language", "")
        if not named:
            raise UsageError("This kit names no language.", hint="Choose one with --language.")
        speaker = load_language(named, bench.device, online=bench.online)
        scorer = pick_scorer(bench, options.scorer)
        bench.notes[speaker.language.name] = speaker.language.fingerprint
        words = PrefixTextScorer.of(scorer, precision=options.precision)
        return cls(
            options,
            bench,
            scorer,
            speaker,
            Narrator(speaker.language, words, speaker.language.words.piece),
            manner(options, speaker),
            objective(options, speaker),
            tuple(terms(options, bench, scorer)),
        )

    def target(self, image: Image.Image) -> Tensor:
        """What the captions of a picture should fit: a unit vector [D]."""
        with torch.no_grad():
            own = self.scorer.embed_images(to_tensor(image).to(self.bench.device.torch))[0]
        weights = [weight for weight, _ in self.terms]
        others = torch.stack([own, *(feature for _, feature in self.terms)])[1:]
        if self.options.compat == "zerocap":
            return mixed(torch.cat([own[None], others]), [1.0, *weights])
        return turned(own, others, weights)


def _own(options: Options, speaker: Speaker) -> Profile:
    """The profile with what the options say instead; the paper's numbers to repeat the paper."""
    own = speaker.profile.asked(options.preset)
    if options.compat == "zerocap":
        paper = Profile()
        own = replace(
            own, iterations=paper.iterations, rate=paper.rate, temperature=paper.temperature,
            prior=paper.prior, fluency=paper.fluency, weight=paper.weight,
        )  # fmt: skip
    given: dict[str, Any] = {
        "length": options.length, "shortest": options.shortest, "end_bonus": options.end_bonus,
        "candidates": options.candidates, "iterations": options.iterations, "rate": options.rate,
        "temperature": options.temperature, "prior": options.prior,
        "fluency": options.fluency_weight,
    }  # fmt: skip
    return replace(own, **{key: value for key, value in given.items() if value is not None})


def objective(options: Options, speaker: Speaker) -> Objective:
    """What the context is moved for."""
    own = _own(options, speaker)
    words = WordClip(own.candidates, own.temperature, own.prior)
    return options.clip_weight * words + own.fluency * Fluency()


def manner(options: Options, speaker: Speaker) -> Manner:
    """How captions are written: the options, the language model's profile where they are silent.

    Raises:
        UsageError: an end of sentence that is not one token of the language model.
    """
    language, profile = speaker.language, _own(options, speaker)
    reference = options.compat == "zerocap"
    end = language.encode(profile.end)
    if len(end) != 1:
        raise UsageError(
            f"{profile.end!r} ends sentences and must be one token of {language.name!r}, "
            f"not {len(end)}.",
            hint=f"Change 'end' in {speaker.folder / 'captions.toml'}.",
        )
    barred = tuple(token for token in language.words.unwordly if token != end[0])
    chosen = Manner(
        prompt=profile.prompts[options.preset] if options.prompt is None else options.prompt,
        end=end[0],
        forbidden=barred if options.forbid else (),
        mode=options.mode,
        reference=reference,
        beams=options.beams,
        length=profile.length,
        shortest=profile.shortest,
        end_bonus=profile.end_bonus,
        end_factor=REFERENCE_END[options.preset],
        repetition=options.repetition,
        iterations=profile.iterations,
        rate=profile.rate,
        power=options.power,
        fusion=options.fusion,
        candidates=profile.candidates,
        merit=profile.weight["optimise"] if options.weight is None else options.weight,
        weight=profile.weight["fuse"] if options.weight is None else options.weight,
        fluency=options.ranking,
        unfinished=UNFINISHED,
    )
    if reference and (options.plus or options.minus):
        return replace(chosen, **REFERENCE_SUM)
    return chosen


def terms(options: Options, bench: Workbench, scorer: ClipScorer) -> Iterator[tuple[float, Tensor]]:
    """The weights and features [D] of what is added and taken away.

    Raises:
        UsageError: a name of a picture that is not there.
        ImageError: a file that does not give a picture.
    """
    for sign, several in ((1.0, options.plus), (-1.0, options.minus)):
        for given in several:
            weighted = _WEIGHTED.fullmatch(given)
            weight, what = (float(weighted[1]), weighted[2]) if weighted else (1.0, given)
            if what in bench.given or Path(what).expanduser().is_file():
                image = to_tensor(bench.open_image(what)).to(bench.device.torch)
                with torch.no_grad():
                    yield sign * weight, scorer.embed_images(image)[0]
            elif Path(what).suffix.lower() in PICTURES:
                raise UsageError(f"There is no picture {what!r} to add or take away.")
            else:
                yield sign * weight, scorer.embed_texts([what])[0]
