"""Names to files: shipped models, the user's folder, the hub's local cache."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guided.errors import CannotDo, CorruptWeights, MissingWeights, nearest
from guided.zoo.cards import CARD_FILE, NAME, Card, folder_name, read_card
from guided.zoo.checksums import digest, verify
from guided.zoo.folders import PUBLIC, SHIPPED, settle_network, user_folder
from guided.zoo.gate import snapshot_of
from guided.zoo.kits import kit_names, load_kit

Place = Literal["shipped", "yours", "hub"]


@dataclass(frozen=True)
class ResolvedModel:
    """A model that is here: its main file, its card and where it was found."""

    path: Path
    card: Card
    place: Place

    @property
    def folder(self) -> Path:
        """The folder that ``card.file`` and its companions are relative to."""
        return self.path.parents[self.card.file.count("/")]

    @property
    def sha256(self) -> str:
        """The sha256 of the main file."""
        return self.card.sha256 or digest(self.path)


def find(name: str, role: str | None = None, *, online: bool = False) -> ResolvedModel:
    """The model of that name, its files checked against its card.

    Looked for in the shipped models, the user's folder and the hub's local cache, in that order;
    with ``online`` a public model with a hub repository is downloaded when it is in none.

    Raises:
        MissingWeights: not here; the message names the files, their size, source and licence, the
            folder they belong in and the command that puts them there.
        CorruptWeights: here, but damaged.
        CannotDo: a model made for another role.
    """
    settle_network(online=online)
    card = public_card(name) if online else None
    if card is not None and card.repository and _local(name) is None:
        from guided.zoo.hub import download

        download(card)
    found = locate(name, role)
    if found.place == "hub":
        from guided.zoo.hub import check_blobs

        check_blobs(found.folder, found.card)
    verify(found.folder, found.card)
    return found


def find_folder(name: str, role: str, file: str) -> tuple[Path, str]:
    """The folder of a model by name or by path, with or without ``local-dir:``, and the sha256 of
    its weights ``file``; a repository folder of the hub is its snapshot.

    Raises:
        MissingWeights, CorruptWeights, CannotDo: as ``find``, where there is no such folder.
    """
    if not known(name):
        place = snapshot_of(Path(name.removeprefix("local-dir:")))
        if (place / file).is_file():
            return place, digest(place / file)
    found = find(name, role)
    return found.folder, found.sha256


def locate(name: str, role: str | None = None) -> ResolvedModel:
    """As ``find``, without a look into the files: quick, and never asks the network.

    Raises:
        MissingWeights: not here; as ``find``.
        CannotDo: a model made for another role.
    """
    found = _local(name)
    if found is None:
        raise missing(name, role)
    if role is not None and not serves(found.card, role):
        raise CannotDo(
            f"The model {name!r} is a {found.card.role}, not a {role}.",
            hint=f"Models in that role: {', '.join(_in_role(role)) or 'none'}.",
        )
    return found


def card_of(name: str) -> Card | None:
    """The card of that name: shipped, the user's or public, whether its files are here or not."""
    if not re.fullmatch(NAME, name):
        return None
    for root in (SHIPPED, user_folder()):
        if (path := root / folder_name(name) / CARD_FILE).is_file():
            return read_card(path)
    return public_card(name)


def known(name: str) -> bool:
    """Whether there is a card of that name."""
    return card_of(name) is not None


def serves(card: Card, role: str) -> bool:
    """Whether a model may be used in a role.

    A scorer may also be a judge, never the other way round: a judge is not to be optimised.
    Models the user added without a role may be anything.
    """
    return card.role in (role, "own") or (card.role, role) == ("scorer", "judge")


def _local(name: str) -> ResolvedModel | None:
    """The model of that name wherever it is on this computer."""
    return (
        _in_folder(SHIPPED, name, "shipped")
        or _in_folder(user_folder(), name, "yours")
        or _placed_by_hand(name)
        or _in_hub(name)
    )


def _placed_by_hand(name: str) -> ResolvedModel | None:
    """A public model whose files were copied into the user's folder, without a card."""
    card = public_card(name)
    if card is None:
        return None
    places = [user_folder() / folder_name(name)]
    if not card.companions:
        places.append(user_folder())
    for folder in places:
        if all((folder / file).is_file() for file in card.files):
            return ResolvedModel(folder / card.file, card, "yours")
    return None


def _in_folder(root: Path, name: str, place: Place) -> ResolvedModel | None:
    """The model of that name with a card in a folder of ``root``."""
    folder = root / folder_name(name)
    if not re.fullmatch(NAME, name) or not (folder / CARD_FILE).is_file():
        return None
    card = read_card(folder / CARD_FILE)
    if card.name != name:
        raise CorruptWeights(f"The card in {folder} is that of {card.name!r}.")
    return ResolvedModel(folder / card.file, card, place)


