"""A command for every verb, made of the verb's Options."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from guided.cli.options import COMMON_KEYS, VerbCommand, common_parameters, given, parameters
from guided.cli.watch import speak_logs, watch
from guided.core import toml
from guided.errors import UsageError
from guided.recipe import Recipe, task_module


def recipe_of(task: str, values: dict[str, Any]) -> Recipe:
    """The recipe a command line means.

    Raises:
        RecipeError: values that do not fit the verb.
        UsageError: a recipe's file where the verb takes other files.
    """
    for value in values.values():
        for each in value if isinstance(value, (list, tuple)) else ():
            if str(each).endswith(".toml") and Path(each).is_file():
                raise UsageError(
                    f"{each} is a recipe, not something to {task}.",
                    hint=f"Run it with: guided run {each}",
                )
    said = {key: values[key] for key in COMMON_KEYS if values.get(key) is not None}
    options = task_module(task).Options
    data = options.expanded({"task": task, **said, **given(options, values)})
    return Recipe.of(toml.overridden(data, values["overrides"]), task)


def command_of(task: str) -> click.Command:
    """The command of a verb: it builds a recipe and runs it, or prints it."""
    module = task_module(task)

    def call(**values: Any) -> int:
        speak_logs()  # of options that were renamed, too
        recipe = recipe_of(task, values)
        if values["print_recipe"]:
            click.echo(recipe.dumps().encode(), nl=False)
            return 0
        return watch(recipe, as_json=values["as_json"], quiet=values["quiet"])

    return VerbCommand(
        task,
        callback=call,
        params=[*parameters(module.Options), *common_parameters()],
        help=inspect.cleandoc(module.__doc__ or ""),
    )
