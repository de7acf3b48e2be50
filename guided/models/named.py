"""The models of a run as they are named: by an option, else by the kit; their references, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from guided.core.long_texts import LongText
from guided.core.world import NO_WORLD, World, load_world
from guided.errors import CannotDo, GuidedError, MissingWeights, UsageError
from guided.models.missing import chosen_by
from guided.models.placement import Placement
from guided.models.references import OBJECT, SCORER_HELP, Located, Reference

if TYPE_CHECKING:
    from guided.core.device import Device
    from guided.generators.stylegan2 import Overshoot

ModelT = TypeVar("ModelT")
#: What to say and to do where nothing names a model of a role, where that is not the usual.
_UNNAMED: dict[str, tuple[type[GuidedError], str, str]] = {
    "denoiser": (CannotDo, "No denoiser is named.", "Give --denoiser FOLDER."),
    "language": (UsageError, "This kit names no language.", "Choose one with --language."),
    "prior": (CannotDo, "No prior is named.", "Give --prior NAME, or --kit portraits."),
    "scorer": (CannotDo, "No scorer is named.", f"Give --scorer: {SCORER_HELP}."),
    "text_gan": (UsageError, "No text GAN is named.", "Give --gan FILE, or --kit portraits."),
}


@dataclass
class NamedModels:
    """The models of a run by role, each looked for once.

    ``kit`` and ``chosen`` (which goes first) name them by role; ``given`` holds objects by the
    names that stand for them (``object:CLIP``).  ``notes`` gets the sha256 of what is loaded, by
    name.  ``draws`` is the role of the model that draws the run's images: they are the kit's
    ``world_name``'s where that model is the kit's own.  ``placement`` says where each is put,
    ``long_text`` how texts beyond a context are read.
    """

    kit: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    device_name: str | None = None
    online: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    world_name: str = ""
    draws: str = "generator"
    overshoot: Overshoot = "clip"
    long_text: LongText = "cut"
    loaded: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)

    def __post_init__(self) -> None:
        if self.device_name is not None:
            self.placement.device_name = self.device_name

    def of(self, options: Any, *, draws: str = "generator", overshoot: Overshoot = "clip") -> Self:
        """The same run's models as a verb's options choose them; what is loaded is shared."""
        models = self.choosing(chosen_by(options), draws=draws, overshoot=overshoot)
        return replace(models, long_text=getattr(options, "long_text", "cut"))

    def choosing(
        self, chosen: Mapping[str, str], *, draws: str = "generator", overshoot: Overshoot = "clip"
    ) -> Self:
        """The same run's models with others chosen, by role; what is loaded is shared."""
        return replace(self, chosen=chosen, draws=draws, overshoot=overshoot)

    # ------------------------------------------------------------------ names and files

    @cached_property
    def device(self) -> Device:
        """The device of the run, for fp32; the first touch imports torch."""
        return self.placement.of("compared")

    @property
    def world(self) -> World:
        """The world of the images that the run draws."""
        other = self.chosen.get(self.draws, "") not in ("", self.kit.get(self.draws))
        return NO_WORLD if other else load_world(self.world_name)

    def named(self, role: str) -> str:
        """The model of a role as it was written; empty where nothing names one."""
        return self.chosen.get(role) or self.kit.get(role, "")

    def reference(self, role: str) -> Reference | None:
        """The reference of a role; None where neither an option nor the kit names one.

        Raises:
            CannotDo: an object of another run.
        """
        text = self.named(role)
        return self.reference_to(text, role) if text else None

    def reference_to(self, text: str, role: str) -> Reference:
        """The reference that a text makes for a role; of a name of an object, that object.

        Raises:
            CannotDo: an object of another run.
        """
        if text.startswith(OBJECT):
            if text not in self.given:
                raise CannotDo(
                    f"This run's {role} was a Python object of the class "
                    f"{text.removeprefix(OBJECT)}, which a recipe cannot hold.",
                    hint=f"Give it again in Python, {role}=MODEL, or name a model with --{role}.",
                )
            return Reference("object", text, role, given=self.given[text])
        return Reference.parse(text, role)

    def needed(self, role: str) -> Reference:
        """The reference of a role, where there is no way without.

        Raises:
            CannotDo: nothing is named for that role (of some a UsageError).
        """
        reference = self.reference(role)
        if reference is None:
            usual = (
                CannotDo,
                f"No {role} is named.",
                f"Give --{role} FILE, or a kit that has one.",
            )
            kind, message, hint = _UNNAMED.get(role, usual)
            raise kind(message, hint=hint)
        return reference

    def located(self, role: str) -> Located | None:
        """The files of a role's model, noted by sha256; None where nothing names one.

        Raises:
            MissingWeights: named, but not on this computer.
        """
        reference = self.reference(role)
        return None if reference is None else self.locate(reference)

    def locate(self, reference: Reference) -> Located:
        """The files of a model, whole, and noted by sha256: under its name, or the file's."""
        where = reference.locate(online=self.online, whole=True)
        file = reference.path if reference.kind == "file" else None
        self.notes[reference.text if file is None else file.name] = where.sha256
        return where

    def file(self, role: str) -> Path | None:
        """The weight file (or the folder) of a role's model; None where nothing names one.

        Raises:
            MissingWeights: named, but not on this computer.
        """
        where = self.located(role)
        return None if where is None else where.main

    def need(self, role: str) -> Path:
        """As ``file``, where there is no way without.

        Raises:
            CannotDo: nothing is named for that role.
            MissingWeights: named, but not on this computer.
        """
        return self.locate(self.needed(role)).main

    def has(self, role: str) -> bool:
        """Whether there is a model for that role on this computer; looked for once."""

        def look() -> bool:
            try:
                return self.file(role) is not None
            except MissingWeights:
                return False

        return self.once(("has", role, self.named(role)), look)

    def once(self, key: tuple[Any, ...], make: Callable[[], ModelT]) -> ModelT:
        """What was made under a key in this run, made now where it was not yet."""
        if key not in self.loaded:
            self.loaded[key] = make()
        model: ModelT = self.loaded[key]
        return model
