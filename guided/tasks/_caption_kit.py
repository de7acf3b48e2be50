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

from guided.core.images import to_tensor
from guided.core.objective import Objective
from guided.errors import UsageError
from guided.guidance.zerocap_captioner import Manner, Narrator
from guided.guidance.zerocap_target import mixed
from guided.language.load import Speaker, load_language
from guided.losses.fluency import Fluency
from guided.losses.word_clip import WordClip
from guided.scorers.clip import ClipScorer
from guided.scorers.prefix_text import PrefixTextScorer
from guided.tasks._caption_options import PICTURES, Options
from guided.tasks._scoring import pick_scorer
from guided.tasks.base import Workbench

_WEIGHTED = re.compile(r"([0-9]*\.?[0-9]+)\*(.+)", re.DOTALL)

#: The factor of the end token in the paper's code by preset, and its settings for sums.
REFERENCE_END = {"caption": 1.01, "world": 1.04, "ocr": 1.04}
REFERENCE_SUM: dict[str, Any] = {"end_factor": 1.06, "fusion": 0.95, "power": 0.95}


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
        candidates = options.candidates or speaker.profile.candidates
        return cls(
            options,
            bench,
            scorer,
            speaker,
            Narrator(speaker.language, words, speaker.language.words.piece),
            manner(options, speaker),
            options.clip_weight * WordClip(candidates, options.temperature)
            + options.fluency_weight * Fluency(),
            tuple(terms(options, bench, scorer)),
        )

    def target(self, image: Image.Image) -> Tensor:
        """What the captions of a picture should fit: a unit vector [D]."""
        with torch.no_grad():
            own = self.scorer.embed_images(to_tensor(image).to(self.bench.device.torch))[0]
        features = torch.stack([own, *(feature for _, feature in self.terms)])
        return mixed(features, [1.0, *(weight for weight, _ in self.terms)])


def manner(options: Options, speaker: Speaker) -> Manner:
    """How captions are written: the options, the language model's profile where they are silent.

    Raises:
        UsageError: an end of sentence that is not one token of the language model.
    """
    language, profile = speaker.language, speaker.profile
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
        length=options.length or profile.length,
        shortest=profile.shortest if options.shortest is None else options.shortest,
        end_bonus=profile.end_bonus if options.end_bonus is None else options.end_bonus,
        end_factor=REFERENCE_END[options.preset],
        repetition=options.repetition,
        iterations=options.iterations,
        rate=options.rate,
        power=options.power,
        fusion=options.fusion,
        candidates=options.candidates or profile.candidates,
        weight=options.weight,
        fluency=options.ranking,
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
