"""``guided edit`` by diffusion: the picture is noised and denoised again, told what to change.

sdedit noises it and denoises towards the prompt; inpaint does so within a mask; ddim and ddpm find
the noise that gives the picture and replay it with other words; p2p also keeps what its words look
at; directional also lets CLIP steer the replay.  turn keeps the noise and turns the embedding of
what the picture shows, for models that are told pictures.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.files import safe_name
from guided.core.run import Picture, Result, Step
from guided.errors import GuidedError, UsageError
from guided.tasks import _generate_diffusion
from guided.tasks._edit_inputs import Subject, open_mask
from guided.tasks._edit_options import AUTO, Options
from guided.tasks._edit_outputs import means
from guided.tasks._latent_sight import latent_scorer_of
from guided.tasks._picture_embeddings import check_embeddings
from guided.tasks.base import Steps, Workbench

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from guided.generators.diffusion import Diffusion
    from guided.tasks._edit_denoising import DenoisingEditor, Sources
    from guided.tasks._edit_models import EditModels

#: Strengths that --strength auto tries.
GRID = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


def needs(options: Options) -> tuple[str, ...]:
    """The roles these methods load a model for."""
    student = ("latent_scorer",) if options.decode == "latent" else ()
    return ("denoiser", "scorer", *student)


def run(options: Options, bench: Workbench) -> Steps:
    """Edit every picture by every prompt, in batches, yielding the Steps of the denoising."""
    _check(options)
    job = Job.of(options, bench)
    subjects = yield from job.opened()
    pairs = [(subject, prompt) for subject in subjects for prompt in options.prompt]
    results: list[dict[str, Any]] = []
    for first in range(0, len(pairs), options.batch):
        results += yield from job.edited(pairs[first : first + options.batch])
    answer: dict[str, Any] = {"results": results}
    if job.errors:
        answer["errors"] = job.errors
    return Result(answer, scores=means(results))


def _check(options: Options) -> None:
    """Raise for what these methods cannot do."""
    name = f"--method {options.method}"
    if not options.images:
        raise UsageError(f"{name} changes pictures; none was given.", hint="Name a picture file.")
    if not options.prompt:
        raise UsageError("What should change?", hint="Give --prompt 'a person with purple hair'.")
    if options.method == "inpaint" and options.mask is None:
        raise UsageError(
            "--method inpaint needs --mask FILE, white where the picture may change.",
            hint="Without one take --method sdedit.",
        )
    if options.landmarks:
        raise UsageError(f"{name} takes the whole picture, not a face within it.",
                         hint="Leave --landmarks out, or cut the face out.")  # fmt: skip
    if options.gif:
        raise UsageError(f"{name} finds no change that could be animated.",
                         hint="Take --sweep with some strengths, or --method delta.")  # fmt: skip
    if options.noise is not None and options.method == "turn":
        raise UsageError(f"{name} keeps the noise, so --noise has no part in it.",
                         hint="Leave it out; --strength says how far to turn.")  # fmt: skip
    if options.reweight and options.method != "p2p":
        raise UsageError("--reweight is for --method p2p.", hint="Leave it out, or take p2p.")


@dataclass
class Job:
    """One run: options, models, and what gathers on the way."""

    options: Options
    bench: Workbench
    editor: DenoisingEditor
    models: EditModels
    size: int
    masks: dict[str, Image.Image] = field(default_factory=dict)
    errors: list[dict[str, str]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, options: Options, bench: Workbench) -> Job:
        """The job with its model loaded.

        Raises:
            CannotDo: no denoiser is named.
            MissingWeights: named, but not on this computer.
        """
        from guided.generators.diffusion_source import picture_size
        from guided.tasks._edit_models import EditModels
        from guided.tasks._generate_options import Options as Asked

        asked = Asked(prompts=["-"], denoiser=options.denoiser)
        model = _generate_diffusion.open_model(asked, bench)
        models = EditModels(
            bench, {role: getattr(options, role) for role in ("scorer", "identity")}
        )
        editor = editor_of(options, model, models)
        return cls(options, bench, editor, models, picture_size(model.pipe))

    def opened(self) -> Stream[Step[Any], None, list[Subject]]:
        """The pictures that can be opened, at the model's size; failures go into ``errors``."""
        from guided.core.images import center_square

        found: list[Subject] = []
        for position, file in enumerate(self.options.images):
            held = str(file) in self.bench.given
            path = file if held else file.expanduser().absolute()
            try:
                whole = self.bench.open_image(path)
                subject = Subject(str(path), path.stem, center_square(whole, self.size))
                if self.options.mask is not None:
                    mask = mask_of(self.options.mask, whole, subject, self.size)
                    self.masks[subject.file] = mask
                found.append(subject)
            except UsageError:
                raise
            except GuidedError as error:
                self.errors.append({"file": str(file), "error": str(error)})
            yield Step(position + 1, len(self.options.images), "open")
        return found

    def edited(
        self, pairs: Sequence[tuple[Subject, str]]
    ) -> Stream[Step[Any], None, list[dict[str, Any]]]:
        """The answer's entries of a batch."""
        from guided.tasks._edit_editors import Judgement

        sources = self.sources(pairs)
        judge = Judgement(self.models, self.options.neutral, sources.prompts)
        if self.options.strength == AUTO:
            strengths, images = yield from self._least(sources, judge)
        else:
            strength = float(self.options.strength)
            strengths = [strength] * len(pairs)
            images = yield from self.drawn(sources, strength)
        figures = judge.figures(sources.images, images)
        self._measure(sources, images, figures)
        sweep: list[Tensor] = []
        for strength in self.options.sweep:
            drawn = yield from self.drawn(sources, strength)
            sweep.append(drawn)
        return [
            self._entry(subject, prompt, strengths[i], images[i : i + 1], figures[i],
                        [each[i : i + 1] for each in sweep])
            for i, (subject, prompt) in enumerate(pairs)
        ]  # fmt: skip

    def sources(self, pairs: Sequence[tuple[Subject, str]]) -> Sources:
        """A batch as tensors, with what its pictures show in words."""
        from guided.core.images import to_tensor
        from guided.core.seeds import Seeds
        from guided.tasks._edit_denoising import Sources, source_words

        place = self.bench.device.torch
        images = to_tensor([_picture(subject) for subject, _ in pairs]).to(place)
        seen = self.models.scorer.embed_images(images)
        neutral = self.options.neutral
        words = [
            source_words(prompt, seen[i], self.models.scorer) if neutral == AUTO else neutral
            for i, (_, prompt) in enumerate(pairs)
        ]
        mask = None
        if self.options.mask is not None:
            masks = [self.masks[subject.file].convert("RGB") for subject, _ in pairs]
            mask = to_tensor(masks)[:, :1].to(place)
        seeds = Seeds((self.bench.seed,) * len(pairs))
        return Sources(images, [prompt for _, prompt in pairs], words, seeds, mask)

    def drawn(self, sources: Sources, strength: float) -> Stream[Step[Any], None, Tensor]:
        """The edited pictures at a strength; outside a mask the source's own pixels."""
        from guided.tasks._edit_regions import Region

        images = yield from self.editor.pictures(sources, strength)
        if sources.mask is None:
            return images.clamp(0, 1)
        return Region.of(sources.mask, sources.images).keep(images).clamp(0, 1)

    def _least(
        self, sources: Sources, judge: Any
    ) -> Stream[Step[Any], None, tuple[list[float], Tensor]]:
        """For each row the least strength of the grid at which CLIP names its prompt, else the
        last, and its picture."""
        chosen = [GRID[-1]] * len(sources.prompts)
        images, waiting = sources.images.clone(), set(range(len(sources.prompts)))
        for strength in GRID:
            found = yield from self.drawn(sources, strength)
            seen = self.models.scorer.embed_images(found)
            for row in sorted(waiting):
                images[row] = found[row]
                if judge.texts.agrees(row, seen[row]):
                    chosen[row] = strength
                    waiting.discard(row)
            if not waiting:
                break
        return chosen, images

    def _measure(self, sources: Sources, images: Tensor, figures: list[dict[str, Any]]) -> None:
        """Add how much changed, outside of the mask too, and who it still is."""
        from guided.tasks._edit_outputs import changes
        from guided.tasks._edit_regions import elsewhere

        before = sources.images
        moved = changes(before, images, None)
        outside = sources.mask is not None
        rest = changes(before, images, sources.mask) if outside else elsewhere(before, images)
        same = None
        if self.models.here("identity"):
            embed = self.models.identity.embed_images
            same = (embed(before) * embed(images)).sum(1)
        for i, row in enumerate(figures):
            row |= {"change": float(moved[i]), "change_outside": float(rest[i])}
            if same is not None:
                row["identity"] = float(same[i])

    def _entry(
        self,
        subject: Subject,
        prompt: str,
        strength: float,
        image: Tensor,
        figures: dict[str, Any],
        sweep: Sequence[Tensor],
    ) -> dict[str, Any]:
        from guided.core.images import to_images
        from guided.tasks._edit_outputs import side_by_side

        name = self._free(f"{safe_name(subject.stem)}-{safe_name(prompt)}")
        after = to_images(image)[0]
        note = {"prompt": prompt, "strength": strength, "method": self.options.method}
        file = Path(subject.file)
        parents = (subject.file,) if file.is_absolute() and file.is_file() else ()
        entry: dict[str, Any] = {
            "file": subject.file, "prompt": prompt, "method": self.options.method,
            "image": Picture(f"{name}.png", after, parents, note), "strength": strength,
            "metrics": figures,
        }  # fmt: skip
        if self.options.strip:
            strip = side_by_side([_picture(subject), after])
            entry["strip"] = Picture(f"{name}-strip.png", strip, parents, note)
        if sweep:
            sheet = side_by_side([to_images(each)[0] for each in sweep])
            entry["sweep"] = Picture(f"{name}-sweep.png", sheet, parents, note)
        return entry

    def _free(self, name: str) -> str:
        number, free = 1, name
        while free in self.taken:
            number += 1
            free = f"{name}-{number}"
        self.taken.add(free)
        return free


