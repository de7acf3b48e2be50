"""The recipe keys of ``edit``: those of every method, and a table for the keys of each."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

from guided.core.listing import images_in
from guided.core.loss_tables import LossTable, check_losses
from guided.editing import ALIASES, EDITORS
from guided.editing.base import Editor
from guided.errors import UsageError
from guided.tasks._edit_inputs import Faces
from guided.tasks._method_tables import AUTO, MethodOptions, with_tables
from guided.tasks.base import argument, option, recipe_only


class EditOptions(MethodOptions):
    """The recipe keys of ``edit``."""

    registry = EDITORS
    renamed = ALIASES
    choice = ("delta", "optimise")

    images: list[Path] = argument(
        "pictures, folders of them or saved latents; none edits random portraits", []
    )
    prompt: list[str] = option("what to change to, as 'TEXT' or 'TEXT | TEXT::WEIGHT'", [])
    method: str = option(
        "how to find the change (guided list editors); auto: delta where the kit has such a "
        "mapper and no losses or options of a search are given, else optimise", AUTO,
    )  # fmt: skip
    strength: float | Literal["auto"] = option(
        "0 is the original, 1 the edit, negative the opposite; auto the least CLIP agrees with", 1.0
    )
    count: int = option("random portraits when no picture is given", 1, ge=1, le=256)
    mask: Path | None = option("picture that is white where the edit may change things", None)
    landmarks: list[str] = option("4 points of the face, x,y,... or a .json file, per picture", [])
    face: int | None = option("which face of a landmarks file, from 1", None, ge=1)
    faces: Faces = option("aligned: the pictures are faces cut out FFHQ's way", "auto")
    paste: Literal["replace", "difference"] = option(
        "how a face goes back into its photo", "replace"
    )
    strip: bool = option("also save before and after side by side", False)
    sweep: list[float] = option("also save a sheet of these strengths", [])
    gif: int = option("also save an animation of so many frames", 0, ge=0, le=200)
    batch: int = option("edits that are made together", 8, ge=1, le=256)
    generator: str = option("a generator's name or file", "")
    denoiser: str = option("a diffusion model's name or folder", "")
    scorer: str = option("the guiding CLIP", "")
    identity: str = option("a face network's name or file", "")
    inverter: str = option("an inversion encoder's name or file", "")
    perceptual: str = option("a CLIP whose trunk compares pictures, or an LPIPS trunk's file", "")
    neutral: str = option(
        "what the pictures show, in words; auto: what CLIP sees that contradicts the prompt", AUTO
    )
    loss: list[LossTable] = recipe_only("losses in place of the usual ones", [])

    @property
    def editor(self) -> Editor:
        """The method with its options."""
        editor: Editor = self.chosen
        return editor


#: The options of the verb: ``EditOptions`` with a table for each method.
Options: type[EditOptions] = with_tables(EditOptions)


def losses_of(options: EditOptions) -> list[LossTable]:
    """The [[loss]] tables that the method follows: those given, else its usual ones."""
    usual = options.editor.usual_losses(masked=options.mask is not None)
    return [] if usual is None else options.loss or usual


def check_losses_of(options: EditOptions) -> None:
    """Check that the method follows the losses that are given.

    Raises:
        UsageError: a method without a search, or a loss that looks at something else.
        CannotDo: a loss that needs a model which edits cannot load.
    """
    if options.loss and options.editor.usual_losses(masked=False) is None:
        kinds = {name: EDITORS.load(name)() for name in EDITORS.files()}
        searches = [n for n, each in kinds.items() if each.usual_losses(masked=False) is not None]
        raise UsageError(
            f"--method {options.method} follows no losses; a [[loss]] is given.",
            hint=f"Leave it out, or take a method that searches: {', '.join(searches)}.",
        )
    check_losses(losses_of(options))


def resolve_method(options: EditOptions, kit: Container[str]) -> EditOptions:
    """The options with the method that ``auto`` stands for.

    That is ``delta`` where one is named, or ``kit`` has that role, for its own generator and CLIP,
    and no losses and no options of a search are given; else ``optimise``.
    """
    if options.method != AUTO:
        return options
    delta, search = (getattr(options, name) or EDITORS.load(name)() for name in EditOptions.choice)
    own = options.generator or options.scorer
    mapped = delta.delta or (not own and "delta" in kit)
    fields = type(search).model_fields
    keys = fields.keys() - type(delta).model_fields.keys()
    changed = any(getattr(search, key) != fields[key].get_default() for key in keys)
    method = "delta" if mapped and not options.loss and not changed else "optimise"
    tables = {"delta": delta, "optimise": search}
    return options.model_copy(
        update={"method": method, **{name: table if name == method else None
                                     for name, table in tables.items()}}
    )  # fmt: skip


def expand_folders(files: Sequence[Path]) -> list[Path]:
    """The files, with the pictures of a folder in the place of the folder.

    Raises:
        UsageError: a folder without pictures.
    """
    parts = (images_in(file) if file.is_dir() else [file] for file in files)
    return [file for part in parts for file in part]
