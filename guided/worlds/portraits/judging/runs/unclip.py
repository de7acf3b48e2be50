"""Judge the prior and what is made with it: scripts/judge unclip [PART...] [--count 1000]

PART is one or more of: prior (what it imagines, in the guiding CLIP's space; no denoiser is
needed), text (`generate --method unclip` beside the same denoiser told the words, and both by
guidance scale), vary (what variations keep).  Text diffs are edits: scripts/judge edits judges them
in its row turn.  Every figure stands between its floor and its ceiling; the lines that must hold
are judged at the end of a part.

--few counts captions of each scale and portraits of vary.  What is made is kept in --out, so a run
that stopped goes on.  --sheet FILE writes a page of pictures.
Figures go to the prior's card unless --dry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from guided.core.images import to_images, to_tensor
from guided.errors import CannotDo, MissingWeights
from guided.generators.diffusion.portrait import CFG
from guided.judging.card import write_metrics
from guided.judging.result_cache import TimeBudgetSpent
from guided.tasks import vary
from guided.tasks._generate_options import DiffusionKeys
from guided.tasks._generate_unclip_options import UnclipKeys
from guided.worlds.portraits import draw, sample
from guided.worlds.portraits.drawing.sheet import sheet
from guided.worlds.portraits.judging.diffusion_figures import REDRAWN
from guided.worlds.portraits.judging.edit_cases import EDITS, cases
from guided.worlds.portraits.judging.prior_runs import PriorContext, prior_folder
from guided.worlds.portraits.judging.text_image_figures import SAMPLES, MetricRow, PromptSet
from guided.worlds.portraits.judging.text_image_sheet import labeled, lines
from guided.worlds.portraits.judging.unclip_figures import (
    Benchmark,
    prior_figures,
    scales_table,
    vary_figures,
    verdict,
)
from guided.worlds.portraits.judging.unclip_runs import ROLES, UnclipContext
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.cards import CARD_FILE

PARTS = ("prior", "text", "vary")
SPLITS: dict[str, Split] = {"new": "val", "pairs": "test"}
VERB, PRIOR, VARY = DiffusionKeys(), UnclipKeys(), vary.Options()
#: The methods of ``guided generate`` that are compared.
WAYS = ("unclip", "diffusion")
#: What variations must keep.
KEPT = 0.85


class UnclipJudging:
    """One run: what is judged and what was found."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given

    @cached_property
    def context(self) -> UnclipContext:
        """Both stages, and who judges what they draw."""
        return UnclipContext(self.given)

    @cached_property
    def priors(self) -> PriorContext:
        """The prior alone."""
        return PriorContext(self.given)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits asked for, by label."""
        return {k: v for k, v in SPLITS.items() if self.given.split in (k, "both")}

    def keep(self, label: str, rows: dict[str, MetricRow]) -> None:
        """Print figures, and put them on the prior's card."""
        print(lines(label, rows), flush=True)
        if not self.given.dry:
            write_metrics(prior_folder(self.given) / CARD_FILE, labeled(label, rows))

    def prior(self) -> None:
        """What the prior imagines of captions."""
        context, count = self.priors, self.given.count
        for label, split in self.splits.items():
            found = prior_figures(context.sample_prior, context.scorer, split, count, context.size)
            self.keep(f"{label}_prior", found)

    def text(self) -> None:
        """Both ways to make pictures of captions."""
        context, count = self.context, self.given.count
        for label, split in self.splits.items():
            asked = PromptSet.of(split, count, size=context.size)
            told = context.hard_negatives(asked)
            benchmark = Benchmark.of(context.reader, context.judge, asked, told, split)
            two, one = (benchmark.look(context.maker(way)) for way in WAYS)
            self.keep(f"{label}_unclip", two.rows)
            self.keep(f"{label}_words", one.rows)
            found = verdict(two, one)
            said = f"by {found.accuracy}; diversity by {found.diversity}"
            line(label, "accuracy within 5 points of the words'", found.accurate, said)
            few = min(count, self.given.few)
            some = Benchmark.of(context.reader, context.judge, asked.first(few), told[:few], split)
            self.by_scale(label, some)

    def by_scale(self, label: str, benchmark: Benchmark) -> None:
        """Both ways by guidance scale: how varied they are at the same accuracy."""
        scales = sorted({*self.given.scales, self.given.cfg})
        look, maker = benchmark.look, self.context.maker
        two_stages, one_stage = WAYS
        pairs = {cfg: (look(maker(two_stages, cfg)), look(maker(one_stage, cfg))) for cfg in scales}
        print(scales_table(pairs))
        known = [(one.rows["accuracy"].value, one.rows["diversity"].value)
                 for _, one in pairs.values()]  # fmt: skip
        two, one = pairs[self.given.cfg]
        found, own = verdict(two, one, known), two.rows["diversity"].value
        rival = "an accuracy out of reach" if found.rival is None else f"{found.rival:.3f}"
        holds = found.more_varied(own)
        line(label, "diversity above the words' at the same accuracy", holds,
             f"{own:.3f} against {rival}, {len(benchmark.asked.said)} captions")  # fmt: skip

    def vary(self) -> None:
        """What variations keep, by how much noise is drawn anew."""
        context, names = self.context, [f"eta_{eta:g}" for eta in self.given.etas]
        ways = dict(zip(names, map(context.redraw, self.given.etas), strict=True))
        ways |= {"reconstructed": context.redraw(0.0, 1.0), "autoencoder": context.by_autoencoder}
        for label, split in self.splits.items():
            found = vary_figures(ways, context.reader, split, self.given.few, context.size)
            self.keep(f"{label}_vary", found)
            least = min(found[f"{name}_kept"].value for name in names)
            line(label, "variations keep 85 %", least >= KEPT, f"at least {least:.3f}")

    def page(self) -> Any:
        """A sheet: words by both ways, variations by eta, and pictures turned towards words."""
        asked, size = PromptSet.of("val", 4, size=self.context.size), self.context.size
        texts = [said.text for said in asked.said for _ in range(3)]
        seeds = range(SAMPLES, SAMPLES + len(texts))
        both = [self.context.maker(way)(texts, seeds).view(4, 3, 3, size, size)
                for way in ("diffusion", "unclip")]  # fmt: skip
        rows = [asked.images[:, None], *both]
        cells = [("portrait", *["words"] * 3, *["unclip"] * 3)] * 4
        people = to_tensor([draw(sample(REDRAWN + i, "val"), size) for i in range(4)])
        etas = (0.0, 0.25, 0.5, 0.75, 1.0)
        ways = [self.context.redraw(0.0, 1.0), *map(self.context.redraw, etas)]
        rows = [torch.cat(rows, 1), torch.stack([people, *(way(people) for way in ways)], 1)]
        cells += [("portrait", "reconstructed", *(f"eta {eta:g}" for eta in etas))] * 4
        amounts = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
        for edit in (EDITS[0], EDITS[4], EDITS[7], EDITS[8]):
            image = cases(edit, 1)[0].picture(size)[None]
            shown = self.context.turned(self.context.inverted(image), edit.text, amounts)
            rows.append(torch.cat([image, *(each.cpu() for each in shown)])[None])
            cells.append((edit.name, *(f"{amount:g}" for amount in amounts)))
        pictures = to_images(torch.cat(rows).flatten(0, 1).clamp(0, 1))
        for number, said in enumerate(asked.said):
            print(f"row {number + 1}: {said.text}")
        return sheet(pictures, 7, [word for row in cells for word in row])


