"""Change pictures by words, until CLIP agrees with them.

By itself the CLIP embedding of a picture is turned towards the prompt and drawn again by a
diffusion model (text-diff), at the least strength at which CLIP sees what was asked for; where it
never does, directional is tried too, and the answer says so.  The methods sdedit, inpaint, ddim,
ddpm and p2p also draw by diffusion.

The others (delta, refine, optimise, direction, mapper) find the picture's latent in a generator, or
are given it, and move that.  Faces in photographs are cut out by four landmarks, edited, and put
back; without pictures, random portraits are edited; the change is saved beside the picture:
another strength, or a further edit, starts from it.  The options of a method stand under its name
in recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guided.core.loss_tables import loss_roles
from guided.core.run import Result, renumber
from guided.editing import EDITORS
from guided.editing.latent import LatentEditor
from guided.errors import UsageError
from guided.tasks._edit_inputs import needs_inversion
from guided.tasks._edit_options import (
    EditOptions,
    Options,
    check_losses_of,
    expand_folders,
    losses_of,
    resolve_method,
    second_methods,
)
from guided.tasks.base import Steps, TaskContext, warn_idle

__all__ = ["Options", "check", "needs", "run"]


settle = resolve_method


def needs(options: EditOptions) -> tuple[str, ...]:
    """The roles this verb loads a model for, by options that are settled."""
    if not EDITORS.is_at_hand(options.method):
        return ()
    options = resolve_method(options, {})
    editor = options.editor
    own = [role for role in editor.roles() if options.prompt or role != "delta"]
    roles = own[:1]
    if options.prompt or options.strength == "auto":
        roles.append("scorer")
    if isinstance(editor, LatentEditor) and editor.invert != "optimise":
        roles += ["inverter"] if any(map(needs_inversion, options.images)) else []
    losses = loss_roles(losses_of(options))
    roles += [role for role in losses if role != "scorer"]
    return tuple(dict.fromkeys([*roles, *own]))


def check(options: EditOptions, ctx: TaskContext) -> None:
    """Refuse options that the method they settle on cannot work with."""
    if not EDITORS.is_at_hand(options.method):
        return
    options = resolve_method(options, ctx.kit)
    check_losses_of(options)
    editor = options.editor
    if isinstance(editor, LatentEditor):
        _check_models(options, editor)
    else:
        _check_whole_images(options)
    if editor.needs_mask and options.mask is None:
        raise UsageError(
            f"--method {options.method} needs --mask FILE, white where the picture may change.",
            hint="Without one take --method sdedit.",
        )
    if not options.prompt and editor.needs_prompt:
        saved = isinstance(editor, LatentEditor) and options.images
        if saved and all(p.suffix.lower() in (".png", ".safetensors") for p in options.images):
            return
        words = [p.name for p in options.images if not p.suffix and not p.exists()]
        raise UsageError(
            "What should change?",
            hint=f"Give --prompt {words[0] if words else 'purple hair'!r}; without one, saved "
            "edits are drawn again.",
        )


def _check_models(options: EditOptions, editor: LatentEditor) -> None:
    """Refuse a method whose own model is not named, or is the kit's for another generator."""
    own = options.generator or options.scorer
    named = {"mapper": "mapper", "delta": "delta", "refine": "delta", "direction": "statistics"}
    role = named.get(options.method, "")
    if role and not getattr(editor, role) and (own or role == "mapper"):
        raise UsageError(
            f"--method {options.method} needs --{role} FILE.",
            hint="The kit's own belongs to the kit's generator and CLIP." if own else "",
        )


def _check_whole_images(options: EditOptions) -> None:
    """Refuse what only changes of latents of faces can do."""
    name = f"--method {options.method}"
    if not options.images:
        raise UsageError(f"{name} changes pictures; none was given.", hint="Name a picture file.")
    if options.landmarks:
        raise UsageError(f"{name} takes the whole picture, not a face within it.",
                         hint="Leave --landmarks out, or cut the face out.")  # fmt: skip
    if options.gif:
        raise UsageError(f"{name} finds no change that could be animated.",
                         hint="Take --sweep with some strengths, or --method delta.")  # fmt: skip


def _warn_idle(options: EditOptions) -> None:
    """Name the options that the method has no use for."""
    whole = ("generator", "inverter", "face", "faces", "paste")
    draws, name = options.editor.draws, f"--method {options.method}"
    if draws == "denoiser":
        warn_idle(options, whole, f"{name} draws whole images by a diffusion model")
    elif draws == "generator":
        warn_idle(options, ("denoiser",), f"{name} draws by a GAN")
    if options.images:
        warn_idle(options, ("count",), "it is for random portraits, and images are given")


def run(options: EditOptions, ctx: TaskContext) -> Steps:
    """Edit every picture by every prompt, in batches, yielding the Steps of the method."""
    from guided.tasks._edit_job import EditJob
    from guided.tasks._edit_outputs import means
    from guided.tasks._ledger import Ledger, source_of

    further = second_methods(options, ctx.kit)
    options = resolve_method(options, ctx.kit)
    options = options.model_copy(update={"images": expand_folders(options.images)})
    check(options, ctx)
    _warn_idle(options)
    job = EditJob.of(options, ctx, further)
    subjects = yield from job.open_subjects()
    if not subjects:
        return Result(job.answer([]))
    results: list[dict[str, Any]] = []
    pairs = job.pairs(subjects)
    ledger = job.outputs.ledger = Ledger.open(ctx, len(pairs))
    batch = 1 if job.editor.size(job.models) is None else options.batch
    for first in range(0, len(pairs), batch):
        chunk = pairs[first : first + batch]
        names = [str(first + i) for i in range(len(chunk))]
        files = [subjects[i].file for i, _ in chunk]
        sources = {
            name: source_of(file, options.mask) for name, file in zip(names, files, strict=True)
        }
        entries = ledger.finished(names, sources)
        if entries is None:
            edits = yield from renumber(
                job.edited(subjects, chunk), first // batch, -(-len(pairs) // batch)
            )
            entries = ledger.add(names, edits, sources=sources)
        else:
            job.outputs.taken.update(Path(entry["image"].name).stem for entry in entries)
        results += entries
    return Result(job.answer(results), files=ledger.files, scores=means(results))
