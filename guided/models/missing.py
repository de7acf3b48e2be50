"""What a run needs and does not have: every model at once, with sizes, licences and one command.

Looked for before anything heavy is imported; no weight file is read, unless it is to be whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from guided.core.reading import read_json
from guided.errors import CorruptWeights, GuidedError, MissingWeights
from guided.models.references import Located, Reference, unknown
from guided.zoo.cards import Card
from guided.zoo.kits import ROLES
from guided.zoo.resolve import public_card

#: Options that are not called after the role of the model they name.
OPTIONS = {"directions": "statistics", "text_gan": "gan"}
#: Files in which a model names others that it was trained with, and under which keys.
_PARTS = {"denoiser": ("parts.json", ("vae", "scorer")), "text_gan": ("config.json", ("scorer",))}
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True)
class Need:
    """A model that a run needs: its role, its name, and its file, or the error that it is not here.

    ``card`` is that of a public model, whether its files are here or not.
    """

    role: str
    name: str
    path: Path | None = None
    error: GuidedError | None = None
    reference: Reference | None = None

    @property
    def missing(self) -> str:
        """What is missing, as a sentence; empty for a model that is here."""
        return "" if self.error is None else str(self.error)

    @property
    def card(self) -> Card | None:
        """The card of a public model that is not here."""
        public = self.reference is not None and self.reference.kind == "card"
        return public_card(self.name) if public else None

    @property
    def can_be_fetched(self) -> bool:
        """Whether ``guided models get`` knows where its files are."""
        if not isinstance(self.error, MissingWeights) or self.reference is None:
            return False
        if self.reference.kind == "card":
            return self.card is not None and bool(self.card.repository)
        return self.reference.kind in ("hub", "open_clip")

    @property
    def size(self) -> float:
        """The size of its files in bytes; 0 where it is not known."""
        if self.card is None:
            return 0.0
        about = re.search(r"([\d.]+) ?(kB|MB|GB)", self.card.size_about)
        return float(self.card.size or (float(about[1]) * _UNITS[about[2]] if about else 0))

    def line(self) -> str:
        """Its role, name, files, size, licence and source in one line."""
        if self.card is None:
            message = self.error.message if self.error is not None else ""
            return f"{self.role} {self.name}: {message}"
        card, more = self.card, len(self.card.companions)
        files = f"{card.file} and {more} more" if more else card.file
        return (
            f"{self.role} {self.name}: {files}, {shown(self.size)}, licence: {card.licence}, "
            f"from {card.source}"
        )

    def by_hand(self) -> str:
        """What to do where no command fetches it; empty where one does."""
        if self.error is None or self.can_be_fetched:
            return ""
        if self.card is None:
            return f"{self.role} {self.name}: {self.error.hint}" if self.error.hint else ""
        return (
            f"{self.role} {self.name}: download {self.card.file} from {self.card.source}, then "
            f"run: guided models add {self.card.file} --name {self.name}"
        )


def shown(size: float) -> str:
    """A size for people."""
    if not size:
        return "size not known"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def chosen_by(options: Any) -> dict[str, str]:
    """The models that a verb's options name by role, the tables in them included."""
    keys = {role: OPTIONS.get(role, role) for role in (*ROLES, "mapper")}
    tables = [getattr(options, name) for name in type(options).model_fields]
    chosen: dict[str, str] = {}
    for each in (options, *(table for table in tables if isinstance(table, BaseModel))):
        values = {role: getattr(each, key, None) for role, key in keys.items()}
        chosen |= {
            role: value for role, value in values.items() if isinstance(value, str) and value
        }
    return chosen


def needs_of(
    roles: Iterable[str],
    chosen: Mapping[str, str],
    kit: Mapping[str, str],
    *,
    whole: bool = False,
) -> list[Need]:
    """The models of some roles, by option, else by kit, and those that they name in turn.

    Roles that nobody names are passed over.  ``whole``: files are also compared with their cards.

    Raises:
        CannotDo: a model made for another role.
        UsageError: a text that can be no model's name.
    """
    names = {role: chosen.get(role) or kit.get(role, "") for role in roles}
    found: dict[tuple[str, str], Need] = {}
    queue = sorted(
        (item for item in names.items() if item[1]), key=lambda item: item[0] == "scorer"
    )
    while queue:
        role, name = queue.pop(0)
        if (role, name) in found:
            continue
        reference = Reference.parse(name, role)
        try:
            where = None if reference.kind == "object" else reference.locate(whole=whole)
            found[role, name] = Need(role, name, where.main if where else None, None, reference)
        except (MissingWeights, CorruptWeights) as error:
            found[role, name] = Need(role, name, None, error, reference)
            continue
        parts = {} if where is None else parts_of(role, where)
        if role == "text_gan" and "scorer" in parts:  # it listens to its own CLIP, not to the kit's
            parts["scorer"] = chosen.get("scorer") or parts["scorer"]
            queue = [item for item in queue if item[0] != "scorer"]
        queue += parts.items()
    order = list(names)
    return sorted(found.values(), key=lambda n: order.index(n.role) if n.role in order else 99)


def parts_of(role: str, where: Located) -> dict[str, str]:
    """The models that one of that role was trained with, by role, as its folder names them."""
    file, keys = _PARTS.get(role, ("", ()))
    if not file or not (where.folder / file).is_file():
        return {}
    try:
        table = read_json(where.folder / file)
    except (OSError, ValueError):
        return {}  # said when it is loaded
    if not isinstance(table, dict):
        return {}
    return {key: table[key] for key in keys if isinstance(table.get(key), str) and table[key]}


def check_here(needs: Sequence[Need], *, online: bool = False) -> None:
    """Accept models that are all here, or that can be fetched where that is allowed (``online``).

    Raises:
        MissingWeights: what is missing: all of it, with one command that gets what can be got.
        GuidedError: the error of a model that is the only one, or of a name that nothing has.
    """
    lacking = [need for need in needs if need.error is not None]
    lacking = [need for need in lacking if not (online and need.can_be_fetched)]
    for need in lacking:
        if need.reference is not None and unknown(need.reference) is not None:
            _raise(need)
    unique = list({need.name: need for need in reversed(lacking)}.values())[::-1]
    if len(unique) == 1:
        _raise(unique[0])
    if unique:
        raise MissingWeights(
            f"{len(unique)} models that are needed are not on this computer:",
            details=[*(need.line() for need in unique), *_total(unique)],
            hint=_next_step(unique),
        )


def _raise(need: Need) -> None:
    assert need.error is not None
    raise need.error


def _total(needs: Sequence[Need]) -> Iterator[str]:
    known = sum(need.size for need in needs)
    open_ones = sum(1 for need in needs if not need.size)
    if known:
        rest = f", and {open_ones} of a size that is not known" if open_ones else ""
        yield f"Together about {shown(known)}{rest}."


def _next_step(needs: Sequence[Need]) -> str:
    names = " ".join(need.name for need in needs if need.can_be_fetched)
    hands = [text for need in needs if (text := need.by_hand())]
    command = f"Run: guided models get {names} --online" if names else ""
    return ". ".join(
        part for part in (command, *([f"By hand: {'; '.join(hands)}"] if hands else [])) if part
    )
