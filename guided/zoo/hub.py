"""Public models in the hub's local cache, and their download when that is asked for."""

from __future__ import annotations

import re
from pathlib import Path

from guided.errors import CannotDo, CorruptWeights, MissingWeights
from guided.zoo.cards import Card
from guided.zoo.folders import settle_network
from guided.zoo.manifest import digest


def cached(card: Card) -> Path | None:
    """The snapshot folder in the hub's local cache that has all files of a card, or None.

    The hub stores large files under their sha256; where it did, that is checked.

    Raises:
        CorruptWeights: a cached file that no longer has the sum it is stored under.
    """
    from huggingface_hub import try_to_load_from_cache

    folder: Path | None = None
    for name in card.files:
        place = try_to_load_from_cache(card.repository, name)
        if not isinstance(place, str) or not Path(place).is_file():
            return None
        if folder is None:
            folder = Path(place).parents[name.count("/")]
        _check_blob(Path(place))
    return folder


def _check_blob(path: Path) -> None:
    stored = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", stored.name) and digest(stored) != stored.name:
        raise CorruptWeights(
            f"{path} is damaged: the hub's cache stores it under another sha256.",
            hint=f"Delete {stored} and get the model again with --online.",
        )


def download(card: Card) -> Path:
    """Download the files of a public card into the hub's cache; the snapshot folder.

    Raises:
        CannotDo: a model that is not in the hub.
        MissingWeights: the download failed; the message says why.
    """
    if not card.repository:
        raise CannotDo(
            f"The model {card.name!r} is not in a hub that serves files.",
            hint=f"Download {card.file} from {card.source}, then run: "
            f"guided models add {card.file} --name {card.name}",
        )
    settle_network(online=True)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(card.repository, allow_patterns=card.files)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise MissingWeights(
            f"{card.repository} could not be downloaded ({str(error).splitlines()[0][:200]}).",
            hint="Check the connection, or copy the files by hand and use guided models add.",
        ) from error
    return Path(folder)
