"""Whether files are what their cards say: sizes and sha256 sums."""

from __future__ import annotations

import hashlib
from pathlib import Path

from guided.errors import CorruptWeights, MissingWeights
from guided.zoo.cards import Card

_known: dict[tuple[str, int, int], str] = {}


def digest(path: Path) -> str:
    """The sha256 of a file, computed once a process for each path, time of change and size.

    Raises:
        MissingWeights: no such file, or it cannot be read.
    """
    try:
        state = path.stat()
        key = (str(path.resolve()), state.st_mtime_ns, state.st_size)
        if key not in _known:
            _known[key] = fresh_digest(path)
    except OSError as error:
        raise MissingWeights(f"{path} cannot be read ({error.strerror}).") from error
    return _known[key]


def fresh_digest(path: Path) -> str:
    """The sha256 of a file as it is now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def forget() -> None:
    """Let every file be hashed again."""
    _known.clear()


def verify(folder: Path, card: Card) -> None:
    """Accept a model all of whose files are there and, where the card knows them, unchanged.

    Raises:
        MissingWeights: a file of the card is absent.
        CorruptWeights: another size or sha256; the message names the file and both values.
    """
    for name in card.files:
        if not (folder / name).is_file():
            raise MissingWeights(
                f"The model {card.name!r} lacks its file {folder / name}.",
                hint=_again(card),
            )
    sums = {card.file: card.sha256 or "", **card.companions}
    size = (folder / card.file).stat().st_size
    if card.size is not None and size != card.size:
        raise CorruptWeights(
            f"{folder / card.file} has {size} bytes, but its card says {card.size}.",
            hint=_again(card),
        )
    for name, expected in sums.items():
        found = digest(folder / name) if expected else ""
        if found != expected:
            raise CorruptWeights(
                f"{folder / name} is damaged: its sha256 is {found[:16]}..., "
                f"but its card says {expected[:16]}....",
                hint=_again(card),
            )


def _again(card: Card) -> str:
    if card.origin == "trained":
        return "Install guided again, or restore the file with git."
    if card.origin == "public" and card.repository:
        return f"Get it again: guided models get {card.name} --online"
    return f"Add it again: guided models add FILE --name {card.name}"
