"""Commands about recipes and runs: run, check, again, show."""

from __future__ import annotations

from typing import Any

import click

from guided import studio
from guided.cli.options import COMMON_KEYS, common_parameters, set_parameter, watching_parameters
from guided.cli.watch import follow, say, speak_logs, watch
from guided.recipe import Recipe


def _loaded(values: dict[str, Any]) -> Recipe:
    """The recipe of a file with what the command line says on top."""
    recipe = Recipe.load(values["recipe"], values["overrides"])
    said = {key: values[key] for key in COMMON_KEYS if values.get(key) is not None}
    return Recipe.of({**recipe.data(), **said}, values["recipe"])


def _run(**values: Any) -> int:
    """Run a recipe.

    What the command line says goes before what the recipe says.
    """
    recipe = _loaded(values)
    if values["print_recipe"]:
        click.echo(recipe.dumps(), nl=False)
        return 0
    return watch(recipe, as_json=values["as_json"], quiet=values["quiet"])


def _check(**values: Any) -> int:
    """Check a recipe without running it.

    Says what is wrong with it, or what it will need and write; the exit status is 1 if a model's
    file is missing.
    """
    plan = studio.plan(Recipe.load(values["recipe"], values["overrides"]))
    models = [
        {
            "role": need.role,
            "name": need.name,
            "file": str(need.path) if need.path else None,
            "missing": need.missing or None,
        }
        for need in plan.needs
    ]
    answer = {
        "recipe": values["recipe"],
        "task": plan.recipe.task,
        "valid": True,
        "folder": str(plan.folder),
        "models": models,
    }
    say(answer, as_json=values["as_json"])
    return 1 if plan.missing else 0


def _again(**values: Any) -> int:
    """Repeat a run, pixel for pixel.

    From its folder or from one of its pictures: the same recipe, seed and number of threads. On the
    same versions the pixels are identical. The result goes into a new folder.
    """
    speak_logs()
    run = studio.again(values["run"], out=values["out"])
    return follow(run, as_json=values["as_json"], quiet=values["quiet"])


def _show(**values: Any) -> int:
    """Show the recipe a picture carries, and all it came from.

    The oldest ancestor comes first.
    """
    speak_logs()
    told = studio.show(values["picture"])
    if values["as_json"]:
        say(told, as_json=True)
        return 0
    for number, ancestor in enumerate(told.get("lineage", ()), 1):
        click.echo(f"# {number}. {ancestor['name']}")
        if not ancestor["recipe"]:
            click.echo("# (came from elsewhere)")
        click.echo(ancestor["recipe"])
    if "lineage" not in told:
        click.echo(told["recipe"], nl=False)
    return 0


def _command(name: str, callback: Any, *parameters: click.Parameter) -> click.Command:
    return click.Command(name, callback=callback, help=callback.__doc__, params=list(parameters))


run = _command("run", _run, click.Argument(["recipe"]), *common_parameters())
check = _command(
    "check", _check, click.Argument(["recipe"]), *set_parameter(), *watching_parameters()
)
again = _command(
    "again",
    _again,
    click.Argument(["run"], metavar="RUN|PNG"),
    click.Option(["--out"], default=None, metavar="DIR", help="folder to write into"),
    *watching_parameters(),
)
show = _command("show", _show, click.Argument(["picture"], metavar="PNG"), *watching_parameters())
