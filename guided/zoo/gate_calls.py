"""Every call into a library that builds a model or tokenizer from files: after the gate.

diffusers, transformers and open_clip are called from here and nowhere else (a test reads the syntax
trees of the package for it).  They get folders that ``gate.inspect`` has let through, never names,
so nothing is fetched while they load, and ``trust_remote_code=False`` wherever they take it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from guided.errors import MissingWeights, UnsafeWeights
from guided.zoo.allowance import building, weights_in
from guided.zoo.folders import settle_network
from guided.zoo.gate import PUBLIC_TEXT, inspect, inspect_table
from guided.zoo.headers import is_packed
from guided.zoo.structure import check_weights

#: The files of which any makes a tokenizer.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
)  # fmt: skip
#: Further files that a tokenizer reads.
BESIDE = ("config.json", "special_tokens_map.json", "added_tokens.json")


def load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """A module or scheduler of class ``kind`` (diffusers' form) from its own folder.

    Raises:
        UnsafeWeights: settings that carry code or leave the folder.
        CorruptWeights: settings of a model far larger than its weights.
    """
    root = inspect(folder)
    weights = weights_in(root)
    with building(str(root), weights):
        if not any(is_packed(path) for path in weights):
            return kind.from_pretrained(str(root), local_files_only=True, **options)
        part = _fresh_part(kind, root)
    return _filled(part, weights)


def _fresh_part(kind: Any, root: Path) -> Any:
    """A module of class ``kind`` from its settings; torch's random numbers stay as they were."""
    from torch.random import fork_rng

    with fork_rng(devices=[]):
        return kind.from_config(kind.load_config(str(root), local_files_only=True))


def _filled(module: Any, weights: Iterable[Path]) -> Any:
    """A module with the tensors of packed files, in evaluation mode."""
    from guided.zoo.packing import load_weights

    state = {name: tensor for path in weights for name, tensor in load_weights(path).items()}
    module.load_state_dict(state)
    return module.eval()


def load_pipeline(
    kind: Any, folder: Path, parts: Mapping[str, tuple[str, str]], **options: Any
) -> Any:
    """A pipeline of class ``kind`` from a folder; ``parts`` are its (library, class) by name.

    Raises:
        UnsafeWeights: settings that carry code or leave the folder, or a Python file in a place
            where diffusers would look for one.
        CorruptWeights: settings of a model far larger than its weights.
    """
    root = inspect(folder, parts)
    sources = [root / "None.py", *(root / part / f"{library}.py" for part, (library, _) in
                                   parts.items())]  # fmt: skip
    for source in sources:
        if source.exists():
            raise UnsafeWeights(
                f"{source} lies where diffusers looks for code of a component.",
                hint="Delete that file: no code of a model folder is ever run.",
            )
    with building(str(root), weights_in(root, *(root / part for part in parts))):
        return kind.from_pretrained(
            str(root),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )


def from_config(kind: Any, config: Mapping[str, Any], **changes: Any) -> Any:
    """A fresh object of class ``kind`` (diffusers' form) from settings in memory.

    Raises:
        UnsafeWeights: settings that carry code or locations.
    """
    inspect_table(config, f"The configuration of {kind.__name__}")
    return kind.from_config(config, **changes)


def create_clip(
    name: str, weights: Path | None = None, *, online: bool = False, **options: Any
) -> Any:
    """An open_clip model by architecture or ``local-dir:FOLDER``, whose weights are in a file.

    Without ``weights`` it is an architecture of open_clip with random ones.  ``options`` are
    those of open_clip's ``create_model_and_transforms``.

      Where its text tower is one of transformers, that tower's settings come from a folder of the
      hub's cache that was let through.

      Raises:
          UnsafeWeights: settings that carry code or locations, or weights that do.
          CorruptWeights: damaged weights, or settings of a model far larger than they are.
          MissingWeights: the text tower's settings are not on this computer.
    """
    if weights is not None:
        check_weights(weights)
    import open_clip

    text = text_settings(name)
    tower = text.get("hf_model_name")
    if tower:
        place = public_text(str(tower), ("config.json",), online=online)
        options["text_cfg"] = {**text, "hf_model_name": str(place), "hf_model_pretrained": False}
    packed = weights is not None and is_packed(weights)
    if packed:
        options |= {"pretrained": None, "load_weights": False, "pretrained_text": False}
    with (
        building(name, [weights]) if weights else contextlib.nullcontext(),
        _without("initialized randomly") if packed else contextlib.nullcontext(),
    ):
        model = open_clip.create_model_and_transforms(name, weights_only=True, **options)[0]
    return _filled(model, [weights]) if weights is not None and packed else model


@contextlib.contextmanager
def _without(words: str) -> Iterator[None]:
    """Within, the root logger, which open_clip writes to, passes no line that has these words."""
    root = logging.getLogger()

    def others(record: logging.LogRecord) -> bool:
        return words not in record.getMessage()

    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)


def create_tokenizer(name: str, *, online: bool = False) -> Any:
    """The tokenizer of an open_clip architecture or ``local-dir:FOLDER``.

    It is the folder's own where the folder has one, else that of the public repository which the
    settings name.

    Raises:
        UnsafeWeights: settings that carry code or locations.
        MissingWeights: its files are not on this computer.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    text = text_settings(name)
    length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options: dict[str, Any] = dict(text.get("tokenizer_kwargs") or {})
    source = text.get("hf_tokenizer_name")
    if not source:
        return SimpleTokenizer(context_length=length, **options)
    folder = _folder_of(name)
    if folder is None or not has_tokenizer(folder):
        if folder is not None and source not in PUBLIC_TEXT:
            raise MissingWeights(
                f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES[:3])} ...), although its "
                f"text_cfg.hf_tokenizer_name is {source!r}.",
                hint="Put the tokenizer's files into the folder.",
            )
        folder = public_text(str(source), (*TOKENIZER_FILES, *BESIDE), online=online)
    options |= {"trust_remote_code": False, "local_files_only": True}
    mode = text.get("tokenizer_mode")
    return HFTokenizer(str(folder), context_length=length, tokenizer_mode=mode, **options)


def text_settings(name: str) -> dict[str, Any]:
    """The ``text_cfg`` of an architecture, or of a folder that was let through.

    Raises:
        UnsafeWeights: settings that carry code or locations.
    """
    import open_clip

    folder = _folder_of(name)
    if folder is not None:
        inspect(folder)
    config: Any = open_clip.get_model_config(name) or {}
    return dict(config.get("text_cfg") or {})


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any((folder / file).is_file() for file in TOKENIZER_FILES)


def public_text(repository: str, files: Iterable[str], *, online: bool) -> Path:
    """The inspected snapshot of a public repository in the hub's cache, fetched if ``online``.

    Raises:
        MissingWeights: none of ``files`` is there.
        UnsafeWeights: settings that carry code or locations.
    """
    names = list(files)
    settle_network(online=online)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder: Path | None = None
    with contextlib.suppress(HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError):
        folder = Path(
            snapshot_download(repository, allow_patterns=names, local_files_only=not online)
        )
    if folder is None or not any((folder / name).is_file() for name in names):
        raise MissingWeights(
            f"The text files of {repository!r} ({', '.join(names[:3])} ...) are not on this "
            f"computer; they come from https://huggingface.co/{repository}.",
            hint="They could not be fetched: check the connection."
            if online
            else "Run the same command with --online to fetch them.",
        )
    return inspect(folder)


def _folder_of(name: str) -> Path | None:
    """The folder of a ``local-dir:`` name."""
    return Path(name.removeprefix("local-dir:")) if name.startswith("local-dir:") else None
