"""What a recipe will need and where it will write; nothing is loaded."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guided.core.files import numbered, safe_name
from guided.models import Need, chosen_by, needs_of
from guided.models.missing import OPTIONS
from guided.models.placement import check_used
from guided.recipe import Recipe, task_module
from guided.zoo.kits import ROLES, load_kit

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class RunPlan:
    """What a recipe will do: the recipe, the models it needs, the folder it will write."""

    recipe: Recipe
    needs: tuple[Need, ...]
    folder: Path

    @property
    def missing(self) -> tuple[Need, ...]:
        """The models that are not on this computer."""
        return tuple(need for need in self.needs if need.missing)


def plan(recipe: Recipe) -> RunPlan:
    """What running the recipe will need and write; nothing is loaded.

    A verb needs the roles its module lists in ``NEEDS`` and those its options are named after, or
    those its ``needs(options)`` gives where that depends on them.  Where it has
    ``settle(options, kit)``, that first makes the choices which depend on the kit.

    Raises:
        UsageError: an unknown kit, or a dtype or offload that no model takes.
        CannotDo: a model made for another role.
    """
    needs = needs_of_recipe(recipe, whole=True)
    check_placement(recipe, needs)
    return RunPlan(recipe, tuple(needs), folder_of(recipe))


def needs_of_recipe(recipe: Recipe, *, whole: bool = False) -> list[Need]:
    """The models that running the recipe will need; ``whole``: compared with their cards.

    Raises:
        UsageError: an unknown kit, or a text that can be no model's name.
        CannotDo: a model made for another role.
    """
    module, options, kit = task_module(recipe.task), recipe.options, kit_of(recipe)
    if hasattr(module, "settle"):
        options = module.settle(options, kit)
    chosen = chosen_by(options)
    if hasattr(module, "needs"):
        roles = module.needs(options)
    else:
        named = [role for role in ROLES if OPTIONS.get(role, role) in type(options).model_fields]
        roles = [*getattr(module, "NEEDS", ()), *named]
    return needs_of(roles, chosen, kit, whole=whole)


def check_placement(recipe: Recipe, needs: Sequence[Need]) -> None:
    """Refuse a dtype or offload of a recipe that none of the models it needs takes.

    Raises:
        UsageError: it would be without effect.
    """
    if recipe.task == "demo":
        return  # its parts load what is here
    own = "precision" in type(recipe.options).model_fields
    roles = {need.role for need in needs}
    check_used(recipe.task, roles, recipe.dtype, recipe.offload, precision=own)


def kit_of(recipe: Recipe) -> Mapping[str, str]:
    """The model names of the recipe's kit by role.

    Raises:
        UsageError: an unknown kit.
    """
    kit: Mapping[str, str] = load_kit(recipe.kit)
    return kit


def _slug(recipe: Recipe) -> str:
    """A few words that tell runs apart: the prompt, the text, or the kit."""
    for key in ("prompt", "prompts", "text", "texts", "query", "objective"):
        value = getattr(recipe.options, key, None)
        if isinstance(value, (list, tuple)) and value:
            value = value[0]
        if isinstance(value, str) and value:
            return safe_name(value)
    return safe_name(recipe.kit)


def folder_of(recipe: Recipe) -> Path:
    """Where a run would be saved now: --out, or a folder under outputs/ that is not there yet."""
    wanted = wanted_folder(recipe)
    if recipe.out is not None:
        return wanted
    return next(folder for folder in numbered(wanted) if not folder.exists())


def wanted_folder(recipe: Recipe) -> Path:
    """--out, or the name of a folder under outputs/, which another run may have."""
    if recipe.out is not None:
        return Path(recipe.out).expanduser().absolute()
    day = datetime.date.today().isoformat()
    name = f"{day}-{recipe.task}-{_slug(recipe)}-s{recipe.seed}"
    return (OUTPUTS / name).absolute()
