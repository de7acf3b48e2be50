"""Language models by name: shipped ones, the user's, folders, the hub's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guided.core.device import Device
from guided.errors import MissingWeights
from guided.language.gpt2 import MODEL_FILES, Gpt2
from guided.language.profile import Profile
from guided.zoo.finding import find, names


@dataclass(frozen=True)
class Speaker:
    """A language model, how it wants to be asked, and where it came from."""

    language: Gpt2
    profile: Profile
    folder: Path


def load_language(name: str, device: Device | None = None, *, online: bool = False) -> Speaker:
    """The language model of that name.

    ``name`` is ``local-dir:FOLDER``, a model the zoo knows (shipped, the user's, public), or a
    repository of the hub such as ``openai-community/gpt2-medium`` whose files are in its cache.

    Raises:
        MissingWeights: files that are not on this computer (unless ``online``); the message names
            them, their folder and the command that fetches them.
        CorruptWeights: files that do not make a GPT-2.
    """
    folder = find_language(name, online=online)
    return Speaker(Gpt2.load(folder, device, name), Profile.load(folder), folder)


def find_language(name: str, *, online: bool = False) -> Path:
    """The folder of a language model's files.

    Raises:
        MissingWeights: not on this computer.
    """
    if name.startswith("local-dir:"):
        return Path(name.removeprefix("local-dir:")).expanduser()
    if name in names() or "/" not in name:
        return find(name, "language", online=online).folder
    return _cached(name, online=online)


def _cached(repository: str, *, online: bool) -> Path:
    """The hub cache's folder of a repository, fetched first if ``online``."""
    from huggingface_hub import constants, snapshot_download, try_to_load_from_cache

    if online:
        wanted = [*MODEL_FILES, "tokenizer.json", "vocab.json", "merges.txt"]
        return Path(snapshot_download(repository, allow_patterns=wanted))
    found = [try_to_load_from_cache(repository, file) for file in MODEL_FILES]
    if all(isinstance(path, str) for path in found):
        return Path(str(found[0])).parent
    raise MissingWeights(
        f"The language model {repository!r} needs {' and '.join(MODEL_FILES)} and a tokenizer, "
        f"which are not in {constants.HF_HUB_CACHE}; "
        f"they come from https://huggingface.co/{repository}.",
        hint="Run the same command with --online, or name a folder: local-dir:FOLDER.",
    )
