"""Captioned images of a user's folder or tar shards, as every training reads them."""

from __future__ import annotations

import hashlib
import logging
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from guided.core.decode import DECODER_ERRORS
from guided.core.files import IMAGE_SUFFIXES
from guided.core.images import open_image
from guided.core.listing import few, list_folder
from guided.core.reading import LARGEST, parse_json
from guided.core.tables import captions_of, decoded
from guided.errors import ImageError, UsageError
from guided.training.captions import rows, survey
from guided.training.data_identity import captions_digest, content_digests, files_digest

log = logging.getLogger(__name__)

#: Up to so many images are all decoded before a training begins.
SOON = 500
#: Objectives over a folder of captioned images, and the fewest images and different captions of
#: each; others need two images.
FEWEST = {
    "clip": (4, 2), "contrastive": (4, 2), "text_gan": (2, 1), "autoencoder": (2, 1),
    "denoiser": (2, 1), "prior": (2, 1), "latent_scorer": (2, 1), "language": (2, 1),
    "inverter": (2, 1),
}  # fmt: skip
#: Bytes of the largest image that is taken from a shard.
LARGEST_MEMBER = 256 << 20
_TEXTS = (".txt", ".json")


@dataclass(frozen=True)
class Entry:
    """An image that can be opened, where it comes from, and its captions.

    ``file`` is None for a member of a tar shard.  ``open(size)`` gives it in RGB, perhaps smaller
    than it is, but with both sides at least twice ``size``.
    """

    name: str
    open: Callable[[int], Image.Image]
    captions: tuple[str, ...]
    file: Path | None = None


def entries_of(folder: Path, encoding: str = "", *, warn: bool = True) -> list[Entry]:
    """The captioned images of a folder in a fixed order: those of its tar shards, or its files.

    In a shard (webdataset, an uncompressed tar file) KEY.jpg and KEY.txt, or KEY.json with
    ``caption``, ``text`` or ``captions``, belong together; for files see
    ``guided.training.captions``.  ``encoding`` is that of texts which are not UTF-8; ``warn``: what
    is left out of files is logged.

    Raises:
        UsageError: no folder, or nothing captioned in it.
    """
    entries = [entry for shard in _shards(folder) for entry in _shard(shard, encoding)]
    if entries:
        return entries
    return [Entry(str(file), _opener(file), captions, file)
            for file, captions in rows(folder, encoding, warn=warn)]  # fmt: skip


def checked_entries(
    folder: Path, objective: str, encoding: str = "", *, warn: bool = True
) -> list[Entry]:
    """A folder's captioned images, every one opened once, enough of them for an objective.

    Raises:
        UsageError: as ``entries_of``; too few images or captions; images that cannot be read.
    """
    entries = entries_of(folder, encoding, warn=warn)
    images, captions = FEWEST.get(objective, (2, 1))
    if len(entries) < images:
        raise UsageError(
            f"Captioned images in {folder}: {len(entries)}; this training needs at least {images}, "
            "and learns something from hundreds.",
            hint="Add images with captions.",
        )
    different = {text.casefold() for entry in entries for text in entry.captions}
    if len(different) < captions:
        raise UsageError(
            f"All {len(entries)} images in {folder} have the same caption, so there is nothing to "
            "tell apart.",
            hint="Say in each image's caption what only some of the images show.",
        )
    check_readable(entries)
    return entries


