"""How the methods of diffusion edit a batch of pictures: noise, words, what stays, how far."""

from __future__ import annotations

import math
from collections.abc import Generator as Stream
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guided.core.objective import Draft, Objective
from guided.core.prompts import PLAIN, parse, text_direction
from guided.core.run import Step
from guided.core.seeds import Seeds
from guided.errors import UsageError
from guided.generators.diffusion import BoundDiffusion, Diffusion
from guided.generators.diffusion_source import (
    attention_net,
    latents_of,
    token_ids,
    walking,
    word_ids,
)
from guided.guidance.attention_control import Alignment, Control, controlled
from guided.guidance.denoise import Guidance
from guided.guidance.denoise_views import Decode
from guided.guidance.embedding_turns import turned
from guided.guidance.inversion import Inversion, invert
from guided.guidance.walk import Kept, Path, Walk, first_of
from guided.losses.directional import Directional
from guided.portraits.rivals import rivals_by_fact
from guided.tasks._edit_editors import NEUTRAL
from guided.tasks._edit_options import Options
from guided.tasks._losses import objective_of

#: The part of the denoising that is done again at strength 1, where nothing else is asked for.
NOISE = {
    "sdedit": 0.75, "inpaint": 1.0, "ddim": 0.8, "ddpm": 0.85, "p2p": 0.85, "directional": 0.85,
}  # fmt: skip
#: Classifier-free guidance, where nothing else is asked for and the method has a scale of its own.
CFG, OWN_CFG = 5.0, {"ddpm": 4.0, "p2p": 4.0, "directional": 3.0, "turn": 2.0}
#: The part of a right angle that an embedding is turned by at strength 1.
TURN = 0.35


@dataclass(frozen=True)
class Sources:
    """Pictures [B, 3, S, S] in [0, 1], prompts, what the pictures show in words, a seed a row.

    ``mask`` [B, 1, S, S] is 1 where the pictures may change.  ``paths`` keeps what an editor has
    found of the noise that gives them, for further strengths.
    """

    images: Tensor
    prompts: Sequence[str]
    words: Sequence[str]
    seeds: Seeds
    mask: Tensor | None = None
    paths: dict[DenoisingEditor, Path] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, eq=False)
