"""``guided generate --method gan``: one pass from words to a picture, best of several, or a search.

Picture i of every prompt has the same z, so the same person is seen with each prompt.
"""

from __future__ import annotations

import io
from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from guided.core.files import safe_name
from guided.core.loss_tables import LossTable, check_losses, loss_roles, objective_of
from guided.core.run import OutputImage, Result, Step, renumber
from guided.errors import UsageError
from guided.tasks._gan_vocabulary import how_sure, pieces_of, unknown_words, warning
from guided.tasks._generate_gan_options import GanKeys
from guided.tasks._generate_options import Options
from guided.tasks._generation import rows_of, sheet_of
from guided.tasks._ledger import Ledger
from guided.tasks.base import Steps, TaskContext

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from guided.core.objective import Objective
    from guided.core.protocols import Latent
    from guided.generators.text_gan import TextGan
    from guided.scorers.clip import ClipScorer

#: The keys that are this method's.
OWN = frozenset({*GanKeys.model_fields, "loss"})
#: Pictures that an animation leads through at most.
STATIONS = 16


def needs(options: Options) -> tuple[str, ...]:
    """The roles this method loads a model for."""
    return ("text_gan", "scorer", *(loss_roles(losses_of(options)) if options.search else ()))


def idle(options: Options) -> tuple[tuple[str, ...], str]:
    """Keys that do nothing as the others stand, and what is missing."""
    if options.search:
        return (), ""
    return ("search_leaves", "search_rate", "identity", "perceptual"), "nothing is searched for"


def losses_of(options: Options) -> list[LossTable]:
    """The [[loss]] tables that a search follows: those given, else its usual ones."""
    if options.loss:
        return options.loss
    near = {"kind": "latent_l2", "form": "mean", "weight": 0.05}
    return [LossTable(kind="clip"), LossTable.model_validate(near)]


def run(options: Options, ctx: TaskContext) -> Steps:
    """Make the pictures in batches; a search yields its Steps, whose drafts have the pictures.

    Raises:
        UsageError: a size that is not the GAN's, or losses that a search cannot follow.
        CannotDo: a CLIP that is not the one the GAN was trained with.
        MissingWeights: the GAN is not on this computer.
    """
    if options.search:
        check_losses(losses_of(options))
    elif options.loss:
        raise UsageError("A [[loss]] is for a search.", hint="Give --search STEPS, or leave out.")
    job = open_job(options, ctx)
    rows = rows_of(options, ctx)
    yield from job.made(rows)
    return job.result()


def open_job(options: Options, ctx: TaskContext) -> GanJob:
    """The GAN of --gan or of the kit, with the CLIP it listens to."""
    from guided.generators.text_gan import read_config

    models = ctx.models.of(options)
    gan, scorer = models.text_gan(options.precision, truncation=options.truncation)
    config: dict[str, Any] = dict(read_config(models.need("text_gan")))
    if options.size and set(options.size) != {gan.size}:
        raise UsageError(
            f"The GAN {gan.name!r} makes pictures of {gan.size} x {gan.size} pixels, not of "
            f"{' x '.join(str(side) for side in options.size)}.",
            hint="Leave --size out, or train one: settings.size in "
            "recipes/train/text_gan_paired.toml and in the two that start from there.",
        )
    return GanJob(options, ctx, gan, scorer, frozenset(config.get("words", ())))