def _in_hub(name: str) -> ResolvedModel | None:
    card = public_card(name)
    if card is None or not card.repository:
        return None
    from guided.zoo.hub import cached

    folder = cached(card)
    return None if folder is None else ResolvedModel(folder / card.file, card, "hub")


def public_card(name: str) -> Card | None:
    """The card of a public model this project knows by name, if it does."""
    path = PUBLIC / f"{folder_name(name)}.toml"
    return read_card(path) if re.fullmatch(NAME, name) and path.is_file() else None


def names() -> list[str]:
    """All names that ``find`` knows, here or public, sorted."""
    return sorted(card.name for card, _ in catalogue())


def catalogue() -> Iterator[tuple[Card, ResolvedModel | None]]:
    """Every known model with what was found of it on this computer, unchecked, by name.

    Raises:
        CorruptWeights: a card that cannot be read.
    """
    folders = [*SHIPPED.glob(f"*/{CARD_FILE}"), *user_folder().glob(f"*/{CARD_FILE}")]
    known = {read_card(path).name for path in [*folders, *PUBLIC.glob("*.toml")]}
    for name in sorted(known):
        found = _local(name)
        card = found.card if found is not None else public_card(name)
        if card is not None:
            yield card, found


def _in_role(role: str) -> list[str]:
    return [card.name for card, _ in catalogue() if serves(card, role)]


#: Owners in the hub of models that are often called without theirs, in small letters.
_OWNERS = {
    **dict.fromkeys(("gpt2-medium", "gpt2-large", "gpt2-xl"), "openai-community"),
    "distilgpt2": "distilbert",
    **dict.fromkeys(("stable-diffusion-2-1", "stable-diffusion-2-1-base", "sdxl-turbo", "sd-turbo",
                     "stable-diffusion-xl-base-1.0"), "stabilityai"),
    "stable-diffusion-v1-5": "stable-diffusion-v1-5",
    **dict.fromkeys(("pixart-xl-2-512x512", "pixart-xl-2-1024-ms", "pixart-sigma-xl-2-1024-ms"),
                    "PixArt-alpha"),
    **dict.fromkeys(("clip-vit-b-32-laion2b-s34b-b79k", "clip-vit-l-14-laion2b-s32b-b82k",
                     "clip-vit-h-14-laion2b-s32b-b79k"), "laion"),
    **dict.fromkeys(("vit-b-16-siglip", "vit-so400m-14-siglip-384"), "timm"),
}  # fmt: skip


def missing(name: str, role: str | None = None) -> MissingWeights:
    """The error for a model that is not here: what it is and how to get it, or what there is for
    its role.
    """
    card = public_card(name)
    kits = {
        kit: role for kit in kit_names() for role, model in load_kit(kit).items() if model == name
    }
    if card is None and kits:
        kit, role = next(iter(kits.items()))
        kin = [f"--kit {k}" for k in kit_names() if k not in kits and role in load_kit(k)]
        other = f"Take another kit ({', '.join(kin)}), or train" if kin else "Train"
        return MissingWeights(
            f"The {role} {name!r} of the kit {kit!r} is not on this computer; it belongs in "
            f"{SHIPPED / name}.",
            hint=f"{other} it in a copy of the repository: scripts/build {name}",
        )
    if card is None and (owner := _OWNERS.get(name.lower())):
        full = f"{owner}/{name}"
        return MissingWeights(
            f"There is no model called {name!r}; in the hub it is {full!r}.",
            hint=f"Write {full}, and to fetch it run: guided models get {full} --online",
        )
    if card is None:
        there = nearest(name[:80], names() if role is None else _in_role(role))
        return MissingWeights(
            f"There is no model called {name[:80]!r}.",
            hint=f"{there} Own files: guided models add FILE --name NAME".strip(),
        )
    size = f"{card.size / 1e6:.0f} MB" if card.size else card.size_about or "size not known"
    folder = user_folder() / folder_name(name)
    others = f" and {len(card.companions)} more" if card.companions else ""
    if card.repository:
        command = f"Run: guided models get {name} --online"
    else:
        command = f"Download it from there, then run: guided models add {card.file} --name {name}"
    return MissingWeights(
        f"The {card.role} {name!r} is not on this computer: {card.file}{others} ({size}), "
        f"from {card.source}, licence: {card.licence}; it belongs in {folder}.",
        hint=command,
    )
