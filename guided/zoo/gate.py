"""The gate before model libraries: configs that carry code or name other locations are refused.

A folder of open_clip, transformers or diffusers is data for us, but to those libraries some keys of
its JSON files mean more: a Python file to run, a kernel or another repository to fetch, a path
outside the folder.  Here every file that they would read is read first, at every depth, and the
first such key is refused by its name and file.  All other keys pass unchanged.  What lies beside
the weights and is not named here (``*.py`` among it) is never opened.

Nothing of a library is imported here; ``gate_calls`` makes the calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from guided.core.reading import MOST_WORDS, read_json
from guided.errors import CorruptWeights, MissingWeights, UnsafeWeights

#: Keys that make a library import a module, run a file, fetch code or load another model.
CODE_KEYS = frozenset({
    "auto_map", "processor_auto_map", "custom_pipeline", "custom_pipelines", "custom_modules",
    "custom_code", "custom_generate", "trust_remote_code", "code_revision", "allow_all_kernels",
    "use_kernels", "kernel_config", "quantization_config", "base_model_name_or_path",
    "pretrained_model_name_or_path",
})  # fmt: skip
#: Keys whose value may name a kernel of the hub, which always has a slash.
KERNEL_KEYS = frozenset({
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "_experts_implementation_internal",
})  # fmt: skip
#: Arguments of loading, not of a tokenizer: open_clip hands ``tokenizer_kwargs`` to both.
LOADER_ARGUMENTS = frozenset({
    "bpe_path", "cache_dir", "code_revision", "config", "force_download", "gguf_file",
    "local_files_only", "mistral_format", "name_or_path", "proxies", "resume_download", "revision",
    "subfolder", "token", "tokenizer_name", "tokenizer_type", "use_auth_token",
})  # fmt: skip
#: Public repositories that hold the text towers and tokenizers of open_clip's own architectures.
PUBLIC_TEXT = frozenset({
    "bert-base-uncased", "roberta-base", "xlm-roberta-base", "xlm-roberta-large", "google/mt5-base",
    "google/mt5-xl", "facebook/xlm-v-base", "facebook/nllb-200-distilled-600M",
    "facebook/nllb-200-distilled-1.3B",
})  # fmt: skip
#: Tokenizers of transformers that may be asked for by name, with or without ``Fast`` at the end.
TOKENIZERS = frozenset({
    "AlbertTokenizer", "BartTokenizer", "BertTokenizer", "CLIPTokenizer", "CamembertTokenizer",
    "CohereTokenizer", "DebertaTokenizer", "DebertaV2Tokenizer", "DistilBertTokenizer",
    "ElectraTokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "GemmaTokenizer", "LlamaTokenizer",
    "M2M100Tokenizer", "MBart50Tokenizer", "MBartTokenizer", "MPNetTokenizer",
    "NllbTokenizer", "PreTrainedTokenizer", "Qwen2Tokenizer", "RobertaTokenizer",
    "SiglipTokenizer", "T5Tokenizer", "XLMRobertaTokenizer", "TokenizersBackend", "PythonBackend",
    "SentencePieceBackend",
})  # fmt: skip

#: The JSON files that the libraries read as settings; tables of tokens are not among them.
_SETTINGS = re.compile(
    r"(open_clip_config|model_index|modular_model_index|(\w+_)?config(\.[\w.-]+)?|\w+\.index(\.\w+)?"
    r"|special_tokens_map|tokenizer(\.[\w.-]+)?|[\w.-]+\.safetensors\.index|[\w.-]+\.index"
    r"|chat_template|parts)\.json",
    re.IGNORECASE,
)
_DATA = (".json", ".txt", ".model", ".jinja", ".safetensors", ".bin", ".pt", ".pth", ".npz")
_LARGEST, _LARGEST_TOKENIZER = 8 << 20, 128 << 20
_LONGEST_VALUE = 80
_HINT = "A model here is data alone: get it in a form that needs no code and no other repository."


def inspect(folder: Path, parts: Iterable[str] = ()) -> Path:
    """The folder, once every setting in it and in its subfolders ``parts`` was found to be data.

    A repository folder of the hub's cache (``models--OWNER--NAME``) stands for its snapshot.

    Raises:
        UnsafeWeights: a key that carries code or leads out of the folder, a class that is not
            allowed, or a link that leaves the folder; the message names file and key.
        CorruptWeights: a setting that is no JSON, or larger than one can be.
    """
    root = snapshot_of(folder)
    inside = _inside(root)
    for place in (root, *(root / part for part in parts)):
        if not place.is_dir():
            continue
        _check_link(place, inside)
        for path in sorted(place.iterdir()):
            if path.name.startswith("._") or not path.name.lower().endswith(_DATA):
                continue  # what macOS leaves beside files, and files that nobody reads
            _check_link(path, inside)
            if _SETTINGS.fullmatch(path.name) and path.is_file():
                inspect_table(read_settings(path), str(path))
    return root


def inspect_table(table: object, source: str) -> None:
    """Accept settings that are data; ``source`` names them in errors.

    Raises:
        UnsafeWeights: as ``inspect``.
    """
    tokenizer = Path(source).name.lower().startswith("tokenizer.")
    for where, key, value in _entries(table, skip_vocabulary=tokenizer):
        fault = _fault(where, key, value)
        if fault:
            shown = repr(value)
            if len(shown) > _LONGEST_VALUE:
                shown = shown[:_LONGEST_VALUE] + "..."
            raise UnsafeWeights(f"{source} has {where} = {shown}: {fault}.", hint=_HINT)


def read_settings(path: Path) -> Any:
    """The content of a JSON file, its size checked first.

    Raises:
        CorruptWeights: too large, nested too deep, or no JSON.
    """
    largest = _LARGEST_TOKENIZER if path.name.lower().startswith("tokenizer.") else _LARGEST
    try:
        return read_json(path, largest, most=MOST_WORDS, constants=True)
    except (OSError, ValueError) as error:
        raise CorruptWeights(
            f"{path} is not JSON that can be read: {error}.", hint="Copy the whole folder again."
        ) from error


def snapshot_of(folder: Path) -> Path:
    """The folder itself, resolved, or the snapshot that a repository folder of the hub holds.

    Raises:
        MissingWeights: several snapshots, none of which is the main one.
    """
    folder = folder.expanduser().resolve()
    if not (folder / "snapshots").is_dir() or not (folder / "refs").is_dir():
        return folder
    there = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    main = folder / "refs" / "main"
    revision = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    for path in there:
        if path.name == revision or len(there) == 1:
            return path
    raise MissingWeights(
        f"{folder} is a repository of the hub's cache with {len(there)} snapshots.",
        hint=f"Name one of the folders in {folder / 'snapshots'}.",
    )


def leaves_folder(value: str) -> bool:
    """Whether a name leads out of the folder it stands in: absolute, upwards, or an address."""
    parts = re.split(r"[/\\]", value)
    return (
        value.startswith(("/", "\\", "~"))
        or ":" in value
        or ".." in (part.strip() for part in parts)
        or "\0" in value
    )


def _entries(table: object, *, skip_vocabulary: bool) -> Iterator[tuple[str, str, Any]]:
    """Every (path of keys, key, value) of nested tables; a tokenizer's own tokens are left out."""
    stack: list[tuple[str, object]] = [("", table)]
    while stack:
        prefix, value = stack.pop()
        if isinstance(value, Mapping):
            for key, item in value.items():
                if skip_vocabulary and key in ("vocab", "merges", "added_tokens"):
                    continue
                where = f"{prefix}.{key}" if prefix else str(key)
                yield where, str(key), item
                stack.append((where, item))
        elif isinstance(value, (list, tuple)):
            stack.extend((f"{prefix}[{number}]", item) for number, item in enumerate(value))


