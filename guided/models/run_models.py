"""The models of one run by role: an option's reference, else the kit's, each loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.world import WorldReader, load_world
from guided.errors import CannotDo, CorruptWeights, MissingWeights
from guided.models.belonging import (
    check_delta,
    check_directions,
    check_image_embeddings,
    check_latent_scorer,
)
from guided.models.named import ModelT, NamedModels
from guided.models.references import Reference

if TYPE_CHECKING:
    from torch import Tensor

    from guided.core.device import Precision
    from guided.core.objective import Objective
    from guided.generators.diffusion import Diffusion
    from guided.generators.e4e import StyleInverter
    from guided.generators.stylegan2 import StyleGan2
    from guided.generators.text_gan import TextGan
    from guided.language.load import LanguageModelBundle
    from guided.models.loading import BulkPrecision
    from guided.nets.delta import DeltaNet
    from guided.scorers.clip import ClipScorer
    from guided.scorers.latent import LatentClip
    from guided.scorers.trunk import TrunkDistance


@dataclass
class Models(NamedModels):
    """The models of a run, each loaded at its first use and never twice.

    Images, texts and latents are compared in fp32; what a verb's ``precision`` asks for besides is
    ``scorer_in`` and ``text_gan``.  ``placement`` has the dtype of what makes images and texts.
    """

    # ------------------------------------------------------------------ what embeds

    @property
    def scorer(self) -> ClipScorer:
        """The CLIP that guides and compares, in fp32."""
        return self.scorer_in("fp32")

    def scorer_in(self, precision: BulkPrecision, *, many: bool = False) -> ClipScorer:
        """The CLIP in another precision; ``many``: for so many image files that a CPU's own tower
        in bf16 pays.  int8 is for image files on a CPU; everything else stays in fp32.

        Raises:
            CannotDo: nothing names one.
            UsageError: int8 on another device.
        """
        return self._clip(self.needed("scorer"), precision, many=many)

    def scorer_named(self, name: str) -> ClipScorer:
        """Another CLIP than the run's scorer, in fp32."""
        return self._clip(self.reference_to(name, "scorer"), "fp32")

    def _clip(
        self, reference: Reference, precision: BulkPrecision, *, many: bool = False
    ) -> ClipScorer:
        from guided.models.loading import bulk_of, load_scorer

        device = self.placement.of("scorer", "fp32" if precision == "int8" else precision)
        bulk = bulk_of(precision, many=many)
        scorer = self.once(
            ("scorer", reference.text, device, bulk),
            lambda: load_scorer(reference, device, online=self.online, bulk=bulk),
        )
        if self.long_text != "cut":
            key = ("scorer", reference.text, device, bulk, self.long_text)
            scorer = self.once(key, partial(scorer.reading, self.long_text))
        self.notes[scorer.name] = weights_of(scorer.name, scorer.fingerprint)
        return scorer

    def latent_scorer(
        self, model: Diffusion, scorer: ClipScorer, *, asked: bool, chosen: bool
    ) -> LatentClip | None:
        """The scorer of latents, which learnt from the guiding CLIP and from this model's latents.

        None unless it is ``asked`` for, or nobody has ``chosen`` a model or another way to look,
        and it is here and that CLIP's.

        Raises:
            CannotDo: it is asked for, and nothing names one, or it learnt from other latents than
                this model's.
            MissingWeights: it is asked for, and not on this computer.
            CorruptWeights: it is asked for, and learnt from another CLIP.
        """
        from guided.scorers.latent import load_latent_scorer

        reference = self.reference("latent_scorer")
        fits = reference is not None and model.pipe.family.latent_scorer
        if asked and not fits:
            raise CannotDo(
                "This model has no scorer of latents.", hint="Take --decode tiny or vae."
            )
        if reference is None or (not asked and (chosen or not fits)):
            return None
        try:
            folder = reference.locate(online=self.online, whole=True).folder
            student = load_latent_scorer(str(folder), scorer.fingerprint, self.device)
            check_latent_scorer(student, model, scorer)
            return student
        except (MissingWeights, CorruptWeights, CannotDo):
            if asked:
                raise
            return None

    @property
    def identity(self) -> Any:
        """The embedder of who it is: ``embed_images`` to unit vectors."""
        from guided.models.loading import load_embedder

        return self._by_file("identity", lambda path: load_embedder(path, self.device))

    @property
    def perceptual(self) -> TrunkDistance:
        """The distance by the trunk of the CLIP that is named, or LPIPS where its file is.

        Without a name it is the scorer's own trunk.
        """
        from guided.models.loading import load_distance
        from guided.scorers.trunk import clip_trunk

        text = self.named("perceptual")
        if text in ("", self.named("scorer")):
            return self.once(("trunk", self.named("scorer")), lambda: clip_trunk(self.scorer))
        if self.reference_to(text, "perceptual").role == "scorer":
            return self.once(("trunk", text), lambda: clip_trunk(self.scorer_named(text)))
        return self._by_file("perceptual", lambda path: load_distance(path, self.device))

    def of_roles(self, roles: Iterable[str]) -> dict[str, Any]:
        """The models that losses need, by role: ``identity``, ``perceptual``, ``scorer`` ...

        Raises:
            CannotDo: nothing is named for a role, or it is no role of a model.
        """
        wanted = list(roles)
        for role in wanted:
            if not isinstance(getattr(type(self), role, None), property):
                raise CannotDo(f"There is no model in the role {role!r} that a loss could use.")
        return {role: getattr(self, role) for role in wanted}

    def for_losses(self, objective: Objective) -> dict[str, Any]:
        """The models that an objective's losses need, by role; the scorer is the loop's own.

        Raises:
            CannotDo: a role for which neither an option nor the kit names a model.
            MissingWeights: named, but not on this computer.
        """
        return self.of_roles(role for role in objective.needs if role != "scorer")

    # ------------------------------------------------------------------ what draws

    def _by_file(self, role: str, load: Callable[[Path], ModelT]) -> ModelT:
        """The model in a role's file, loaded (and noted) once."""
        key = (role, self.named(role), self.overshoot)
        return self.once(key, lambda: load(self.need(role)))

    @property
    def generator(self) -> StyleGan2:
        """The generator of latents."""
        from guided.models.loading import load_generator

        return self._by_file(
            "generator",
            lambda path: load_generator(
                path, self.placement.of("generator"), overshoot=self.overshoot
            ),
        )

    @property
    def inverter(self) -> StyleInverter:
        """The encoder that finds an image's code in the generator."""
        from guided.models.loading import load_encoder

        def load() -> StyleInverter:
            where = self.locate(self.needed("inverter"))
            return load_encoder(where, self.generator.average, self.device)

        return self.once(("inverter", self.named("inverter"), self.named("generator")), load)

    @property
    def directions(self) -> Tensor:
        """What each channel of the generator does under the scorer: [channels, D] float32.

        Raises:
            CorruptWeights: a file of another kind.
            CannotDo: statistics of another CLIP.
        """
        from guided.models.loading import load_directions

        relevance = self._by_file("directions", lambda path: load_directions(path, self.device))
        check_directions(relevance, self.scorer, self.named("directions"))
        return relevance

    @property
    def delta(self) -> DeltaNet:
        """The delta mapper: codes, image features and directions to changes of codes.

        Raises:
            CannotDo: a mapper of another CLIP.
        """
        from guided.models.loading import load_delta

        net = self._by_file("delta", lambda path: load_delta(path, self.device))
        check_delta(net, self.scorer, self.named("delta"))
        return net

    @property
    def mapper(self) -> Any:
        """The StyleCLIP mapper of one prompt."""
        from guided.models.loading import load_mapper

        return self._by_file("mapper", lambda path: load_mapper(path, self.device))

    @property
    def denoiser(self) -> Diffusion:
        """The diffusion model; one that shares its CLIP with others is read with that CLIP.

        Raises:
            CannotDo: nothing names one.
            MissingWeights: named, but not on this computer.
        """
        from guided.models.loading import load_denoiser

        reference = self.needed("denoiser")

        def load() -> Diffusion:
            where = self.locate(reference)
            name = reference.text if where.card is not None else ""
            device = self.placement.of("denoiser")
            return load_denoiser(where.folder, self.scorer_named, device, name=name)

        model = self.once(("denoiser", reference.text), load)
        model.pipe.long_text = self.long_text
        return model

    @property
    def denoiser_of_images(self) -> Diffusion:
        """The diffusion model, where it takes embeddings of images, and those of the scorer.

        Raises:
            CannotDo: it takes none.
            CorruptWeights: it takes those of another CLIP, by its hash.
        """
        model = self.denoiser
        check_image_embeddings(model, self.scorer, self._decoder_clip)
        return model

    def _decoder_clip(self) -> str:
        """The hash of the CLIP whose embeddings the denoiser takes."""
        from guided.generators.unclip import clip_of

        return clip_of(self.needed("denoiser").locate(online=self.online).folder)

    @property
    def unclip(self) -> Diffusion:
        """Both stages: a folder that was saved whole, or the denoiser with the prior of its CLIP.

        Raises:
            CannotDo: no prior is named, or a denoiser that takes no embeddings of images.
            CorruptWeights: a prior of another CLIP than the denoiser's.
        """
        from guided.generators.unclip import is_whole, load_unclip, with_prior
        from guided.models.loading import load_image_prior

        reference = self.needed("denoiser")

        def load() -> Diffusion:
            if reference.kind in ("folder", "hub") and not self.chosen.get("prior"):
                folder = reference.locate(online=self.online).folder
                if is_whole(folder):
                    return load_unclip(folder, self.placement.of("denoiser"))
            decoder = self.denoiser
            prior = self.needed("prior").locate(online=self.online, whole=True)
            return with_prior(decoder, load_image_prior(prior, self._decoder_clip(), self.device))

        model = self.once(("unclip", reference.text, self.named("prior")), load)
        model.pipe.long_text = self.long_text
        return model

    def text_gan(
        self, precision: Precision = "fp32", *, truncation: float = 1.0
    ) -> tuple[TextGan, ClipScorer]:
        """The one-pass generator of images and the CLIP that it listens to: --scorer, or its own.

        Raises:
            UsageError: nothing names one.
            CannotDo: a CLIP that is not the one it was trained with.
            MissingWeights: named, but not on this computer.
        """
        from guided.generators.text_gan import load_text_gan, read_config

        path = self.need("text_gan")
        own = str(read_config(path).get("scorer", ""))
        name = self.chosen.get("scorer") or own or self.needed("scorer").text
        scorer, device = self.scorer_named(name), self.placement.of("text_gan", precision)
        gan = self.once(
            ("text_gan", path, scorer.name, device, truncation),
            lambda: load_text_gan(path, scorer, device, truncation=truncation),
        )
        return gan, scorer

    # ------------------------------------------------------------------ what writes and reads

    @property
    def language(self) -> LanguageModelBundle:
        """The language model, with how it wants to be asked."""
        from guided.models.loading import load_language_model

        reference = self.needed("language")
        speaker = self.once(
            ("language", reference.text),
            lambda: load_language_model(
                reference, self.placement.of("language"), online=self.online
            ),
        )
        name = speaker.language.name
        self.notes[name] = weights_of(name, speaker.language.fingerprint)
        return speaker

    @property
    def reader(self) -> WorldReader:
        """The judge that reads attributes of the world's images."""
        name = self.named("reader")
        return self.once(
            ("reader", name), lambda: load_world(self.world_name).reader(name, self.device)
        )


def weights_of(name: str, fingerprint: str) -> str:
    """The sha256 of a model's weight file by its card; without one its ``fingerprint``."""
    from guided.zoo.resolve import card_of

    card = card_of(name)
    return fingerprint if card is None else card.sha256 or fingerprint
