"""Train a model from a training recipe; an interrupted training goes on where it was."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import model_validator

from guided.errors import RecipeError
from guided.tasks.base import Steps, TaskOptions, Workbench, argument, option, recipe_only
from guided.training.settings import TrainingSettings

#: Keys that a recipe has for every verb; ``train FILE`` takes them from the command line.
_COMMON = frozenset({"task", "about", "kit", "out", "online", "expect", "device", "seed"})


class Options(TrainingSettings, TaskOptions):
    """The recipe keys of ``train``: those of a training recipe.

    A file given as ``recipe`` is replaced by its keys, over which keys given beside it go; so what
    is kept of a run does not need the file any more.
    """

    recipe: Path | None = argument("training recipe, a TOML file", None)
    data: Path | None = option("folder of your own data; left out: the drawn world", None)
    start: Path | None = option("weights to start from, with a fresh optimiser", None, name="from")
    recipe_seed: int | None = recipe_only("the seed that the recipe file named", None)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given.get("recipe"):
            return given
        own = {key: value for key, value in given.items() if key != "recipe"}
        table = _table(Path(given["recipe"]))
        seed = {"recipe_seed": table["seed"]} if "seed" in table else {}
        settings = {**table.get("settings", {}), **own.get("settings", {})}
        kept = {key: value for key, value in table.items() if key not in _COMMON}
        return {**seed, **kept, **own, "settings": settings}


def _table(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(
            f"Cannot read the training recipe {file}: {error}.",
            hint="Shipped ones: guided list recipes.",
        ) from error
    if table.get("task", "train") != "train":
        raise RecipeError(
            f"{file} is a recipe for {table['task']!r}, not for train.",
            hint=f"Run it with: guided run {file}",
        )
    return table


def run(options: Options, bench: Workbench) -> Steps:
    """Train, and give the weights, their card, the table of losses and the curve as files.

    The seed is the run's, or the recipe file's where the run names none.

    Raises:
        RecipeError: an unknown objective, keys that do not fit it, or no end of the training.
        CannotDo: another training has this name already.
    """
    from guided.training.fit import fit

    own = set(TrainingSettings.model_fields)
    keys = {key: value for key, value in options.model_dump().items() if key in own}
    seed = bench.seed or options.recipe_seed or 0
    result = yield from fit({**keys, "seed": seed, "device": bench.device_name})
    return result