def line(label: str, what: str, holds: bool, why: str) -> None:  # noqa: FBT001
    """Print whether something that must or should hold does."""
    print(f"{'holds' if holds else 'DOES NOT HOLD'} ({label}): {what}: {why}", flush=True)


def numbers(text: str) -> list[float]:
    """Numbers parted by commas."""
    return [float(word) for word in text.split(",")]


def parser_of() -> argparse.ArgumentParser:
    """The command line."""
    parser = tool_parser("judge unclip", __doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--count", type=int, default=1000, help="captions")
    parser.add_argument("--few", type=int, default=200, help="of each scale; portraits of vary")
    parser.add_argument("--split", choices=(*SPLITS, "both"), default="both")
    parser.add_argument("--scales", type=numbers, default=[1.5, 3.0, 5.0, 8.0])
    parser.add_argument("--etas", type=numbers, default=[0.0, 0.25, 0.5, 0.75, 1.0])
    for name, value in (("steps", VERB.steps), ("prior-steps", PRIOR.prior_steps),
                        ("tries", PRIOR.tries), ("vary-steps", VARY.steps)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, share in (("cfg", CFG), ("prior-cfg", PRIOR.prior_cfg), ("vary-cfg", VARY.cfg)):
        parser.add_argument(f"--{name}", type=float, default=share)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long; 0: never")
    parser.add_argument("--out", type=Path, default=Path("outputs") / "judged-unclip")
    parser.add_argument("--sheet", type=Path, help="write a page of pictures")
    parser.add_argument("--device", default=None)
    parser.add_argument("--dry", action="store_true", help="leave the card alone")
    for role in ROLES:
        parser.add_argument(f"--{role}", default="", help="a model's name, file or folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; keep figures on the prior's card unless --dry."""
    parser = parser_of()
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    try:
        run = UnclipJudging(given)
        if given.sheet:
            run.page().save(given.sheet)
        for part in given.parts or PARTS:
            getattr(run, part)()
    except TimeBudgetSpent as stop:
        print(stop)
        return 1
    except (MissingWeights, CannotDo) as error:
        print(f"This cannot be judged: {error}", file=sys.stderr)
        return 1
    return 0
