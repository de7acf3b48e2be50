"""Judge captions of drawn portraits by truth: scripts/judge captions [--count 500] [--minutes 8]

One table for each split (val: new portraits, test: portraits with held-out pairs): ZeroCap, the
gradient-free mode, the language model alone, best of N of its samples at the CPU seconds of
ZeroCap, the nearest true caption of another portrait, and as ceiling a true caption of the
portrait itself.  Precision, recall and F1 are of claims read back by grammar and compared with the
truth; "clip" is the judge CLIP's cosine, "nats" the loss a word under a word model of text of its
own, with its ratio to true captions: nothing of the kind was optimised.  "least" is the share of
captions that mention the family mentioned least.

Then signs: the word on the shirt, seen and unseen in training; and sums: w * (picture with X) -
w * (the same without) + (another person) should be told to have X; its floor is w = 0.  In [] are
95 % intervals.

All captions are kept in --out as they are written, so a run that stopped (--minutes) goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guided.captioning.base import Captioner
from guided.captioning.fuse import Fuse
from guided.core.files import write_text
from guided.core.images import to_tensor
from guided.core.journal import Journal
from guided.core.seeds import Seeds
from guided.guidance.zerocap_target import turned
from guided.judging.result_cache import TimeBudgetSpent
from guided.judging.retrieval import rate
from guided.language.sampling import sample_tokens
from guided.scorers.clip import load_clip
from guided.tasks._caption_kit import CaptionKit
from guided.tasks._caption_options import Options
from guided.tasks.base import TaskContext
from guided.worlds.portraits import Portrait, draw, sample
from guided.worlds.portraits.grammar.captions import caption
from guided.worlds.portraits.judging.caption_figures import caption_figures
from guided.worlds.portraits.judging.caption_fluency import WordModel, judge_text, mean_loss
from guided.worlds.portraits.judging.caption_puzzles import sign_named, sign_people, sum_puzzles
from guided.worlds.portraits.tools import tool_parser
from guided.zoo.kits import load_kit

FIRST_SEED, SIGN_SEED, SUM_SEED = 3_000_000, 3_200_000, 3_400_000
SUM_WEIGHTS = (0.5, 1.0)
MEMORY = 5_000
WORD_MODEL_TEXTS = 40_000
METHODS = ("zerocap", "fuse", "unguided", "best-of-n", "retrieval")
PARTS = ("table", "signs", "sums")

Method = Callable[[Tensor], list[str]]


class CaptionContext:
    """Captions of numbered cases, written once and kept."""

    def __init__(self, kit: CaptionKit, roles: dict[str, str], given: argparse.Namespace) -> None:
        self.kit, self.batch = kit, given.batch
        self.end = time.monotonic() + 60 * given.minutes if given.minutes else float("inf")
        settings = {
            "config": asdict(kit.config), "captioner": kit.captioner.model_dump(),
            "objective": kit.objective.names(), "options": repr(kit.objective),
            "batch": given.batch,
            "scorer": kit.scorer.fingerprint, "language": kit.speaker.language.fingerprint,
        }  # fmt: skip
        self.journal = Journal(given.out, settings, lines="captions.jsonl")
        self.roles = roles

    def texts(self, name: str, count: int, targets: Callable[[int], Tensor], way: Method) -> Any:
        """The captions of ``count`` cases and their mean CPU seconds.

        Raises:
            OutOfTime: some captions are still to be written.
        """
        for start in range(0, count, self.batch):
            places = range(start, min(start + self.batch, count))
            if all(f"{name}/{place}" in self.journal.done for place in places):
                continue
            if time.monotonic() > self.end:
                raise TimeBudgetSpent(f"{name}: {start} of {count} are done; run again to go on")
            several = torch.stack([targets(place) for place in places])
            began = time.process_time()
            said = way(several)
            spent = (time.process_time() - began) / len(places)
            self.journal.add(
                [{"file": f"{name}/{place}", "text": text, "cpu": spent}
                 for place, text in zip(places, said, strict=True)]
            )  # fmt: skip
        rows = [self.journal.done[f"{name}/{place}"] for place in range(count)]
        return [row["text"] for row in rows], sum(row["cpu"] for row in rows) / count


class Judges:
    """What captions are judged by: nothing that writes them sees it."""

    def __init__(self, judge: str) -> None:
        self._judge_name = judge

    @cached_property
    def judge(self) -> Any:
        """The judge CLIP."""
        return load_clip(self._judge_name, role="judge")

    @cached_property
    def words(self) -> WordModel:
        """A language model of other text."""
        return WordModel(judge_text(WORD_MODEL_TEXTS))

    @torch.no_grad()
    def seen(self, people: Sequence[Portrait]) -> Tensor:
        """The judge's embeddings [N, D] of the pictures."""
        return torch.cat([self.judge.embed_images(to_tensor(draw(p, 128))) for p in people])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = tool_parser("judge captions", __doc__)
    parser.add_argument("--count", type=int, default=500, help="portraits of each split")
    parser.add_argument("--puzzles", type=int, default=200, help="signs of each kind, and sums")
    parser.add_argument("--splits", nargs="+", choices=("val", "test"), default=["val", "test"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long; 0: never")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("outputs") / "judged-captions")
    for role in ("scorer", "language", "judge"):
        parser.add_argument(f"--{role}", default="")
    given = parser.parse_args(arguments)
    roles = load_kit("portraits")
    roles |= {r: v for r in ("scorer", "language", "judge") if (v := getattr(given, r))}
    context, judges = CaptionContext(opened(roles, "caption"), roles, given), Judges(roles["judge"])
    found: dict[str, Any] = {}
    try:
        if "table" in given.parts:
            for split in given.splits:
                found[split] = table(context, judges, split, given.count, given.methods)
        if "signs" in given.parts:
            found["signs"] = signs(context, given.puzzles)
        if "sums" in given.parts:
            found["sums"] = sums(context, given.puzzles)
    except TimeBudgetSpent as stop:
        print(stop)
        return 1
    write_text(given.out / "figures.json", json.dumps(found, indent=2) + "\n")
    return 0


def opened(roles: dict[str, str], preset: Any) -> CaptionKit:
    """The kit's models, asked as ``guided caption`` asks them."""
    return CaptionKit.open(Options(images=[Path("x")], preset=preset), TaskContext(kit=roles))


# --------------------------------------------------------------------------- the table


def table(
    context: CaptionContext, judges: Judges, split: Any, count: int, methods: Sequence[str]
) -> dict[str, Any]:
    """Every method's captions of a split, judged."""
    people = [sample(FIRST_SEED + place, split) for place in range(count)]

    def targets(place: int) -> Tensor:
        return context.kit.target(draw(people[place], 128))

    took: dict[str, float] = {}
    ways, said = known_ways(context.kit, took), {}
    for name in methods:
        said[name], took[name] = context.texts(f"{split}/{name}", count, targets, ways[name])
    said["truth"] = [caption(p, np.random.default_rng([5, i])).text for i, p in enumerate(people)]
    seen, floor = judges.seen(people), mean_loss(judges.words, said["truth"])
    print(f"\n{split}: {count} portraits\n{'':10s} precision            recall               f1"
          f"                   mentioned least   clip    nats ratio  CPU s")  # fmt: skip
    rows = {}
    for name, texts in said.items():
        figures = caption_figures(texts, people)
        nats = mean_loss(judges.words, texts)
        clip = float((judges.judge.embed_texts(texts) * seen).sum(1).mean())
        rows[name] = {
            **asdict(figures), "clip": clip, "nats": nats, "ratio": nats / floor,
            "cpu": took.get(name, 0.0),
        }  # fmt: skip
        print(f"{name:10s} {_shown(rows[name])}", flush=True)
    return rows


def _shown(row: dict[str, Any]) -> str:
    spans = " ".join(
        f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"
        for name, (low, high) in row["intervals"].items()
        if name != "mentioned"
    )
    least = min(row["families"], key=row["families"].get)
    return (
        f"{spans} {row['mentioned']:9.2f} {row['families'][least]:.3f} {row['clip']:6.3f} "
        f"{row['nats']:7.3f} {row['ratio']:5.3f} {row['cpu']:6.2f}  ({least})"
    )


def known_ways(kit: CaptionKit, took: dict[str, float]) -> dict[str, Method]:
    """Every way to caption; ``took`` has the CPU seconds a picture of the ways before."""
    return {
        "zerocap": written(kit, kit.captioner),
        "fuse": written(kit, Fuse().of_profile(kit.speaker.profile.asked(kit.options.preset))),
        "unguided": lambda targets: drawn(kit, len(targets), int(1e6 * targets.abs().sum())),
        "best-of-n": lambda targets: list(best_of(kit, targets, took["zerocap"])),
        "retrieval": Nearest(kit),
    }


def written(kit: CaptionKit, captioner: Captioner) -> Method:
    """The best caption of each picture as ``guided caption`` writes it."""

    def work(targets: Tensor) -> list[str]:
        steps = kit.decoder.write(targets, kit.config, captioner, kit.objective)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return [sentences[0].text for sentences in end.value]

    return work


def drawn(kit: CaptionKit, count: int, seed: int) -> list[str]:
    """Sentences of the language model after the same prompt, without guidance."""
    language, config = kit.speaker.language, kit.config
    prompt = [language.begin, *language.encode(config.prompt)]
    rows = sample_tokens(
        language, Seeds.of(seed, count), prompt=prompt, end=config.end, length=config.length
    )
    return [language.decode([*prompt[1:], *row]) for row in rows]


def best_of(kit: CaptionKit, targets: Tensor, seconds: float) -> Iterator[str]:
    """For each picture as many samples as its seconds allow, and of these the one CLIP likes."""
    for target in targets:
        start, seed = time.process_time(), int(1e6 * target.abs().sum())
        best: tuple[float, str] = (-2.0, "")
        while time.process_time() - start < seconds or not best[1]:
            texts = drawn(kit, 32, seed)
            cosines = kit.scorer.embed_texts(texts) @ target
            top = int(cosines.argmax())
            best = max(best, (float(cosines[top]), texts[top]))
            seed += 32
        yield best[1]


class Nearest:
    """The captions of training portraits whose text is nearest."""

    def __init__(self, kit: CaptionKit) -> None:
        self._kit = kit

    @cached_property
    def _memory(self) -> tuple[list[str], Tensor]:
        rng = np.random.default_rng(9)
        texts = [caption(sample(seed), rng).text for seed in range(MEMORY)]
        return texts, self._kit.scorer.embed_texts(texts)

    def __call__(self, targets: Tensor) -> list[str]:
        """A text for each target."""
        texts, features = self._memory
        return [texts[place] for place in (targets @ features.T).argmax(dim=1).tolist()]


# --------------------------------------------------------------------------- puzzles


def signs(context: CaptionContext, count: int) -> dict[str, Any]:
    """The share of words on shirts that the preset for words names."""
    kit, found = opened(context.roles, "ocr"), {}
    print("\nsigns: the word on the shirt, and no other")
    for kind, unseen in (("seen", False), ("unseen", True)):
        people = sign_people(count, SIGN_SEED, unseen=unseen)

        def targets(place: int, people: list[Portrait] = people) -> Tensor:
            return kit.target(draw(people[place], 128))

        texts, spent = context.texts(f"signs/{kind}", count, targets, written(kit, kit.captioner))
        hits = [sign_named(text, person) for text, person in zip(texts, people, strict=True)]
        found[kind] = asdict(shown := rate(torch.tensor(hits, dtype=torch.float)))
        print(f"{kind:7s} {shown} of {count}; a guess {1 / 24:.3f}; {spent:.2f} CPU s", flush=True)
    return found


def sums(context: CaptionContext, count: int) -> dict[str, Any]:
    """The share of sums of pictures whose caption names what was added, by its weight."""
    kit, puzzles = context.kit, sum_puzzles(count, SUM_SEED)

    def embedded(person: Portrait) -> Tensor:
        return kit.target(draw(person, 128))

    def together(place: int, weight: float) -> Tensor:
        puzzle = puzzles[place]
        having, lacking, own = (embedded(p) for p in (puzzle.having, puzzle.lacking, puzzle.other))
        return turned(own, torch.stack([having, lacking]), [weight, -weight])

    found = {}
    print("\nsums: w * (picture with X) - w * (the same without) + (another) names X")
    others: list[tuple[str, Callable[[int], Tensor]]] = [
        (f"w = {weight}", partial(together, weight=weight)) for weight in SUM_WEIGHTS
    ]
    others.append(("w = 0", lambda place: embedded(puzzles[place].other)))
    for name, targets in others:
        texts, spent = context.texts(f"sums/{name}", count, targets, written(kit, kit.captioner))
        hits = [p.named_by(text) for text, p in zip(texts, puzzles, strict=True)]
        found[name] = asdict(shown := rate(torch.tensor(hits, dtype=torch.float)))
        print(f"{name:11s} {shown} of {count}; {spent:.2f} CPU s", flush=True)
    return found
