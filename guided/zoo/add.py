"""Put a weight file of the user's own into their model folder, after checking that it is safe."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Literal

from guided.core.files import make_folder, output_error, replacing
from guided.errors import CorruptWeights, MissingWeights, UsageError
from guided.zoo.cards import CARD_FILE, NAME, Card, folder_name, write_card
from guided.zoo.checksums import fresh_digest
from guided.zoo.folders import SHIPPED, user_folder
from guided.zoo.resolve import ResolvedModel, catalogue, public_card
from guided.zoo.structure import check_structure

Format = Literal["safetensors", "torch", "nvidia", "npy"]


def add(file: Path, name: str | None = None) -> ResolvedModel:
    """Copy a weight file into the user's folder and write its card; the model found there.

    ``name`` is the model's name; by default that of the public model with this file name, or the
    file's name without its ending.  The file is read completely first, so that a file that would
    run code never gets in; its sha256 is kept on the card and checked at each load.

    Raises:
        MissingWeights: no such file.
        UnsafeWeights: it holds more than tensors and plain values.
        CorruptWeights: damaged, of an unknown kind, or not what the public card says.
        UsageError: a folder, or a name that is taken by a shipped model or cannot be a name.
        OutputError: the folder cannot be written.
    """
    file = Path(file)
    if file.is_dir():
        raise UsageError(
            f"{file} is a folder; only weight files are added.",
            hint=f"A folder needs no adding: name it where a model is wanted, {file}.",
        )
    if not file.is_file():
        raise MissingWeights(f"There is no weight file {file}.", hint="Check the path.")
    public = _public_of(file, name)
    chosen = name or (public.name if public else file.stem)
    _check_name(chosen)
    layout, parameters = _inspect(file)
    card = Card(
        name=chosen,
        role=public.role if public else "own",
        kind=public.kind if public else "weights",
        file=file.name,
        format=layout,
        origin="added",
        licence=public.licence if public else "not stated",
        sha256=fresh_digest(file),
        size=file.stat().st_size,
        source=public.source if public else str(file.resolve()),
        parameters=parameters or None,
    )
    folder = make_folder(user_folder() / folder_name(chosen))
    target = folder / file.name
    try:
        with file.open("rb") as source, replacing(target) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    except OSError as error:
        raise output_error(target, error) from error
    write_card(card, folder / CARD_FILE)
    return ResolvedModel(target, card, "yours")


def _public_of(file: Path, name: str | None) -> Card | None:
    if name is not None:
        return public_card(name)
    for card, _ in catalogue():
        public = public_card(card.name)
        if public is not None and public.file == file.name and not public.companions:
            return public
    return None


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise UsageError(
            f"{name!r} cannot be a model's name.",
            hint="Use letters, digits, dots, dashes and underscores, at most 80.",
        )
    if (SHIPPED / folder_name(name)).exists():
        raise UsageError(f"{name!r} is the name of a shipped model.", hint="Give another --name.")


def _inspect(file: Path) -> tuple[Format, int]:
    """The format and the number of parameters of a file that loads safely."""
    check_structure(file)
    from guided.zoo.packing import check_finite, load_weights
    from guided.zoo.safe import NvidiaRecord, load_nvidia_pickle

    if file.suffix == ".pkl":
        content = load_nvidia_pickle(file)
        record = content.get("G_ema", content.get("G"))
        if not isinstance(record, NvidiaRecord):
            raise CorruptWeights(f"{file} holds no generator (G_ema or G).")
        check_finite(record.tensors(), str(file))
        return "nvidia", sum(tensor.numel() for tensor in record.tensors().values())
    if file.suffix == ".npy":
        from guided.zoo.arrays import read_array

        return "npy", int(read_array(file).size)
    tensors = load_weights(file)
    layout: Format = "safetensors" if file.suffix == ".safetensors" else "torch"
    return layout, sum(tensor.numel() for tensor in tensors.values())
