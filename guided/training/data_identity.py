"""What a training learns from, as digests: the same data anywhere, touched or not, is the same.

A training's identity is its settings and what they only name: the user's data, the weights it
starts from, and the finished models that it leans on.  No torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from guided.core.files import make_folder, write_text
from guided.core.reading import RECORD, read_json
from guided.errors import CannotDo, GuidedError, UsageError
from guided.training.captions import Captioned
from guided.zoo import resolve
from guided.zoo.checksums import fresh_digest
from guided.zoo.folders import user_folder

#: Settings of objectives that name a finished model, with the role of that model.
MODEL_KEYS = {
    "scorer": "scorer", "generator": "generator", "identity": "identity", "vae": "vae",
    "denoiser": "denoiser",
}  # fmt: skip
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npy")
#: A file changed so short a time ago may change again within the same time stamp.
_SETTLED_NS = 2_000_000_000


def content_digests(files: Sequence[Path], cache: Path | None = None) -> list[str]:
    """The sha256 of each file; what has the same path, size and time of change is not read again.

    What is known is kept in ``cache``, a folder (left out: ``contents`` in the user's cache); one
    that cannot be written costs time alone.

    Raises:
        UsageError: a file that cannot be read.
    """
    if not files:
        return []
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    cache = cache if cache is not None else user_folder().parent / "contents"
    store = cache / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
    known = _known(store)
    result: dict[str, list[str | int]] = {}
    digests = []
    for file in files:
        name = os.fsencode(file.absolute()).decode("utf-8", "backslashreplace")
        try:
            state = file.stat()
            entry = known.get(name)
            if entry is None or entry[:2] != [state.st_size, state.st_mtime_ns]:
                entry = [state.st_size, state.st_mtime_ns, fresh_digest(file)]
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
        digests.append(str(entry[2]))
        if time.time_ns() - state.st_mtime_ns > _SETTLED_NS:
            result[name] = entry
    if any(known.get(name) != entry for name, entry in result.items()):
        with contextlib.suppress(GuidedError):
            write_text(make_folder(store.parent) / store.name, json.dumps({**known, **result}))
    return digests


def _known(store: Path) -> dict[str, list[str | int]]:
    try:
        table = read_json(store, **RECORD)
        return {k: v for k, v in table.items() if isinstance(v, list) and len(v) == 3}
    except (OSError, ValueError, AttributeError):
        return {}


def files_of(folder: Path) -> list[Path]:
    """All files of a folder but hidden ones.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Name a folder of your own data.")
    every = (file for file in folder.rglob("*") if file.is_file())
    return [f for f in every if not any(p.startswith(".") for p in f.relative_to(folder).parts)]


def files_digest(folder: Path, files: Iterable[Path], cache: Path | None = None) -> str:
    """A digest of files by their names relative to a folder and their contents, in that order."""
    listed = sorted(files)
    digest = hashlib.sha256()
    for file, content in zip(listed, content_digests(listed, cache), strict=True):
        digest.update(_framed(os.fsencode(os.path.relpath(file, folder)), content.encode()))
    return digest.hexdigest()


def captions_digest(folder: Path, rows: Sequence[Captioned], cache: Path | None = None) -> str:
    """A digest of captioned images: relative names, contents and captions, in the order given."""
    digest = hashlib.sha256()
    contents = content_digests([row.file for row in rows], cache)
    for row, content in zip(rows, contents, strict=True):
        name = os.fsencode(os.path.relpath(row.file, folder))
        digest.update(_framed(name, content.encode(), *(c.encode() for c in row.captions)))
    return digest.hexdigest()


def _framed(*parts: bytes) -> bytes:
    """Parts as one row that no other parts give."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in (b"row", *parts))


def model_digest(name: str, role: str) -> str:
    """The digest of a model given by name, file or ``local-dir:FOLDER``; "" where it is not here.

    A model that is missing or unfit is the business of whoever loads it.
    """
    path = Path(name.removeprefix("local-dir:")).expanduser()
    if path.suffix in _WEIGHTS and path.is_file():
        return content_digests([path])[0]
    if not name.startswith("local-dir:"):
        with contextlib.suppress(GuidedError):
            found = resolve.find(name, role)
            companions = sorted(found.card.companions.items())
            return hashlib.sha256(json.dumps([found.sha256, companions]).encode()).hexdigest()
    parts = [f for f in path.rglob("*") if f.suffix in (*_WEIGHTS, ".json") and f.is_file()]
    return files_digest(path, parts) if parts else ""


def identities(data: str, settings: Mapping[str, object], start: Path | None) -> dict[str, str]:
    """Digests of all that a training's settings only name, by the key that names each.

    ``data`` is the digest of the user's data ("": none); ``settings`` are the objective's;
    ``start`` are the weights to start from.
    """
    named = {"data": data} | {
        key: model_digest(value, role)
        for key, role in MODEL_KEYS.items()
        if isinstance(value := settings.get(key), str) and value
    }
    if start is not None and start.is_file():
        named["start"] = content_digests([start])[0]
    return {key: digest for key, digest in named.items() if digest}


def expect_same(
    before: Mapping[str, str], now: Mapping[str, str], titles: Mapping[str, str], folder: Path
) -> None:
    """Refuse to go on with a training whose data or models are others than when it began.

    ``before`` is what its checkpoint keeps (a model that an older release did not note counts as
    unchanged); ``titles`` say in words what each key names.

    Raises:
        CannotDo: something differs; the message says what.
    """
    changed = [
        key
        for key in {**before, **now}
        if before.get(key) != now.get(key) and (key == "data" or (key in before and key in now))
    ]
    if changed:
        raise CannotDo(
            f"The training in {folder} began with other data than {titles['data']} holds now."
            if changed[0] == "data"
            else f"The training in {folder} began with another {changed[0]} than "
            f"{titles[changed[0]]} is now.",
            hint="Give this one a name of its own (--set name=NAME), or delete that folder to "
            "begin anew.",
        )
