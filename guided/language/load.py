"""Language models by name: shipped ones, the user's, folders, the hub's cache."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from guided.core.device import Device
from guided.errors import MissingWeights, UsageError
from guided.language.gpt2 import MODEL_FILES, Gpt2
from guided.language.profile import Profile
from guided.zoo.cards import Card
from guided.zoo.gate import snapshot_of
from guided.zoo.hub import cached, check_blobs, download
from guided.zoo.resolve import find, known

#: Either of these makes a tokenizer.
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True)
class LanguageModelBundle:
    """A language model, how it wants to be asked, and where it came from."""

    language: Gpt2
    profile: Profile
    folder: Path


def load_language(
    name: str, device: Device | None = None, *, online: bool = False
) -> LanguageModelBundle:
    """The language model of that name.

    ``name`` is a folder (also ``local-dir:FOLDER``), a model the zoo knows (shipped, the user's,
    public), or a repository of the hub such as ``openai-community/gpt2-medium`` whose files are in
    its cache.

    Raises:
        MissingWeights: files that are not on this computer (unless ``online``); the message names
            them, their folder and the command that fetches them.
        CorruptWeights: files that do not make a GPT-2.
    """
    folder = find_language(name, online=online)
    return LanguageModelBundle(Gpt2.load(folder, device, name), Profile.load(folder), folder)


def find_language(name: str, *, online: bool = False) -> Path:
    """The folder of a language model's files.

    Raises:
        MissingWeights: not on this computer.
    """
    folder = snapshot_of(Path(name.removeprefix("local-dir:")))
    own = (folder / MODEL_FILES[0]).is_file() and not known(name)
    if name.startswith("local-dir:") or own:
        return folder
    if known(name) or "/" not in name:
        return find(name, "language", online=online).folder
    return _cached(name, online=online)


def _cached(repository: str, *, online: bool) -> Path:
    """The hub cache's folder of a repository without a card here, fetched first if ``online``."""
    from huggingface_hub import constants

    for tokenizer in _TOKENIZERS:
        card = _card(repository, tokenizer)
        folder = cached(card)
        if folder is not None:
            check_blobs(folder, card)
            return folder
    if online:
        return download(_card(repository, tuple(chain(*_TOKENIZERS))))
    raise MissingWeights(
        f"The language model {repository!r} needs {' and '.join(MODEL_FILES)} and a tokenizer, "
        f"which are not in {constants.HF_HUB_CACHE}; "
        f"they come from https://huggingface.co/{repository}.",
        hint="Run the same command with --online, or name a folder.",
    )


def _card(repository: str, tokenizer: tuple[str, ...]) -> Card:
    """What is known of a model of the hub by its name alone."""
    config, weights = MODEL_FILES
    try:
        return Card(
            name=repository, role="language", kind="gpt2", origin="public", file=weights,
            companions=dict.fromkeys((config, *tokenizer), ""), repository=repository,
            source=f"https://huggingface.co/{repository}", licence="see its page",
        )  # fmt: skip
    except ValidationError as error:
        raise UsageError(f"{repository!r} cannot be the name of a repository.") from error
