"""Public models in the hub's local cache, and their download when that is asked for."""

from __future__ import annotations

import re
from pathlib import Path

from guided.core import unfinished
from guided.errors import CannotDo, CorruptWeights, MissingWeights
from guided.zoo.cards import Card
from guided.zoo.checksums import digest
from guided.zoo.folders import hub_folder, settle_network


def snapshot(repository: str, revision: str = "main") -> Path | None:
    """The folder of a repository's files in the hub's local cache, or None."""
    root = hub_folder() / f"models--{repository.replace('/', '--')}"
    named = root / "refs" / revision
    commit = named.read_text(encoding="utf-8").strip() if named.is_file() else revision
    folder = root / "snapshots" / commit
    return folder if folder.is_dir() else None


def cached(card: Card) -> Path | None:
    """The snapshot folder in the hub's local cache that has all files of a card, or None.

    No file is read; ``check_blobs`` does that.
    """
    folder = snapshot(card.repository)
    if folder is None or not all((folder / name).is_file() for name in card.files):
        return None
    return folder


def check_blobs(folder: Path, card: Card) -> None:
    """Accept the files of a card in a snapshot folder.

    The hub stores large files under their sha256; where it did, that is checked.

    Raises:
        CorruptWeights: a file that no longer has the sum it is stored under.
    """
    for name in card.files:
        _check_blob(folder / name)


def _check_blob(path: Path) -> None:
    stored = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", stored.name) and digest(stored) != stored.name:
        raise CorruptWeights(
            f"{path} is damaged: the hub's cache stores it under another sha256.",
            hint=f"Delete {stored} and get the model again with --online.",
        )


#: What a repository without a card is fetched for: settings, tables of tokens, tensors.
_DATA = (".json", ".jinja", ".model", ".safetensors", ".toml", ".txt")
_PICKLED = (".bin", ".pt", ".pth")


def download_repository(repository: str, revision: str = "main") -> Path:
    """Download a repository without a card into the hub's cache; the snapshot folder.

    Of its weights only the safetensors are fetched, or those in other forms where it has none.

    Raises:
        MissingWeights: the download failed; the message says why.
    """
    settle_network(online=True)
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    unfinished.note(f"{repository} is downloaded in part; the same command goes on")
    try:
        files = list_repo_files(repository, revision=revision)
        tensors = any(name.endswith(".safetensors") for name in files)
        ends = _DATA if tensors else (*_DATA, *_PICKLED)
        wanted = [name for name in files if name.endswith(ends)]
        folder = snapshot_download(repository, revision=revision, allow_patterns=wanted)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _failed(repository, error) from error
    return Path(folder)


def _failed(repository: str, error: Exception) -> MissingWeights:
    return MissingWeights(
        f"{repository} could not be downloaded ({str(error).splitlines()[0][:200]}).",
        hint="Check the connection, or copy the files by hand and use guided models add.",
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

    unfinished.note(f"{card.repository} is downloaded in part; the same command goes on")
    try:
        folder = snapshot_download(card.repository, allow_patterns=card.files)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise _failed(card.repository, error) from error
    return Path(folder)
