"""Where the files of a CLIP lie: the zoo, a folder, open_clip's cache or the hub's."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided import zoo
from guided.errors import CorruptWeights, MissingWeights
from guided.zoo.architectures import cached_weights as _cached
from guided.zoo.architectures import unknown_scorer, unknown_tag
from guided.zoo.gate import inspect, read_settings
from guided.zoo.gate_calls import BESIDE, TOKENIZER_FILES, has_tokenizer, public_text
from guided.zoo.structure import CLIP_WEIGHTS

CONFIG = "open_clip_config.json"
_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class ClipFiles:
    """What open_clip needs to build a model: its two names, and what may not be left to it.

    ``model`` and ``tag`` are the arguments of ``create_model_and_transforms``; ``weights`` is the
    file they lead to; ``quick_gelu`` says that the weights want QuickGELU although the
    architecture's name does not; ``preprocess`` holds the tag's picture settings.
    ``warnings`` says what of that is not known.
    """

    name: str
    model: str
    tag: str | None
    weights: Path
    quick_gelu: bool = False
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Path, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())

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
        UnsafeWeights: a folder whose settings carry code or lead out of it.
        CannotDo: a model of the zoo that is made for another role.
        UsageError: a name of none of these kinds.
    """
    if name.startswith("local-dir:"):
        folder = inspect(Path(name.removeprefix("local-dir:")))
        return _in_folder(f"local-dir:{folder}", folder)
    if name.startswith("hf-hub:"):
        return _on_hub(name, name.removeprefix("hf-hub:"), online=online)
    if name in zoo.names():
        return _in_folder(name, inspect(zoo.find(name, role, online=online).folder))
    return _public(name, online=online)


def _in_folder(name: str, folder: Path) -> ClipFiles:
    config = folder / CONFIG
    if not config.is_file():
        raise MissingWeights(
            f"The scorer {name!r} needs the file {CONFIG} in the folder {folder}.",
            hint="Name a folder that open_clip's local-dir: can read.",
        )
    table = read_settings(config)
    if not isinstance(table, dict) or "model_cfg" not in table:
        raise CorruptWeights(f"{config} has no 'model_cfg'.")
    weights = next((folder / w for w in CLIP_WEIGHTS if (folder / w).is_file()), None)
    if weights is None:
        known = ", ".join(CLIP_WEIGHTS)
        raise MissingWeights(
            f"The scorer {name!r} has no weights in {folder}; looked for {known}.",
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

    weights = next((path for file in CLIP_WEIGHTS if (path := here(file))), None)
    config = here(CONFIG)  # after the weights: a download may have brought a newer snapshot
    if config is None or weights is None:
        what = CONFIG if config is None else CLIP_WEIGHTS[0]
        raise _missing(name, what, f"https://huggingface.co/{repository}", online=online)
    folder = inspect(config.parent)
    if online and not has_tokenizer(folder):
        with contextlib.suppress(MissingWeights):
            public_text(repository, (*TOKENIZER_FILES, *BESIDE), online=True)
    return ClipFiles(name, f"local-dir:{folder}", None, weights, others=(config,))


def _public(name: str, *, online: bool) -> ClipFiles:
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    model, _, tag = name.partition("/")
    known = open_clip.list_models()
    if model not in known:
        raise unknown_scorer(name)
    if Path(tag).is_file():
        return _by_path(name, model, Path(tag))
    settings: Mapping[str, Any] = get_pretrained_cfg(model, tag) if tag else {}
    if not settings:
        raise unknown_tag(model, tag)
    weights = _cached(settings)
    if weights is None and online:
        with hub(online=True):
            weights = Path(download_pretrained(settings))
    if weights is None:
        source = settings.get("hf_hub") or settings.get("url", "")
        file = str(source).rpartition("/")[2] or CLIP_WEIGHTS[0]
        raise _missing(name, file, str(source), online=online)
    return ClipFiles(name, model, str(weights), weights, *_meaning(model, settings))


def _meaning(model: str, settings: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """What a tag says beside its weights: QuickGELU where the name is silent, picture settings."""
    import open_clip

    config: Mapping[str, Any] = open_clip.get_model_config(model)
    quick = bool(settings.get("quick_gelu")) and not config.get("quick_gelu", False)
    return quick, {key: settings[key] for key in _PREPROCESS if settings.get(key) is not None}


def _by_path(name: str, model: str, file: Path) -> ClipFiles:
    """A weight file of an architecture, with what its tag says, or all tags of it agree on.

    The tag is known by the name of the file or of its folder.  Where tags differ and none is
    named, open_clip's defaults are taken and a warning says what may be wrong.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = {tag: get_pretrained_cfg(model, tag) for tag in list_pretrained_tags_by_model(model)}
    own = [
        settings
        for tag, settings in tags.items()
        if tag in (file.stem, file.parent.name)
        or str(settings.get("url", "")).rpartition("/")[2] == file.name
    ]
    told = {
        repr(meaning): meaning for meaning in (_meaning(model, s) for s in own or tags.values())
    }
    if not told:
        return ClipFiles(name, model, str(file), file)
    if len(told) == 1:
        return ClipFiles(name, model, str(file), file, *next(iter(told.values())))
    warning = (
        f"{file.name} does not say how it was trained, and the weights of {model} differ in "
        f"picture settings (mean, std, resize mode) or activation (QuickGELU): open_clip's "
        f"defaults are taken. If the file has a tag, name it {'.pt or '.join(list(tags)[:2])}.pt."
    )
    return ClipFiles(name, model, str(file), file, warnings=(warning,))


def _missing(name: str, file: str, source: str, *, online: bool) -> MissingWeights:
    from huggingface_hub.constants import HF_HUB_CACHE

    return MissingWeights(
        f"The scorer {name!r} needs the file {file}, which is not in {HF_HUB_CACHE}; "
        f"it comes from {source}.",
        hint="It could not be fetched: check the name and the connection."
        if online
        else "Run the same command with --online to fetch it.",
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
