"""``guided generate --method gan``: one pass from words to a picture, best of several, or a search.

Picture i of every prompt has the same z, so the same person is seen with each prompt.
"""

from __future__ import annotations

import io
from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.files import safe_name
from guided.core.run import Picture, Result, Step
from guided.errors import MissingWeights, UsageError
from guided.tasks._gan_words import how_sure, pieces_of, unknown_words, warning
from guided.tasks._generate_options import Options
from guided.tasks._losses import objective_of
from guided.tasks._scoring import pick_scorer
from guided.tasks.base import Steps, Workbench

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from guided.core.objective import Objective
    from guided.core.protocols import Latent
    from guided.generators.text_gan import TextGan
    from guided.scorers.clip import ClipScorer

#: Pictures that an animation leads through at most.
STATIONS = 16


def needs(options: Options) -> tuple[str, ...]:
    """The roles this method loads a model for."""
    return ("scorer",) if Path(options.gan).suffix else ("text_gan", "scorer")


def run(options: Options, bench: Workbench) -> Steps:
    """Make the pictures in batches; a search yields its Steps, whose drafts have the pictures.

    Raises:
        UsageError: a size that is not the GAN's.
        CannotDo: a CLIP that is not the one the GAN was trained with.
        MissingWeights: the GAN is not on this computer.
    """
    job = open_job(options, bench)
    rows = [(prompt, bench.seed + i) for prompt in options.prompts for i in range(options.count)]
    for first in range(0, len(rows), options.batch):
        yield from job.make(rows[first : first + options.batch], first, len(rows))
    return job.result()


def open_job(options: Options, bench: Workbench) -> Job:
    """The GAN of --gan or of the kit, with the CLIP it listens to."""
    from guided.core.device import Device
    from guided.generators.text_gan import load_text_gan, read_config

    path = _file(options, bench)
    config: dict[str, Any] = dict(read_config(path))
    own = str(config.get("scorer", ""))
    scorer = pick_scorer(bench, options.scorer or own)
    device = Device.pick(bench.device.name, options.precision)
    gan = load_text_gan(path, scorer, device, truncation=options.truncation)
    if options.size and set(options.size) != {gan.size}:
        raise UsageError(
            f"The GAN {gan.name!r} makes pictures of {gan.size} x {gan.size} pixels, not of "
            f"{' x '.join(str(side) for side in options.size)}.",
            hint="Leave --size out, or train one: settings.size in "
            "recipes/train/text_gan_paired.toml and in the two that start from there.",
        )
    return Job(options, bench, gan, scorer, frozenset(config.get("words", ())))


def _file(options: Options, bench: Workbench) -> Path:
    from guided.zoo import find
    from guided.zoo.manifest import digest

    wanted = options.gan or bench.kit.get("text_gan", "")
    if not wanted:
        raise UsageError("No text GAN is named.", hint="Give --gan FILE, or --kit portraits.")
    path = Path(wanted).expanduser()
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise MissingWeights(f"There is no text GAN file {path}.", hint="Check the path.")
        bench.notes[path.name] = digest(path)
        return path
    found = find(wanted, "text_gan", online=bench.online)
    bench.notes[wanted] = found.sha256
    return found.path


@dataclass
class Job:
    """One run: the GAN, the words it knows, and what has been made so far."""

    options: Options
    bench: Workbench
    gan: TextGan
    scorer: ClipScorer
    known: frozenset[str]
    results: list[dict[str, Any]] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    latents: list[Latent] = field(default_factory=list)
    seen: dict[str, list[Tensor]] = field(default_factory=dict)

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
            own = self.gan.told(latent, prompts)["text"]
        cosines = (seen * own).sum(1).tolist()
        for place, (image, (prompt, seed)) in enumerate(zip(to_images(images), rows, strict=True)):
            used = pick.seeds[place]
            self._keep(image, prompt, seed, used, cosines[place])
            self.seen.setdefault(prompt, []).append(seen[place])
            self.latents.append({name: leaf[place : place + 1] for name, leaf in latent.items()})
        if not self.options.search:
            mean = sum(cosines) / len(cosines)
            yield Step(done + len(rows), total, "generate", {"cosine": mean}, images)

    def _searched(
        self, start: Latent, prompts: Sequence[str], done: int, total: int
    ) -> Stream[Step[Any], None, Latent]:
        from guided.guidance.gan_search import GanSearch

        options = self.options
        search = GanSearch(
            generator=self.gan, scorer=self.scorer, objective=self._objective(),
            leaves=options.search_leaves, steps=options.search, rate=options.search_rate,
        )  # fmt: skip
        moves = search.run(start, prompts)
        batch, batches = done // options.batch, -(-total // options.batch)
        while True:
            try:
                step = next(moves)
            except StopIteration as end:
                found: Latent = end.value
                return found
            at = batch * options.search + step.index
            yield Step(at, batches * options.search, step.label, step.losses, step.draft)

    def _objective(self) -> Objective:
        from guided.losses.clip import Clip
        from guided.losses.latent_l2 import LatentL2

        if self.options.loss:
            return objective_of(self.options.loss)
        return Clip() + 0.05 * LatentL2(form="mean")

    def _keep(self, image: Image.Image, prompt: str, seed: int, used: int, cosine: float) -> None:
        name = f"{len(self.results):04d}-{safe_name(prompt)}-s{seed}.png"
        note: dict[str, Any] = {"prompt": prompt, "seed": seed, "method": "gan"}
        entry: dict[str, Any] = {"prompt": prompt, "seed": seed, "clip": round(cosine, 4)}
        if used != seed:
            entry["drawn_from"] = note["drawn_from"] = used
        self.results.append({**entry, "image": Picture(name, image, (), note)})
        self.images.append(image)

    def result(self) -> Result:
        """The answer, with a warning for each prompt that has unknown words."""
        from guided.core.images import grid

        answer: dict[str, Any] = {"results": self.results}
        files: dict[str, str | bytes] = {}
        if self.options.sheet:
            answer["sheet"] = Picture("sheet.png", grid(self.images, self.options.count))
        if self.options.gif and len(self.latents) > 1:
            files["way.gif"] = self._animation()
            folder = self.bench.folder
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

        stations, frames = self.latents[:STATIONS], self.options.gif
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
        for prompt in dict.fromkeys(self.options.prompts):
            unknown = unknown_words(prompt, self.known)
            if unknown:
                sure = how_sure(self.scorer, torch.stack(self.seen[prompt]), prompt, unknown)
                pieces = [pieces_of(self.scorer, word) for word in unknown]
                found.append(warning(prompt, unknown, pieces, sure))
        return found
