"""Train a model from a training recipe; an interrupted training goes on where it was."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guided.core import unfinished
from guided.core.reading import read_toml
from guided.core.toml import merged
from guided.errors import RecipeError
from guided.tasks.base import Steps, TaskContext, TaskOptions, argument, option
from guided.training.settings import TrainingSettings
from guided.zoo.recipes import find_recipe

logger = logging.getLogger(__name__)

#: Keys that a recipe has for every verb; ``train FILE`` takes them from the command line.
_COMMON = frozenset({"task", "about", "kit", "out", "online", "expect", "device", "force"})


class Options(TrainingSettings, TaskOptions):
    """The recipe keys of ``train``: those of a training recipe.

    A file given as ``recipe`` is replaced by its keys and its seed, over which keys given beside it
    go, at every depth; so what is kept of a run does not need the file any more.
    """

    recipe: Path | None = argument("training recipe, a TOML file", None)
    data: Path | None = option("folder of your own data; left out: a world's own", None)
    start: Path | None = option("weights to start from, with a fresh optimiser", None, name="from")

    @classmethod
    def expanded(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The recipe file's keys with those beside it merged over them, in the file's place."""
        own = dict(data)
        if own.get("recipe") and isinstance(own["recipe"], (str, Path)):
            table = _table(Path(own.pop("recipe")))
            if own.get("data"):
                table = _for_a_folder(table, own)
            return merged({k: v for k, v in table.items() if k not in _COMMON}, own)
        if "recipe_seed" in own:  # what releases up to 0.1.0 kept of a recipe file's seed
            own["seed"] = own.get("seed") or own.pop("recipe_seed")
            own.pop("recipe_seed", None)
        return own


def _for_a_folder(table: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe file's table without what only a world can fulfil, which the log names; keys given
    beside the file stay, to be judged by the objective."""
    from guided.training.registry import world_keys

    settings, objective = table.get("settings"), own.get("objective") or table.get("objective")
    if not isinstance(settings, dict) or not isinstance(objective, str):
        return dict(table)
    left = [key for key in settings if key in world_keys(objective)]
    if named := [key for key in left if settings[key]]:
        logger.warning(
            "A folder of images and captions has nothing for these settings of the recipe, which "
            "are a world's; they are left out: %s.", ", ".join(named),
        )  # fmt: skip
    return {**table, "settings": {k: v for k, v in settings.items() if k not in left}}


def _table(file: Path) -> dict[str, Any]:
    try:
        table = read_toml(find_recipe(file, "train"))
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


def run(options: Options, ctx: TaskContext) -> Steps:
    """Train, and give the weights, their card, the table of losses and the curve as files.

    Raises:
        RecipeError: an unknown objective, keys that do not fit it, or no end of the training.
        UsageError: a data folder that is not there, or that it cannot learn from.
        CannotDo: another training has this name already, or began with other data.
    """
    from guided.training.captioned_images import check_folder

    if options.data is not None:
        check_folder(options.data, options.objective, options.encoding)
    from guided.training.fit import fit

    own = set(TrainingSettings.model_fields)
    keys = {key: value for key, value in options.model_dump().items() if key in own}
    result = yield from fit({**keys, "seed": ctx.seed, "device": ctx.device_name})
    unfinished.check()  # the signal that ended a training early, now that its checkpoint is there
    return result