def editor_of(options: Options, model: Diffusion, models: EditModels) -> DenoisingEditor:
    """The editor that options ask for, with the scorers that its method looks through.

    Raises:
        CannotDo: a model that the method does not work with.
        CorruptWeights: weights that belong to another CLIP.
    """
    from guided.tasks._edit_denoising import DenoisingEditor

    scorer, bench, student = models.scorer, models.bench, None
    if options.method == "turn":
        check_embeddings(model, scorer, options.denoiser, bench)
    if options.method == "directional":
        chosen = options.decode or options.denoiser or options.scorer
        student = latent_scorer_of(
            model, scorer.fingerprint, bench,
            asked=options.decode == "latent", chosen=bool(chosen),
        )  # fmt: skip
    return DenoisingEditor(options, model, scorer, student)


def mask_of(path: Path, whole: Image.Image, subject: Subject, size: int) -> Image.Image:
    """The mask [size, size] for a picture: as large as its file ``whole``, or as ``size``.

    Raises:
        UsageError: it covers nothing, or everything.
        ShapeError: another size.
        ImageError: no picture.
    """
    from guided.core.images import center_square, open_image

    given = open_image(path)
    mask = (
        center_square(given, size).convert("L") if given.size == whole.size
        else open_mask(path, subject, size)
    )  # fmt: skip
    low, high = mask.getextrema()
    if high == 0:
        raise UsageError(
            f"The mask {path.name} is black everywhere: nothing may change.",
            hint="Paint white what the edit may change.",
        )
    if low == 255:
        raise UsageError(
            f"The mask {path.name} is white everywhere: nothing would stay.",
            hint="Leave --mask out and take --method sdedit, ddpm or p2p.",
        )
    return mask


def _picture(subject: Subject) -> Image.Image:
    assert subject.picture is not None
    return subject.picture
