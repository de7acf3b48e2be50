"""Judge the diffusion model of drawn portraits: scripts/judge diffusion [PART...] [--count 1000]

PART is one or more of: vae (what redrawn portraits keep), text (how captions are obeyed), guide
(what guidance mends), ways (gain, cost and gradient of every way to steer).  Every figure stands
between its floor and its ceiling.  --sheet FILE writes captions' pictures as one sheet.  Figures of
vae go to the autoencoder's card, the others to the denoiser's, unless --dry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from guided.core.device import Device
from guided.generators.diffusion import Diffusion
from guided.generators.diffusion.portrait import CFG
from guided.generators.diffusion.portrait_folder import load_own, parts_of
from guided.generators.diffusion.vae import find_autoencoder, load_autoencoder
from guided.judging.card import write_metrics
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.latent import LatentClip, load_latent_scorer
from guided.tasks._generate_options import DiffusionKeys
from guided.worlds.portraits.judging.diffusion_figures import (
    EXACT,
    GuidanceVariant,
    Sampler,
    guide,
    mended,
    redrawn_figures,
    variants,
    variants_table,
)
from guided.worlds.portraits.judging.reader import Reader
from guided.worlds.portraits.judging.text_image_figures import (
    CAPTIONS,
    MetricRow,
    text_image_figures,
)
from guided.worlds.portraits.judging.text_image_sheet import (
    caption_sheet,
    labeled,
    lines,
)
from guided.worlds.portraits.splits import Split
from guided.worlds.portraits.tools import tool_parser
from guided.zoo import find
from guided.zoo.cards import CARD_FILE
from guided.zoo.kits import load_kit

#: What `guided generate` does when nobody says otherwise is what is judged.
VERB = DiffusionKeys()
PARTS = ("vae", "text", "guide", "ways")
SPLITS: dict[str, Split] = {"new": "val", "pairs": "test"}


class DiffusionJudging:
    """One run: what is judged, by whom, and what was found."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.kit = load_kit("portraits")
        self.device = Device.pick(given.device)
        self.reader = Reader.load(self.kit["reader"], self.device)
        self.judge = load_clip(self.kit["judge"], self.device, role="judge")

    @property
    def splits(self) -> dict[str, Split]:
        """The splits asked for, by label."""
        return {k: v for k, v in SPLITS.items() if self.given.split in (k, "both")}

    def keep(self, card: Path, label: str, rows: dict[str, MetricRow]) -> None:
        """Print figures, and put them on a card."""
        print(lines(label, rows), flush=True)
        if not self.given.dry:
            write_metrics(card, labeled(label, rows))

    def vae(self) -> None:
        """What the autoencoder, its tiny decoder and the preview keep."""
        folder, _ = find_autoencoder(self.given.vae or self.kit["vae"])
        own = load_autoencoder(folder, self.device)

        def tiny(images: Tensor) -> Tensor:
            redrawn: Tensor = (own.tiny.decode(own.encode(images)).sample / 2 + 0.5).clamp(0, 1)
            return redrawn

        ways_to_see = {"": lambda images: own.decode(own.encode(images)), "_tiny": tiny}
        for label, split in self.splits.items():
            for kind, redraw in ways_to_see.items():
                found = redrawn_figures(redraw, self.reader, split, self.given.count)
                self.keep(folder / CARD_FILE, f"{label}{kind}", found)

    def denoiser(self) -> tuple[Diffusion, ClipScorer, Path]:
        """The model, the CLIP it reads with, and its folder."""
        place = Path(self.given.denoiser or ".")
        if not (place / "parts.json").is_file():
            place = find(self.given.denoiser or self.kit["denoiser"], "denoiser").folder
        parts = parts_of(place)
        if parts is None:
            sys.exit(f"error: {place} is not the denoiser of drawn portraits: no parts.json")
        scorer = load_clip(parts.scorer, self.device)
        return load_own(place, scorer, self.device), scorer, place

    def student(self, scorer: ClipScorer) -> LatentClip | None:
        """The latent scorer, where it is here."""
        from guided.errors import MissingWeights

        try:
            return load_latent_scorer(
                self.given.latent or self.kit["latent_scorer"], scorer.fingerprint, self.device
            )
        except MissingWeights as error:
            print(f"without the latent scorer: {error}", file=sys.stderr)
            return None

    def asked(self, wanted: list[str]) -> None:
        """The parts that need the denoiser."""
        given = self.given
        model, scorer, place = self.denoiser()
        plain = Sampler(model, given.steps, given.cfg)
        student = self.student(scorer)
        variant = GuidanceVariant(given.jacobian, given.decode)
        guided = replace(
            plain, guidance=guide(variant, scorer, student, scale=given.scale, every=given.every)
        )
        if given.sheet:
            image, captions = caption_sheet(plain)
            image.save(given.sheet)
            for number, text in enumerate(captions):
                print(f"row {number + 1} (world seed {CAPTIONS + number}): {text}")
        card = place / CARD_FILE
        for label, split in self.splits.items():
            if "text" in wanted:
                found = text_image_figures(plain, self.reader, self.judge, split, given.count)
                self.keep(card, label, found)
            if "guide" in wanted:
                self.keep(card, label, mended(plain, guided, self.reader, split, given.count))
        if "ways" in wanted:
            self.variants(plain, scorer, student)

    def variants(self, plain: Sampler, scorer: ClipScorer, student: LatentClip | None) -> None:
        """A table of every way to steer."""
        given = self.given
        guides = {
            variant: guide(variant, scorer, student, scale=given.scale, every=given.every)
            for variant in variants(latent=student is not None)
            if variant == EXACT or not given.variant or str(variant) in given.variant
        }
        base, table = variants_table(plain, guides, self.reader, self.judge, "val", given.few)
        print("| variant | gain | of exact | accuracy | cost | cosine to exact |")
        print("|---|---|---|---|---|---|")
        print(f"| unguided | 0 | | {base.accuracy:.3f} | 1 | |")
        best = table[EXACT].gain
        for variant, row in table.items():
            share = f"{row.gain / best:.0%}" if best > 0 else "-"
            print(f"| {variant} | {row.gain:.4f} ± {1.96 * row.error:.4f} | {share} | "
                  f"{row.accuracy:.3f} | {row.cost:.2f} | {row.cosine:.3f} |")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; keep figures on the cards unless --dry."""
    parser = tool_parser("judge diffusion", __doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--count", type=int, default=1000, help="portraits and captions")
    parser.add_argument("--few", type=int, default=64, help="captions of the table of ways")
    parser.add_argument("--variant", action="append", help="a row of the table, as it names it")
    parser.add_argument("--split", choices=(*SPLITS, "both"), default="both")
    parser.add_argument("--vae", default="", help="an autoencoder's name or folder")
    parser.add_argument("--denoiser", default="", help="a denoiser's name or folder")
    parser.add_argument("--latent", default="", help="a latent scorer's name or folder")
    parser.add_argument("--steps", type=int, default=VERB.steps)
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--scale", type=float, default=VERB.guide_scale, help="how far to steer")
    parser.add_argument("--every", type=int, default=VERB.every, help="guide every so many steps")
    parser.add_argument("--jacobian", choices=("stop", "exact"), default=VERB.jacobian)
    parser.add_argument("--decode", choices=("vae", "tiny", "preview", "latent"),
                        default=VERB.decode or "latent")  # fmt: skip
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sheet", type=Path, help="write pictures of 8 captions")
    parser.add_argument("--dry", action="store_true", help="leave the cards alone")
    given = parser.parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    names = [str(variant) for variant in variants()]
    strange = [variant for variant in given.variant or [] if variant not in names]
    if strange:
        parser.error(f"there is no variant {strange[0]!r}; there are: {'; '.join(names)}")
    wanted = given.parts or list(PARTS)
    run = DiffusionJudging(given)
    if "vae" in wanted:
        run.vae()
    if given.sheet or set(wanted) - {"vae"}:
        run.asked(wanted)
    return 0