def _fault(where: str, key: str, value: Any) -> str:
    """What is wrong with an entry; empty for data."""
    argument = where.removesuffix(key).endswith("tokenizer_kwargs.")
    if argument and (key in LOADER_ARGUMENTS or key.endswith("_file")):
        return "that says where to load from"
    if key in CODE_KEYS:
        return "such a key makes a library load code or another model" if value else ""
    if key in KERNEL_KEYS:
        return "that is code of the hub" if any("/" in text for text in _texts(value)) else ""
    if key == "_class_name":
        return "" if isinstance(value, str) or value is None else "it names a Python file"
    if key in ("tokenizer_class", "slow_tokenizer_class"):
        return _class_fault(value)
    if key == "timm_model_name":
        plain = value is None or (isinstance(value, str) and re.fullmatch(r"[\w.-]*", value))
        return "" if plain else "only names of architectures are allowed"
    if key == "hf_model_name":
        allowed = ", ".join(sorted(PUBLIC_TEXT))
        if not value or (isinstance(value, str) and value in PUBLIC_TEXT):
            return ""
        return f"another repository would be loaded; allowed: {allowed}"
    if _is_location(key) and any(leaves_folder(text) for text in _texts(value)):
        return "it leads out of the folder"
    return ""


def _class_fault(value: Any) -> str:
    plain = isinstance(value, str) and (
        value in TOKENIZERS or value.removesuffix("Fast") in TOKENIZERS
    )
    if value is None or plain:
        return ""
    return f"no class that is allowed ({', '.join(sorted(TOKENIZERS))})"


def _is_location(key: str) -> bool:
    """Whether libraries open what the key names; ``special_tokens_map_file`` is only a memory."""
    named = ("weight_map", "transformers_weights", "hf_tokenizer_name", "source_spm", "target_spm")
    files = key.endswith(("_file", "_files")) and key != "special_tokens_map_file"
    return files or key in named


def _texts(value: object) -> Iterator[str]:
    """The texts in a value: itself, or those of a list or table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (item for item in value.values() if isinstance(item, str))
    elif isinstance(value, (list, tuple)):
        yield from (item for item in value if isinstance(item, str))


def _inside(root: Path) -> tuple[Path, ...]:
    """Where links may lead: the folder, and for a snapshot the files that it shares."""
    if root.parent.name == "snapshots":  # the repository's own files, and those of the whole cache
        return root, *((root.parents[above] / "blobs").resolve() for above in (1, 2))
    return (root,)


def _check_link(path: Path, inside: tuple[Path, ...]) -> None:
    if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in inside):
        raise UnsafeWeights(
            f"{path} is a link that leaves the folder, to {path.resolve()}.",
            hint="Put the file itself there.",
        )