class DenoisingEditor:
    """Edits by a diffusion model as the options say.

    ``directional`` and ``turn`` ask ``scorer``, or in its place ``latent_scorer``, its student,
    where ``directional`` has one.
    """

    options: Options
    model: Diffusion
    scorer: Any = None
    latent_scorer: Any = None

    @property
    def cfg(self) -> float:
        """Classifier-free guidance: what is asked for, or what suits the method."""
        asked = self.options.cfg
        return OWN_CFG.get(self.options.method, CFG) if asked is None else asked

    def pictures(self, sources: Sources, strength: float) -> Stream[Step[Any], None, Tensor]:
        """The edited pictures [B, 3, S, S] at a strength, yielding Steps; 0 is the pictures
        themselves.

        Raises:
            UsageError: a strength below 0, which only ``turn`` can follow.
        """
        if strength < 0 and self.options.method != "turn":
            raise UsageError(
                f"--method {self.options.method} has no opposite, so strength must be 0 or more, "
                f"not {strength:g}.",
                hint="Say the opposite in words, or take --method turn.",
            )
        if self.options.method == "turn":
            if strength == 0:
                return sources.images
            found = yield from self._turn(sources, strength)
        else:
            asked = self.options.noise
            share = min(1.0, strength * (NOISE[self.options.method] if asked is None else asked))
            first = first_of(self.options.denoise_steps, share)
            if first == self.options.denoise_steps:
                return sources.images
            latents = latents_of(self.model.pipe, sources.images)
            work = getattr(self, f"_{self.options.method}")
            found = yield from work(sources, latents, first)
        with torch.no_grad():
            return self.model.render({"x0": found}).float()

    # ------------------------------------------------------------------ the methods

    def _sdedit(
        self, sources: Sources, latents: Tensor, first: int
    ) -> Stream[Step[Any], None, Tensor]:
        noise = self._noise(sources, latents)
        kept = self._kept(sources, latents, noise)
        bound = self._bound(sources.prompts, self.cfg)
        walk = self._walk(
            bound, noise, sources.seeds, self.cfg, first=first, latents=latents, kept=kept
        )
        return walk.steps()

    _inpaint = _sdedit

    def _ddim(
        self, sources: Sources, latents: Tensor, first: int
    ) -> Stream[Step[Any], None, Tensor]:
        path = yield from self._path(sources, latents, first)
        bound = self._bound(sources.prompts, self.cfg)
        walk = self._walk(
            bound, latents, sources.seeds, self.cfg, first=first, sample=path.states[0],
            added=path.added, eta=path.eta,
        )  # fmt: skip
        found = yield from walk.steps()
        return found

    _ddpm = _ddim

    def _p2p(
        self, sources: Sources, latents: Tensor, first: int
    ) -> Stream[Step[Any], None, Tensor]:
        path = yield from self._path(sources, latents, first)
        options, count = self.options, len(latents)
        bound = self._bound([*sources.words, *sources.prompts], self.cfg)
        control = Control(self._alignment(bound, sources), options.cross_share, options.self_share)
        net = attention_net(self.model.pipe)
        with controlled(net, bound, control, path.steps) as model:
            walk = self._walk(
                model, latents.repeat(2, 1, 1, 1), Seeds(sources.seeds.values * 2), self.cfg,
                first=first, sample=path.states[0].repeat(2, 1, 1, 1), beside=path, eta=path.eta,
            )  # fmt: skip
            found = yield from walk.steps()
        return found[count:]

    def _directional(
        self, sources: Sources, latents: Tensor, first: int
    ) -> Stream[Step[Any], None, Tensor]:
        options, pipe = self.options, self.model.pipe
        path = yield from self._path(sources, latents, first)
        objective = (
            objective_of(options.loss) if options.loss else Objective.of(Directional(source=None))
        )
        own: Decode = "vae" if self.latent_scorer is None else "latent"
        extras: dict[str, Any] = {"sources": _shown(sources)}
        extras |= {} if sources.mask is None else {"mask": sources.mask}
        guidance = Guidance(
            objective=objective, scorer=self.scorer, prompts=tuple(sources.prompts),
            scale=options.guide_scale, decode=options.decode or own,
            latent_scorer=self.latent_scorer, extras=extras,
        )  # fmt: skip
        walk = self._walk(
            self._bound(sources.prompts, self.cfg), latents, sources.seeds, self.cfg, first=first,
            sample=path.states[0], added=path.added, eta=path.eta, guidance=guidance,
            source=Draft({"x0": latents}, lambda latent: pipe.picture(latent["x0"], "vae")),
        )  # fmt: skip
        found = yield from walk.steps()
        return found

    def _turn(self, sources: Sources, strength: float) -> Stream[Step[Any], None, Tensor]:
        options, empty = self.options, [""] * len(sources.prompts)
        with torch.no_grad():
            seen = self.scorer.embed_images(sources.images)
        aim = text_direction(
            self.scorer, sources.prompts, _shown(sources), options.template or PLAIN
        )
        latents = latents_of(self.model.pipe, sources.images)
        path = yield from self._found(
            sources, latents, self.model.bound(empty, image=seen), 0, "ddim"
        )
        reach = seen.new_tensor([reach_of(prompt) for prompt in sources.prompts])
        image = turned(seen, aim.to(seen), strength * TURN * reach)
        walk = self._walk(
            self.model.bound(empty, cfg=self.cfg, image=image), latents, sources.seeds, self.cfg,
            sample=path.states[0],
        )  # fmt: skip
        found = yield from walk.steps()
        return found

    # ------------------------------------------------------------------ their parts

    def _bound(self, prompts: Sequence[str], cfg: float) -> BoundDiffusion:
        return self.model.bound(prompts, cfg=cfg)

    def _walk(self, model: Any, noise: Tensor, seeds: Seeds, cfg: float, **more: Any) -> Walk:
        return Walk(
            model, walking(self.model), noise, seeds, self.options.denoise_steps, cfg, **more
        )

    def _noise(self, sources: Sources, latents: Tensor) -> Tensor:
        shape, place = latents.shape[1:], latents.device
        return sources.seeds.normal(shape, "edit/noise", place).to(latents.dtype)

    def _kept(self, sources: Sources, latents: Tensor, noise: Tensor) -> Kept | None:
        """What stays of the latents: those of which no pixel may change."""
        if sources.mask is None:
            return None
        factor = sources.mask.shape[-1] // latents.shape[-1]
        mask = (F.max_pool2d(sources.mask, factor) > 0).to(latents)
        return Kept(latents, mask, noise)

    def _path(self, sources: Sources, latents: Tensor, first: int) -> Stream[Step[Any], None, Path]:
        kind: Inversion = "ddim" if self.options.method == "ddim" else "ddpm"
        bound = self._bound(sources.words, 1.0)
        path = yield from self._found(sources, latents, bound, first, kind)
        return path

    def _found(
        self, sources: Sources, latents: Tensor, bound: BoundDiffusion, first: int, kind: Inversion
    ) -> Stream[Step[Any], None, Path]:
        """The path to the latents from evaluation ``first`` on; a longer one lengthens what is
        known.
        """
        steps, known = self.options.denoise_steps, sources.paths.get(self)
        path: Path = yield from invert(
            bound, walking(self.model), latents, sources.seeds, steps, first=first, kind=kind,
            known=known,
        )  # fmt: skip
        if known is None or known.steps < path.steps:
            sources.paths[self] = path
        return path

    def _alignment(self, bound: BoundDiffusion, sources: Sources) -> Alignment:
        pipe, length = self.model.pipe, bound.words.text.shape[1]
        one, two = (token_ids(pipe, texts, length) for texts in (sources.words, sources.prompts))
        found = Alignment.of(one, two, self.options.attention, length)
        for asked in self.options.reweight:
            word, factor = weighted(asked)
            found = found.reweighted(two, word_ids(pipe, word), factor)
        return found


