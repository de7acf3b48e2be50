"""Get models that are not here: those of some names, or of a kit, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guided.errors import GuidedError, UsageError
from guided.models.missing import Need, check_here
from guided.models.references import Located, Reference
from guided.zoo.architectures import architectures
from guided.zoo.kits import load_kit
from guided.zoo.resolve import find, known


def roles_of(names: Sequence[str], kit: str | None = None) -> dict[str, str]:
    """What to get: names with the role each is for ("": any), and those of a kit.

    Raises:
        UsageError: nothing to get, or an unknown kit.
    """
    if not names and kit is None:
        raise UsageError("Which model?", hint="Give a name (see guided models list), or --kit KIT.")
    wanted = {name: "scorer" if _is_tag(name) else "" for name in names}
    if kit is not None:
        wanted |= {name: role for role, name in load_kit(kit).items()}
    return wanted


def _is_tag(name: str) -> bool:
    return not known(name) and name.partition("/")[0] in architectures()


def get(wanted: Mapping[str, str], *, online: bool) -> Iterator[dict[str, Any]]:
    """Name, place and file of each model, fetched with ``online`` where it is not here.

    All that can be got is got, before what cannot is told.

    Raises:
        MissingWeights: models that are not here and were not fetched.
    """
    lacking: list[Need] = []
    for name, role in wanted.items():
        reference = Reference.parse(name, role)
        try:
            yield {"name": name, **_row(reference, online=online)}
        except GuidedError as error:
            if len(wanted) == 1:
                raise
            lacking.append(Need(role or "model", name, error=error, reference=reference))
    check_here(lacking)


def _row(reference: Reference, *, online: bool) -> dict[str, str]:
    """Where a model is and its main file, whole."""
    if reference.kind == "card":
        found = find(reference.text, online=online)
        return {"place": found.place, "file": str(found.path.absolute())}
    if reference.kind == "open_clip" and online:
        from guided.scorers.clip_files import find as find_clip

        where = Located(find_clip(reference.text, online=True).weights)
    else:
        where = reference.locate(online=online, whole=True)
    place = "hub" if reference.kind in ("hub", "open_clip") else "yours"
    return {"place": place, "file": str(where.main.absolute())}