@dataclass
class GanJob:
    """One run: the GAN, the words it knows, and what has been made so far."""

    options: Options
    ctx: TaskContext
    gan: TextGan
    scorer: ClipScorer
    known: frozenset[str]
    results: list[dict[str, Any]] = field(default_factory=list)
    latents: list[Latent] = field(default_factory=list)
    seen: dict[str, list[Tensor]] = field(default_factory=dict)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.ctx, 0)
        prompts = dict.fromkeys(self.options.prompts)
        self.unknown = {prompt: unknown_words(prompt, self.known) for prompt in prompts}

    def made(self, rows: Sequence[tuple[str, int]]) -> Stream[Step[Any], None, None]:
        """All rows in batches; those that an earlier run finished are taken from there.

        An animation leads through latents, which are not kept: its first batches are made again.
        """
        import torch

        self.ledger = Ledger.open(self.ctx, len(rows))
        for first in range(0, len(rows), self.options.batch):
            part = rows[first : first + self.options.batch]
            names = [str(first + i) for i in range(len(part))]
            again = bool(self.options.gif) and first < STATIONS
            entries = None if again else self.ledger.finished(names)
            if entries is None:
                yield from self.make(part, first, len(rows))
                continue
            self.results += entries
            for name, (prompt, _) in zip(names, part, strict=True):
                if self.unknown[prompt]:
                    seen = torch.tensor(self.ledger.further(name)["seen"])
                    self.seen.setdefault(prompt, []).append(seen.to(self.ctx.device.torch))

    def make(
        self, rows: Sequence[tuple[str, int]], done: int, total: int
    ) -> Stream[Step[Any], None, None]:
        """A batch of pictures."""
        import torch

        from guided.core.images import to_images
        from guided.core.seeds import Seeds
        from guided.generators.text_gan import best_of

        prompts, seeds = [p for p, _ in rows], Seeds(tuple(s for _, s in rows))
        pick = best_of(self.gan, seeds, prompts, self.options.best)
        latent = pick.latent
        if self.options.search:
            latent = yield from self._searched(latent, prompts, done, total)
        with torch.no_grad():
            images = self.gan.render(latent)
            seen = self.scorer.embed_images(images)
            own = self.gan.condition(latent, prompts)["text"]
        cosines = (seen * own).sum(1).tolist()
        entries: list[dict[str, Any]] = []
        further: list[dict[str, Any]] = []
        for place, (image, (prompt, seed)) in enumerate(zip(to_images(images), rows, strict=True)):
            used = pick.seeds[place]
            entries.append(self._entry(done + place, image, prompt, seed, used, cosines[place]))
            further.append({})
            if self.unknown[prompt]:
                self.seen.setdefault(prompt, []).append(seen[place])
                further[-1] = {"seen": seen[place].tolist()}
            if self.options.gif and done + place < STATIONS:
                one = {name: leaf[place : place + 1] for name, leaf in latent.items()}
                self.latents.append(one)
        names = [str(done + i) for i in range(len(rows))]
        self.results += self.ledger.add(names, entries, further=further)
        if not self.options.search:
            mean = sum(cosines) / len(cosines)
            yield Step(done + len(rows), total, "generate", {"cosine": mean}, images)

    @cached_property
    def _objective(self) -> tuple[Objective, dict[str, Any]]:
        """What a search follows, and the models that its losses need."""
        objective = objective_of(losses_of(self.options))
        models = self.ctx.models.of(self.options)
        models = models.choosing({**models.chosen, "scorer": self.scorer.name})
        return objective, models.for_losses(objective)

    def _searched(
        self, start: Latent, prompts: Sequence[str], done: int, total: int
    ) -> Stream[Step[Any], None, Latent]:
        from guided.guidance.gan_search import GanSearch

        options = self.options
        objective, models = self._objective
        search = GanSearch(
            generator=self.gan, scorer=self.scorer, objective=objective,
            leaves=options.search_leaves, steps=options.search, rate=options.search_rate,
            models=models,
        )  # fmt: skip
        batch, batches = done // options.batch, -(-total // options.batch)
        return (yield from renumber(search.run(start, prompts), batch, batches))

    def _entry(
        self, number: int, image: Image.Image, prompt: str, seed: int, used: int, cosine: float
    ) -> dict[str, Any]:
        name = f"{number:04d}-{safe_name(prompt)}-s{seed}.png"
        note: dict[str, Any] = {"prompt": prompt, "seed": seed, "method": "gan"}
        entry: dict[str, Any] = {"prompt": prompt, "seed": seed, "clip": round(cosine, 4)}
        if used != seed:
            entry["drawn_from"] = note["drawn_from"] = used
        return {**entry, "image": OutputImage(name, image, (), note)}

    def result(self) -> Result:
        """The answer, with a warning for each prompt that has unknown words."""
        answer: dict[str, Any] = {"results": self.results, **sheet_of(self.results, self.options)}
        files: dict[str, str | bytes] = {}
        if self.options.gif and len(self.latents) > 1:
            files["way.gif"] = self._animation()
            folder = self.ctx.folder
            answer["animation"] = str(folder / "way.gif") if folder is not None else "way.gif"
        warnings = self._warnings()
        if warnings:
            answer["warnings"] = warnings
        mean = sum(row["clip"] for row in self.results) / len(self.results)
        return Result(answer, files=files, scores={"clip": mean})

    def _animation(self) -> bytes:
        """A GIF through the pictures and back to the first: z on the sphere, text straight."""
        import torch

        from guided.core.images import to_images
        from guided.generators.text_gan import between

        stations, frames = self.latents, self.options.gif
        drawn: list[Image.Image] = []
        parts = [i / frames for i in range(frames)]
        for first, second in zip(stations, [*stations[1:], stations[0]], strict=True):
            with torch.no_grad():
                drawn += to_images(self.gan.render(between(first, second, parts)))
        out = io.BytesIO()
        held = [500 if i % frames == 0 else 80 for i in range(len(drawn))]
        drawn[0].save(out, "GIF", save_all=True, append_images=drawn[1:], duration=held, loop=0)
        return out.getvalue()

    def _warnings(self) -> list[str]:
        import torch

        found = []
        for prompt, unknown in self.unknown.items():
            if unknown:
                sure = how_sure(self.scorer, torch.stack(self.seen[prompt]), prompt, unknown)
                pieces = [pieces_of(self.scorer, word) for word in unknown]
                found.append(warning(prompt, unknown, pieces, sure))
        return found