def _shown(sources: Sources) -> list[str]:
    """What each picture shows, where nothing is said a person."""
    return [words or NEUTRAL for words in sources.words]


def reach_of(prompt: str) -> float:
    """How much further a prompt of several texts turns than one text does, so that the text of most
    weight is turned to as far as if it were alone, were what the texts change orthogonal.

    >>> round(reach_of("pink hair | a hat"), 4)
    1.4142
    """
    weights = [abs(weight) for _, weight in parse(prompt)]
    return math.hypot(*weights) / max(weights)


def weighted(asked: str) -> tuple[str, float]:
    """A word and its factor, of WORD=FACTOR.

    Raises:
        UsageError: another form, or a factor that is no number from 0 up.

    >>> weighted("red hat=1.5")
    ('red hat', 1.5)
    """
    word, _, number = asked.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        factor = -1.0
    if not word.strip() or not 0 <= factor < float("inf"):
        raise UsageError(
            f"--reweight takes WORD=FACTOR with a factor from 0 up, not {asked!r}.",
            hint="Write for example --reweight smiling=2.",
        )
    return word.strip(), factor


def source_words(prompt: str, seen: Tensor, scorer: Any) -> str:
    """What a picture shows in place of what a prompt asks for: its facts as the CLIP sees them.

    ``seen`` [D] is the picture's unit embedding.  A prompt without facts of the drawn world has no
    counterpart: the empty text.
    """
    said, count = prompt, len(rivals_by_fact(prompt))
    for place in range(count):
        others = rivals_by_fact(said)
        if len(others) != count:
            break
        told = scorer.embed_texts(others[place]).to(seen)
        said = others[place][int((told @ seen).argmax())]
    return said if count else ""
