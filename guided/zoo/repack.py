"""Pack the weights of a model's folder in place, and write its card anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from guided.core.files import write_text
from guided.errors import CannotDo
from guided.zoo.cards import CARD_FILE, Card, read_card, write_card
from guided.zoo.checksums import fresh_digest
from guided.zoo.headers import is_packed
from guided.zoo.packing import load_weights, pack, save_weights


def repack(folder: Path, half: Collection[str] = (), version: str = "") -> Card:
    """The card of a folder whose main weight file is int8 per channel from now on.

    Tensors named in ``half`` stay in half precision; ``version`` is the one that shipped the file
    as it was, whose sha256 the card then keeps.  Its figures are those of the file before: measure
    them again.

    Raises:
        CannotDo: a file that is packed already, or that is no safetensors file.
    """
    card = read_card(folder / CARD_FILE)
    file = folder / card.file
    if file.suffix != ".safetensors" or is_packed(file):
        raise CannotDo(f"{file} is packed already, or no safetensors file.")
    before = fresh_digest(file)
    save_weights(file, pack(load_weights(file), half))
    earlier = {**card.earlier, **({version: before} if version else {})}
    return _rewritten(folder, card, half=sorted(half), earlier=earlier)


def rename_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Write other sha256 for those of parts that changed into the settings of a model's folder."""
    changed = False
    for path in sorted(folder.rglob("*.json")):
        text = before = path.read_text("utf-8")
        for old, new in digests.items():
            text = text.replace(old, new)
        if text != before:
            write_text(path, text)
            changed = True
    if changed:
        _rewritten(folder, read_card(folder / CARD_FILE))


def _rewritten(folder: Path, card: Card, **changes: object) -> Card:
    """The card with the sizes and sums of its files as they are now, in its place."""
    file = folder / card.file
    changed = card.model_copy(
        update={
            **changes,
            "sha256": fresh_digest(file),
            "size": file.stat().st_size,
            "companions": {name: fresh_digest(folder / name) for name in card.companions},
        }
    )
    write_card(changed, folder / CARD_FILE)
    return changed
