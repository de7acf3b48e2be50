"""What a folder in the format of diffusers must hold, checked before anything is loaded.

A model_index.json names a class for every component and can name any class of any library; here
only the known ones are let through, and of weight files only safetensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from guided.errors import CannotDo, CorruptWeights, MissingWeights, UnsafeWeights

Family = Literal["sd", "sdxl", "pixart", "own"]

INDEX = "model_index.json"
_KNOWN: dict[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("PixArtTransformer2DModel", "PortraitDenoiser"),
    "vae": ("AutoencoderKL", "AutoencoderTiny", "FoldedAutoencoderKL"),
    "tiny": ("AutoencoderTiny", "FoldedAutoencoderTiny"),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": (
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "T5Tokenizer",
        "T5TokenizerFast",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    ),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": (),  # any of diffusers' own; the loop says which it can drive
    "prior": ("PortraitPrior",),
    "prior_scheduler": (),
}
_LIBRARIES = ("diffusers", "transformers")
_OWN = {
    "FoldedAutoencoderKL": "guided.nets.folded_autoencoder",
    "FoldedAutoencoderTiny": "guided.nets.folded_autoencoder",
    "PortraitDenoiser": "guided.nets.denoiser",
    "PortraitPrior": "guided.nets.prior",
}
_SCHEDULERS = ("scheduler", "prior_scheduler")
_PLAIN = (*_SCHEDULERS, "tokenizer", "tokenizer_2")
_LARGEST = 1 << 20


def components(folder: Path) -> dict[str, tuple[str, str]]:
    """The components that the folder's index names: name -> (library, class).

    Components that this package does not use (a safety checker ...) are left out.

    Raises:
        MissingWeights: no such folder, no index, or a component without its files; it is named.
        CorruptWeights: an index that cannot be read.
        UnsafeWeights: a component whose class is not a known one, or weights only as a pickle.
        CannotDo: no denoiser, or two.
    """
    named = _index(folder)
    for part in ("vae", "scheduler"):
        if part not in named:
            raise MissingWeights(f"{folder / INDEX} names no {part!r}.", hint=COPY)
    denoisers = [part for part in ("unet", "transformer") if part in named]
    if len(denoisers) != 1:
        raise CannotDo(f"{folder / INDEX} must name a unet or a transformer, not {denoisers}.")
    for part, (library, kind) in named.items():
        _check_class(folder, part, library, kind)
        _check_files(folder, part)
    return named


COPY = "Copy the whole folder again: every component has its own subfolder."


def _index(folder: Path) -> dict[str, tuple[str, str]]:
    path = folder / INDEX
    if not path.is_file():
        raise MissingWeights(f"{folder} has no {INDEX}.", hint="Name a folder of diffusers' form.")
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("larger than an index can be")
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        entries = {
            part: (str(value[0]), str(value[1]))
            for part, value in table.items()
            if part in _KNOWN and isinstance(value, list) and len(value) == 2 and value[0]
        }
    except (OSError, ValueError, AttributeError) as error:
        raise CorruptWeights(f"{path} cannot be read: {error}.", hint=COPY) from error
    return entries


def made_for(folder: Path) -> str:
    """The class of the pipeline that an index which could be read was written by."""
    table = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return str(table.get("_class_name", ""))


def _check_class(folder: Path, part: str, library: str, kind: str) -> None:
    plain = kind.isidentifier() and kind.endswith("Scheduler")
    fits = kind in _KNOWN[part] if _KNOWN[part] else plain
    known = library == _OWN[kind] if kind in _OWN else library in _LIBRARIES
    if not known or not fits:
        allowed = ", ".join(_KNOWN[part]) or "a scheduler of diffusers"
        raise UnsafeWeights(
            f"{folder / INDEX} wants {library}.{kind} as {part!r}; allowed: {allowed}."
        )


def _check_files(folder: Path, part: str) -> None:
    place = folder / part
    names = {path.name for path in place.iterdir()} if place.is_dir() else set()
    if not names:
        raise MissingWeights(f"{folder} lacks its component {part!r}: {place}.", hint=COPY)
    _check_readable(part, place)
    if part in _SCHEDULERS:
        if "scheduler_config.json" not in names:
            raise MissingWeights(f"{place} has no scheduler_config.json.", hint=COPY)
        return
    if part in _PLAIN:
        return
    if "config.json" not in names:
        raise MissingWeights(f"The component {part!r} has no config.json in {place}.", hint=COPY)
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt")))
        if pickled:
            raise UnsafeWeights(
                f"The component {part!r} has its weights only as a pickle ({pickled[0]}).",
                hint="Get the .safetensors file of the same model.",
            )
        raise MissingWeights(f"The component {part!r} has no weights in {place}.", hint=COPY)


def _check_readable(part: str, place: Path) -> None:
    """Raise for a half-written file, before a library stumbles over it."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(place.iterdir()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
        except (OSError, ValueError, SafetensorError) as error:
            raise CorruptWeights(
                f"The component {part!r} is damaged: {path} cannot be read: {error}.", hint=COPY
            ) from error


def family(named: dict[str, tuple[str, str]]) -> Family:
    """Which stock pipeline the components belong to.

    Raises:
        CannotDo: a transformer with a second text encoder, which none has.
    """
    if named.get("transformer", ("", ""))[1] in _OWN:
        return "own"
    if "transformer" in named:
        if "text_encoder_2" in named:
            raise CannotDo("A PixArt folder has one text encoder, this one has two.")
        return "pixart"
    return "sdxl" if "text_encoder_2" in named else "sd"
