"""``guided models``: list, add, get and check model files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from guided.cli.console import line, table
from guided.core.text import json_text

Function = TypeVar("Function", bound=Callable[..., Any])


def _shown(function: Function) -> Function:
    """Add ``--json`` and ``--debug`` to a command."""
    function = click.option("--debug", is_flag=True, help="show where a failure happened")(function)
    return click.option("--json", "as_json", is_flag=True, help="print one JSON object")(function)


def _print(answer: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(answer).encode())
    else:
        for each in lines:
            line(each)


def _size(size: int | None, about: str) -> str:
    return f"{size / 1e6:.1f} MB" if size else about or "?"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """List, add, get and check model files."""


@models.command("list")
@click.option("--role", default=None, help="only models for this role")
@_shown
def list_models(role: str | None, as_json: bool, debug: bool) -> None:
    """Show every known model and where its files are."""
    from guided.zoo.resolve import catalogue, serves

    rows = []
    for card, found in catalogue():
        if role is None or serves(card, role):
            place = found.place if found else "missing"
            path = str(found.path.absolute()) if found else None
            row: dict[str, Any] = {
                "name": card.name,
                "role": card.role,
                "kind": card.kind,
                "place": place,
            }
            row |= {"place": place, "file": path, "size": card.size, "size_about": card.size_about}
            row |= {"licence": card.licence, "source": card.source}
            rows.append(row)
    if as_json:
        click.echo(json_text({"models": rows}).encode())
        return
    lines = [
        f"{row['name']:<28} {row['role']:<13} {row['place']:<8} "
        f"{_size(row['size'], row['size_about']):>18}  {row['licence']}"
        for row in rows
    ]
    shown = [
        {key: str(row[key]) for key in ("name", "role", "place")}
        | {"size": _size(row["size"], row["size_about"]), "licence": row["licence"]}
        for row in rows
    ]
    table(shown, lines or ["No model."], prose=("licence",), numbers=("size",))


@models.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="the model's name [default: from the file]")
@_shown
def add_model(file: Path, name: str | None, as_json: bool, debug: bool) -> None:
    """Check a weight FILE and copy it into your model folder."""
    from guided.zoo.add import add

    found = add(file, name)
    answer = {"name": found.card.name, "role": found.card.role, "file": str(found.path.absolute())}
    answer["sha256"] = found.sha256
    _print(answer, [f"{found.card.name}: {found.path}"], as_json=as_json)


@models.command("get")
@click.argument("names", nargs=-1)
@click.option("--kit", default=None, help="all models of this kit")
@click.option("--online", is_flag=True, help="allow the download")
@_shown
def get_models(
    names: tuple[str, ...], kit: str | None, online: bool, as_json: bool, debug: bool
) -> None:
    """Make sure that the models NAMES are here; download them only with --online.

    A name is a public model's, OWNER/NAME in the hub, or ARCHITECTURE/TAG of open_clip.
    """
    from guided.models.getting import get, roles_of

    wanted = roles_of(names, kit)
    if len(wanted) == 1 and kit is None:
        (answer,) = get(wanted, online=online)
    else:
        answer = {"models": list(get(wanted, online=online))}
    rows = answer.get("models", [answer])
    _print(
        answer,
        [f"{row['name']}: {row['file']} ({row['place']})" for row in rows],
        as_json=as_json,
    )


@models.command("check")
@_shown
@click.pass_context
def check_models(context: click.Context, as_json: bool, debug: bool) -> None:
    """Hash every model file that is here again and compare it with its card."""
    from guided.zoo.check import check_all

    results = check_all()
    lines = [
        f"{'damaged' if result['error'] else 'ok':<8} {result['name']:<28} "
        f"{result['error'] or result['place']}"
        for result in results
    ]
    damaged = sum(1 for result in results if result["error"])
    if as_json:
        click.echo(json_text({"results": results, "damaged": damaged}).encode())
    else:
        shown = [
            {"state": "damaged" if result["error"] else "ok", "name": result["name"]}
            | {"found": result["error"] or result["place"]}
            for result in results
        ]
        table(shown, lines or ["No model."], prose=("found",))
    if damaged:
        context.exit(1)
