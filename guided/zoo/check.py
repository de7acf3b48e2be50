"""Hash every model file on this computer again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from guided.errors import GuidedError
from guided.zoo import checksums
from guided.zoo.cards import CARD_FILE, read_card
from guided.zoo.folders import PUBLIC, SHIPPED, user_folder


def check_all() -> list[dict[str, str]]:
    """A result for each model that is here: its name, place, and error (empty text: it is whole).

    Files are hashed anew, whatever was hashed before; a card that cannot be read is an error of
    its model, never of the others.
    """
    checksums.forget()
    results = []
    for root, place in ((SHIPPED, "shipped"), (user_folder(), "yours")):
        for path in sorted(root.glob(f"*/{CARD_FILE}")):
            name = path.parent.name.replace("--", "/")
            results.append({"name": name, "place": place, "error": _told(_check_folder, path)})
    for path in sorted(PUBLIC.glob("*.toml")):
        name = path.stem.replace("--", "/")
        error = _told(_check_cached, path)
        if error != _ABSENT:
            results.append({"name": name, "place": "hub", "error": error})
    return results


_ABSENT = "absent"


def _told(check: Callable[[Path], str], path: Path) -> str:
    try:
        return check(path)
    except GuidedError as failure:
        return str(failure)


def _check_folder(path: Path) -> str:
    checksums.verify(path.parent, read_card(path))
    return ""


def _check_cached(path: Path) -> str:
    """The hub stores large files under their sha256; looking them up checks it."""
    card = read_card(path)
    if not card.repository:
        return _ABSENT
    from guided.zoo.hub import cached, check_blobs

    folder = cached(card)
    if folder is None:
        return _ABSENT
    check_blobs(folder, card)
    checksums.verify(folder, card)
    return ""
