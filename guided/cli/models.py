"""``guided models``: list, add, get and check model files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def _shown(function: Function) -> Function:
    """Add ``--json`` and ``--debug`` to a command."""
    function = click.option("--debug", is_flag=True, help="show where a failure happened")(function)
    return click.option("--json", "as_json", is_flag=True, help="print one JSON object")(function)


def _print(answer: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    click.echo(json.dumps(answer, ensure_ascii=False) if as_json else "\n".join(lines))


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
    from guided.zoo.finding import catalogue, serves

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
    lines = [
        f"{row['name']:<28} {row['role']:<13} {row['place']:<8} "
        f"{_size(row['size'], row['size_about']):>18}  {row['licence']}"
        for row in rows
    ]
    _print({"models": rows}, lines or ["No model."], as_json=as_json)


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
@click.argument("name")
@click.option("--online", is_flag=True, help="allow the download")
@_shown
def get_model(name: str, online: bool, as_json: bool, debug: bool) -> None:
    """Make sure that the public model NAME is here; download it only with --online."""
    from guided.zoo.finding import find

    found = find(name, online=online)
    answer = {"name": name, "place": found.place, "file": str(found.path.absolute())}
    _print(answer, [f"{name}: {found.path} ({found.place})"], as_json=as_json)


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
    _print({"results": results, "damaged": damaged}, lines or ["No model."], as_json=as_json)
    if damaged:
        context.exit(1)
