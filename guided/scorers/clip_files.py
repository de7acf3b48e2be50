"""Where the files of a CLIP lie: the zoo, a folder, open_clip's cache or the hub's."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided import zoo
from guided.errors import CorruptWeights, MissingWeights, UsageError, nearest

CONFIG = "open_clip_config.json"
_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
            "model.safetensors", "open_clip_pytorch_model.bin")  # fmt: skip


@dataclass(frozen=True)
class ClipFiles:
    """What open_clip needs to build a model: its two names, and what may not be left to it.

    ``model`` and ``tag`` are the arguments of ``create_model_and_transforms``; ``weights`` is the
    file they lead to; ``quick_gelu`` says that the weights want QuickGELU although the
    architecture's name does not; ``preprocess`` holds the tag's picture settings.
    """

    name: str
    model: str
    tag: str | None
    weights: Path
    quick_gelu: bool = False
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Path, ...] = field(default=())

    def fingerprint(self) -> str:
        """sha256 over the weight file, its configuration and its tokenizer, in that order."""
        digest = hashlib.sha256()
        for path in (self.weights, *self.others):
            digest.update(_file_digest(path))
        if not self.others:
            digest.update(f"{self.model}:{self.quick_gelu}".encode())
        return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def find(name: str, *, role: str = "scorer", online: bool = False) -> ClipFiles:
    """The files of a CLIP by name.

    ``name`` is a model of the zoo (shipped, the user's or public), ``local-dir:FOLDER``,
    ``hf-hub:OWNER/MODEL``, or ``ARCHITECTURE/TAG`` of open_clip (``ViT-L-14/openai``; a weight
    file may stand in the place of the tag).  ``role`` keeps a judge from being used as a scorer.

    Raises:
        MissingWeights: a file that is not on this computer (unless ``online``).
        CorruptWeights: a file that differs from its card, or a folder that cannot be read.
        CannotDo: a model of the zoo that is made for another role.
        UsageError: a name of none of these kinds.
    """
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser().resolve()
        return _in_folder(f"local-dir:{folder}", folder)
    if name.startswith("hf-hub:"):
        return _on_hub(name, name.removeprefix("hf-hub:"), online=online)
    if name in zoo.names():
        return _in_folder(name, zoo.find(name, role, online=online).folder)
    return _public(name, online=online)


def _in_folder(name: str, folder: Path) -> ClipFiles:
    config = folder / CONFIG
    if not config.is_file():
        raise MissingWeights(
            f"The scorer {name!r} needs the file {CONFIG} in the folder {folder}.",
            hint="Name a folder that open_clip's local-dir: can read.",
        )
    try:
        if "model_cfg" not in json.loads(config.read_text(encoding="utf-8")):
            raise CorruptWeights(f"{config} has no 'model_cfg'.")
    except ValueError as error:
        raise CorruptWeights(f"{config} is not JSON: {error}.") from error
    weights = next((folder / w for w in _WEIGHTS if (folder / w).is_file()), None)
    if weights is None:
        raise MissingWeights(
            f"The scorer {name!r} has no weights in {folder}; looked for {', '.join(_WEIGHTS)}.",
            hint="Put the weight file beside its configuration.",
        )
    words = sorted(p for p in folder.glob("*.json") if p.name.startswith(("tokenizer", "vocab")))
    return ClipFiles(name, f"local-dir:{folder}", None, weights, others=(config, *words))


def _on_hub(name: str, repository: str, *, online: bool) -> ClipFiles:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    def here(file: str) -> Path | None:
        found = try_to_load_from_cache(repository, file)
        if not isinstance(found, str) and online:
            with contextlib.suppress(OSError, ValueError), hub(online=True):
                found = hf_hub_download(repository, file)
        return Path(found) if isinstance(found, str) else None

    config = here(CONFIG)
    weights = next((path for file in _WEIGHTS if (path := here(file))), None)
    if config is None or weights is None:
        what = CONFIG if config is None else _WEIGHTS[0]
        raise _missing(name, what, f"https://huggingface.co/{repository}")
    return ClipFiles(name, name, None, weights, others=(config,))


def _public(name: str, *, online: bool) -> ClipFiles:
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    model, _, tag = name.partition("/")
    known = open_clip.list_models()
    if model not in known:
        raise UsageError(
            f"There is no scorer {name!r}; allowed: a model of the zoo, ARCHITECTURE/TAG of "
            "open_clip, hf-hub:OWNER/MODEL or local-dir:FOLDER.",
            hint=nearest(model, [*zoo.names(), *known]) if model else "",
        )
    if Path(tag).is_file():
        return ClipFiles(name, model, tag, Path(tag))
    settings: Mapping[str, Any] = get_pretrained_cfg(model, tag) if tag else {}
    if not settings:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise UsageError(
            f"The architecture {model!r} has no weights called {tag!r}.",
            hint=nearest(tag, tags) if tags else "open_clip lists no weights for it.",
        )
    weights = _cached(settings)
    if weights is None and online:
        with hub(online=True):
            weights = Path(download_pretrained(settings))
    if weights is None:
        source = settings.get("hf_hub") or settings.get("url", "")
        file = str(source).rpartition("/")[2] or _WEIGHTS[0]
        raise _missing(name, file, str(source))
    config: Mapping[str, Any] = open_clip.get_model_config(model)
    quick = bool(settings.get("quick_gelu")) and not config.get("quick_gelu", False)
    pictures = {key: settings[key] for key in _PREPROCESS if settings.get(key) is not None}
    return ClipFiles(name, model, str(weights), weights, quick, pictures)


def _cached(settings: Mapping[str, Any]) -> Path | None:
    """The file of an open_clip tag in the local caches, where it is there."""
    from huggingface_hub import try_to_load_from_cache

    if place := settings.get("hf_hub"):
        repository, _, file = place.rpartition("/")
        wanted = [file.removesuffix(".bin") + ".safetensors", file] if file else list(_WEIGHTS)
        for candidate in wanted:
            found = try_to_load_from_cache(repository, candidate)
            if isinstance(found, str):
                return Path(found)
    elif url := settings.get("url"):
        path = Path("~/.cache/clip").expanduser() / Path(url).name
        return path if path.is_file() else None
    return None


def _missing(name: str, file: str, source: str) -> MissingWeights:
    from huggingface_hub.constants import HF_HUB_CACHE

    return MissingWeights(
        f"The scorer {name!r} needs the file {file}, which is not in {HF_HUB_CACHE}; "
        f"it comes from {source}.",
        hint="Run the same command with --online to fetch it.",
    )


@contextlib.contextmanager
def hub(*, online: bool) -> Iterator[None]:
    """Inside, the hub's client may (``online``) or may not ask the network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not online
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
