"""Files that are written whole or not at all, and names that never leave their folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from guided.errors import OutputError, UsageError

_FORBIDDEN = frozenset('\\:*?"<>|')
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"}
)
#: Characters that change the direction of text, so that a name shows as another one.
_BIDI = frozenset(map(chr, (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
#: The file of a run's folder that holds its Steps.
STEPS_FILE = "steps.jsonl"
#: How the names of pictures end.
PICTURES = frozenset(
    (
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".ppm",
        ".pgm", ".tga", ".jp2", ".avif", ".qoi",
    )
)  # fmt: skip
_LONGEST_PART = 200
_LONGEST_NAME = 1000


def safe_name(text: str, longest: int = 40) -> str:
    """A short lower-case file name part made of any text: letters, digits and dashes.

    >>> safe_name("A smiling woman, with PINK hair!")
    'a-smiling-woman-with-pink-hair'
    >>> safe_name("../..")
    'untitled'
    """
    plain = unicodedata.normalize("NFKD", text[: 40 * longest])
    ascii_only = plain.encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
    if len(slug) > longest:
        cut = slug[: longest + 1].rpartition("-")[0]
        slug = cut if len(cut) > longest // 2 else slug[:longest].rstrip("-")
    return f"{slug}-file" if slug in _DEVICES else slug or "untitled"


def _fault(part: str) -> str:
    """What is wrong with one part of a name, or nothing."""
    if part in ("", ".", ".."):
        return "it has an empty part, '.' or '..'"
    if any(char in _FORBIDDEN for char in part):
        return 'it has one of the characters \\ : * ? " < > |'
    if any(unicodedata.category(char) in ("Cc", "Cs") or char in _BIDI for char in part):
        return "it has control characters"
    if part[0] in "-~ " or part[-1] in ". ":
        return "a part begins with '-', '~' or a space, or ends with '.' or a space"
    if part.partition(".")[0].strip().lower() in _DEVICES:
        return "it is the name of a device on some systems"
    if len(part.encode()) > _LONGEST_PART:
        return f"a part is longer than {_LONGEST_PART} bytes"
    return ""


def _structure(text: str) -> list[str]:
    """The parts a name would have for a reader that decodes % or folds wide characters."""
    return re.split(r"[/\\]", unicodedata.normalize("NFKC", unquote(text)))


def inside(folder: Path, name: str) -> Path:
    """The path of an output called ``name`` in ``folder``: the one door all output names pass.

    ``name`` is a relative name with ``/`` between its parts.  Dots, spaces and letters of any
    script are fine (``test..png``); whatever could lead elsewhere on any system is refused, also
    through a link that is already in the folder.

    Raises:
        OutputError: a name that is absolute, climbs, is reserved, hides its meaning or is too long.
    """
    shown = repr(name if len(name) <= 60 else name[:57] + "...")
    hint = "Use a plain relative name such as 'picture.png'."
    if len(name) > _LONGEST_NAME:
        raise OutputError(f"The output name {shown} is longer than {_LONGEST_NAME}.", hint=hint)
    parts = name.split("/")
    seen = _structure(name)
    for part in (*parts, *seen):
        if fault := _fault(part):
            raise OutputError(f"The output name {shown} cannot be used: {fault}.", hint=hint)
    if len(seen) != len(parts):
        raise OutputError(f"The output name {shown} hides a folder in its characters.", hint=hint)
    root = folder.resolve()
    path = root.joinpath(*parts)
    try:
        held = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        held = False
    if not held:
        raise OutputError(f"The output name {shown} leads out of {root} through a link.", hint=hint)
    return path


def _reason(error: OSError) -> str:
    known = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file would be larger than this system allows",
        errno.EACCES: "writing is not permitted there",
        errno.EPERM: "writing is not permitted there",
        errno.EROFS: "that disk is read-only",
        errno.ENOTDIR: "a file is where a folder is needed",
        errno.EISDIR: "a folder of that name is in the way",
    }
    return known.get(error.errno or 0, error.strerror or str(error))


def output_error(path: Path, error: OSError) -> OutputError:
    """The readable form of a failure to write ``path``."""
    hint = "Choose another place with --out, or make room there."
    return OutputError(f"Cannot write {path}: {_reason(error)}.", hint=hint)


def make_folder(folder: Path) -> Path:
    """The folder, made with its parents where it was not there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def new_folder(wanted: Path) -> Path:
    """A folder that was not there before: ``wanted``, or ``wanted-2``, ``wanted-3``, ...

    Raises:
        OutputError: it cannot be made.
    """
    make_folder(wanted.parent)
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise output_error(folder, error) from error
        else:
            return folder


def _settle(folder: Path) -> None:
    """Make a rename in the folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well.

    Until then, and when the block fails or the process dies, whatever ``path`` held stays as it
    was.  The folder must exist.

    Raises:
        OutputError: no room, no permission, a folder in the way ...; nothing was changed.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(part, flags, 0o666)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _settle(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all; returns its path.

    Raises:
        OutputError: it cannot be written; what was there before is untouched.
    """
    with replacing(path) as file:
        file.write(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole or not at all; returns its path.

    Raises:
        OutputError: it cannot be written; what was there before is untouched.
    """
    return write_bytes(path, text.encode())


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder and those within it, sorted.

    Raises:
        UsageError: there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise UsageError(
            f"The folder {folder} has no pictures.",
            hint=f"Looked for {', '.join(sorted(PICTURES))}.",
        )
    return found