def check_folder(folder: Path, objective: str, encoding: str = "") -> None:
    """Look at a user's folder before anything heavy is loaded; the training says what is left out.

    Raises:
        UsageError: no such folder, or one that the objective cannot learn from.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Name a folder of your own data.")
    if objective in FEWEST:
        checked_entries(folder, objective, encoding, warn=False)


def images_digest(folder: Path, encoding: str = "") -> str:
    """The identity of a folder's captioned images: their names within it, contents and captions.

    Raises:
        UsageError: no folder, or a text in another encoding.
    """
    shards = _shards(folder)
    return (
        files_digest(folder, shards)
        if shards
        else captions_digest(folder, survey(folder, encoding).rows)
    )


def contents_of(entries: Sequence[Entry]) -> list[str]:
    """A digest of each image's file, or of a shard member's name: its bytes take a pass each."""
    files = [entry.file for entry in entries if entry.file is not None]
    known = dict(zip(files, content_digests(files), strict=True))
    return [
        hashlib.sha256(entry.name.rpartition(":")[2].encode()).hexdigest()
        if entry.file is None
        else known[entry.file]
        for entry in entries
    ]


def check_readable(entries: Sequence[Entry]) -> None:
    """Open every image, and decode them all where that is soon done.

    Members of shards are not opened: finding each takes a pass over its shard.

    Raises:
        UsageError: images that cannot be read; the message counts them and names the first.
    """
    files = [entry for entry in entries if entry.file is not None]
    wrong = [(entry, reason) for entry in files if (reason := _fault(entry, len(files)))]
    if wrong:
        first, reason = wrong[0]
        names = [Path(entry.name).name for entry, _ in wrong]
        raise UsageError(
            f"{len(wrong)} of {len(files)} captioned images cannot be read: {few(names)}. "
            f"{first.name}: {reason}",
            hint="Take them out of the folder, or put whole ones in their place.",
        )


def _fault(entry: Entry, count: int) -> str:
    """Why an image cannot be read, or nothing; of many images only the header is looked at."""
    assert entry.file is not None
    try:
        if count <= SOON:
            entry.open(1)
        else:
            with Image.open(entry.file):
                pass
    except ImageError as error:
        return str(error)
    except DECODER_ERRORS as error:
        return f"not an image ({error})"
    return ""


def _shards(folder: Path) -> list[Path]:
    files = list_folder(folder).files if folder.is_dir() else []
    return sorted(Path(file) for file in files if file.lower().endswith(".tar"))


def _opener(file: Path) -> Callable[[int], Image.Image]:
    return lambda size: open_image(file, at_least=(size, size))


def _shard(path: Path, encoding: str) -> list[Entry]:
    """The captioned pictures of one tar file.

    Raises:
        UsageError: not a tar file, or a caption that cannot be read.
    """
    pictures: dict[str, str] = {}
    captions: dict[str, tuple[str, ...]] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                place, slash, name = member.name.rpartition("/")
                key, _, kind = name.partition(".")
                key, kind = f"{place}{slash}{key}", f".{kind.lower()}"
                if member.isfile() and kind in IMAGE_SUFFIXES:
                    pictures[key] = member.name
                elif member.isfile() and kind in _TEXTS:
                    content = _content(shard, member, LARGEST)
                    captions[key] = _captions(f"{path}:{member.name}", content, kind, encoding)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UsageError(
            f"The shard {path} cannot be read: {' '.join(str(error).split())}.",
            hint="A shard is a tar file, not compressed, with KEY.jpg and KEY.txt or KEY.json.",
        ) from error
    return [
        Entry(f"{path}:{pictures[key]}", _member(path, pictures[key]), captions[key])
        for key in sorted(pictures)
        if captions.get(key)
    ]


def _content(shard: tarfile.TarFile, member: tarfile.TarInfo, largest: int) -> bytes:
    if member.size > largest:
        raise ValueError(f"{member.name} has {member.size} bytes, more than {largest}")
    file = shard.extractfile(member)
    return file.read() if file is not None else b""


def _captions(where: str, content: bytes, kind: str, encoding: str) -> tuple[str, ...]:
    text = decoded(content, where, encoding)
    if kind == ".txt":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        table = parse_json(text, constants=True)
        return tuple(captions_of(table if isinstance(table, dict) else {}))
    except ValueError as error:
        log.warning("%s gives no caption: %s", where, error)
        return ()


def _member(path: Path, name: str) -> Callable[[int], Image.Image]:
    def opened(size: int) -> Image.Image:
        with tarfile.open(path, "r:") as shard:
            data = _content(shard, shard.getmember(name), LARGEST_MEMBER)
        try:
            return open_image(data, at_least=(size, size))
        except ImageError as error:
            raise ImageError(f"{path}:{name}: {error}") from error

    return opened
