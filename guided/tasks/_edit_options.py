"""The recipe keys of ``edit``: those of every method, and a table for the keys of each."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

from guided.core.listing import images_in
from guided.core.long_texts import LONG_TEXT_HELP, LongText
from guided.core.loss_tables import LossTable, check_losses
from guided.editing import ALIASES, EDITORS
from guided.editing.base import Editor
from guided.errors import UsageError
from guided.tasks._edit_inputs import Faces
from guided.tasks._method_tables import AUTO, MethodOptions, table_of, with_tables
from guided.tasks.base import argument, option, recipe_only


class EditOptions(MethodOptions):
    """The recipe keys of ``edit``."""

    registry = EDITORS
    renamed = ALIASES
    choice = ("text-diff", "delta", "optimise")

    images: list[Path] = argument(
        "pictures, folders of them or saved latents; none edits random portraits", []
    )
    prompt: list[str] = option("what to change to, as 'TEXT' or 'TEXT | TEXT::WEIGHT'", [])
    method: str = option(
        "how to find the change (guided list editors); auto: text-diff where the kit can, and "
        "directional where CLIP does not agree with it; else delta or optimise", AUTO,
    )  # fmt: skip
    fast: bool = option("without a method: the quickest one, and no second try", False)
    strength: float | Literal["auto"] | None = option(
        "0 is the original, 1 the edit, negative the opposite; auto, which the method auto takes, "
        "the least that CLIP agrees with", None,
    )  # fmt: skip
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
    long_text: LongText = option(LONG_TEXT_HELP, "cut")
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
    """The options with the method and the strength that ``auto`` stands for.

    That is ``text-diff`` where ``kit`` draws from embeddings of pictures (it has a prior), a whole
    picture and words are given, and nothing that only changes of latents or a search can do; else
    ``delta`` where one is named, or ``kit`` has that role, for its own generator and CLIP, and no
    losses and no options of a search are given; else ``optimise``.
    """
    if options.method != AUTO:
        return options if options.strength is not None else _changed(options, strength=1.0)
    turn, delta, search = (
        getattr(options, table_of(name)) or EDITORS.load(name)() for name in EditOptions.choice
    )
    searching = bool(options.loss) or _says(search, beside=(turn, delta))
    own = options.generator or options.scorer
    mapped = delta.delta or (not own and "delta" in kit)
    if not searching and not _of_latents(options) and "denoiser" in kit and "prior" in kit:
        method = "text-diff"
    else:
        searching = searching or _says(search, beside=(delta,))
        method = "delta" if mapped and not searching else "optimise"
    auto = method == "text-diff" and options.strength is None
    tables = {
        table_of(name): table if name == method else None
        for name, table in zip(EditOptions.choice, (turn, delta, search), strict=True)
    }
    strength = options.strength if options.strength is not None else 1.0
    return _changed(options, method=method, strength="auto" if auto else strength, **tables)


def second_methods(options: EditOptions, kit: Container[str]) -> tuple[str, ...]:
    """The methods to try where CLIP does not agree with the one that ``auto`` took."""
    chosen = resolve_method(options, kit)
    again = options.method == AUTO and chosen.method == "text-diff" and chosen.strength == "auto"
    return ("directional",) if again and "latent_scorer" in kit else ()


def _of_latents(options: EditOptions) -> bool:
    """Whether something is asked for that only a generator's latents can do, or the quick way."""
    named = options.generator or options.inverter or options.denoiser or options.scorer
    latent = any(image.suffix.lower() == ".safetensors" for image in options.images)
    face = options.landmarks or options.face is not None or options.faces != "auto"
    return bool(
        options.fast or options.gif or named or latent or face
        or not options.images or not options.prompt
    )  # fmt: skip


def _says(editor: Editor, beside: Sequence[Editor]) -> bool:
    """Whether a method's options, but for those that others have too, say anything."""
    fields = type(editor).model_fields
    shared = {key for other in beside for key in type(other).model_fields}
    return any(getattr(editor, key) != fields[key].get_default() for key in fields.keys() - shared)


def _changed(options: EditOptions, **changes: object) -> EditOptions:
    return options.model_copy(update=changes)


def expand_folders(files: Sequence[Path]) -> list[Path]:
    """The files, with the pictures of a folder in the place of the folder.

    Raises:
        UsageError: a folder without pictures.
    """
    parts = (images_in(file) if file.is_dir() else [file] for file in files)
    return [file for part in parts for file in part]
