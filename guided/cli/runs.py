"""Commands about recipes and runs: run, check, rerun, show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from guided import studio
from guided.cli.options import (
    COMMON_KEYS,
    common_parameters,
    force_parameter,
    set_parameter,
    trust_parameter,
    watching_parameters,
)
from guided.cli.watch import follow, say, speak_logs, watch
from guided.core import toml
from guided.core.text import encodable, one_line
from guided.recipe import Recipe


def _loaded(values: dict[str, Any]) -> Recipe:
    """The recipe of a file or name with what the command line says on top, built once."""
    given, overrides = values["recipe"], values["overrides"]
    common = {key: values[key] for key in COMMON_KEYS if values.get(key) is not None}
    source = Path(given)
    if not (source.is_dir() or source.suffix.lower() == ".png"):
        return Recipe.load(given, overrides, common)
    carried = _agreed(studio.load_run(source), trust=values["trust"])
    if not overrides:
        return carried.with_(**common)
    return Recipe.of({**toml.overridden(carried.data(), overrides), **common}, given)


def _agreed(past: studio.RunRecord, *, trust: bool) -> Recipe:
    """The recipe of a past run, after a question where it asks for more than it may have.

    Raises:
        UsageError: it asks for more, and there is nobody to ask.
        click.Abort: the answer was no.
    """
    if past.consent_requests and not trust and sys.stdin.isatty() and sys.stderr.isatty():
        click.echo(past.told(), err=True)
        trust = click.confirm("Do all of this?", default=False, abort=True, err=True)
    return past.trusted(trust=trust)


def _run(**values: Any) -> int:
    """Run a recipe.

    That of a TOML file, a recipe of that name (guided list recipes), or the one in a picture or run
    folder; what the command line says goes before what the recipe says. A TOML file that you name
    is yours; for a picture or a run folder the same holds as for guided rerun.
    """
    recipe = _loaded(values)
    if values["print_recipe"]:
        click.echo(recipe.dumps().encode(), nl=False)
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


def _rerun(**values: Any) -> int:
    """Repeat a run, pixel for pixel.

    From its folder or from one of its pictures: the same recipe, seed and number of threads. With
    the same versions and weights the pixels are identical; a model that has changed since is named.
    The result goes into a new folder.

    A run of your own is repeated as it was. A picture or folder made elsewhere (or by a version
    that did not sign recipes) is data: unless you say yes or --trust its recipe trains nothing,
    writes nothing outside the new folder, and takes known models and files beside it only.
    """
    speak_logs()
    past = studio.load_run(values["run"])
    _agreed(past, trust=values["trust"])
    run = studio.rerun(past, out=values["out"], force=bool(values["force"]), trust=True)
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
    setting = told.get("setting") or told.get("run", {}).get("setting") or {}
    placement = {key: setting[key] for key in ("dtype", "offload") if key in setting}
    if placement not in ({}, {"dtype": "fp32"}):
        click.echo(one_line("# " + ", ".join(f"{k}: {v}" for k, v in placement.items())))
    for number, ancestor in enumerate(told.get("lineage", ()), 1):
        click.echo(one_line(f"# {number}. {ancestor['name']}"))
        if not ancestor["recipe"]:
            click.echo("# (came from elsewhere)")
        click.echo(encodable(ancestor["recipe"]).encode())
    if "lineage" not in told:
        click.echo(encodable(told["recipe"]).encode(), nl=False)
    return 0


def _command(name: str, callback: Any, *parameters: click.Parameter) -> click.Command:
    return click.Command(name, callback=callback, help=callback.__doc__, params=list(parameters))


run = _command(
    "run",
    _run,
    click.Argument(["recipe"], metavar="RECIPE|NAME|RUN|PNG"),
    *common_parameters(),
    trust_parameter(),
)
check = _command(
    "check",
    _check,
    click.Argument(["recipe"], metavar="RECIPE|NAME"),
    *set_parameter(),
    *watching_parameters(),
)
rerun = _command(
    "rerun",
    _rerun,
    click.Argument(["run"], metavar="RUN|PNG"),
    click.Option(["--out"], default=None, metavar="DIR", help="folder to write into"),
    force_parameter(),
    trust_parameter(),
    *watching_parameters(),
)
show = _command("show", _show, click.Argument(["picture"], metavar="PNG"), *watching_parameters())
