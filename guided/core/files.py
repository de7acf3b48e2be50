"""Files that are written whole or not at all, and names that never leave their folder."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from guided.core import unfinished
from guided.errors import OutputError

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
IMAGE_SUFFIXES = frozenset(
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


#: What the system says where a disk, or somebody's part of it, holds no more.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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
        errno.EEXIST: "a file of that name is in the way",
    }
    return known.get(error.errno or 0, error.strerror or str(error))


def output_error(path: Path, error: OSError) -> OutputError:
    """The readable form of a failure to write ``path``."""
    hint = "Name a folder that can be written with --out."
    if error.errno in FULL:
        state = unfinished.line() or "the same command can be given again after that"
        hint = f"Make room on that disk ({state}), or name a folder on another one with --out."
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


def numbered(path: Path) -> Iterator[Path]:
    """The path itself, then the same with ``-2``, ``-3``, ... before its ending, without end.

    >>> [path.name for path in itertools.islice(numbered(Path("a.png")), 3)]
    ['a.png', 'a-2.png', 'a-3.png']
    """
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def new_folder(wanted: Path) -> Path:
    """A folder that was not there before: ``wanted``, or ``wanted-2``, ``wanted-3``, ...

    It is made by this call alone, however many processes ask for the same name at once.

    Raises:
        OutputError: it cannot be made.
    """
    for folder in numbered(wanted):
        make_folder(wanted.parent)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise output_error(folder, error) from error
        return folder
    raise AssertionError("there is always a free number")


def check_writable(folder: Path) -> None:
    """Make sure, by a file that is gone again at once, that files can be made in a folder.

    Raises:
        OutputError: they cannot.
    """
    try:
        with _part(folder / "file"):
            pass
    except OSError as error:
        raise output_error(folder, error) from error


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
def _part(path: Path, mode: int = 0o666) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside ``path``, gone at the end unless it was moved; written through on close."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    unfinished.writing(part)
    try:
        handle = os.open(part, flags, mode)
        with os.fdopen(handle, "wb") as file:
            yield part, file
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        unfinished.written(part)


def _flushed(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends well.

    Until then, and when the block fails or the process dies, whatever ``path`` held stays as it
    was.  The folder must exist.

    Raises:
        OutputError: no room, no permission, a folder in the way ...; nothing was changed.
    """
    try:
        with _part(path) as (part, file):
            yield file
            _flushed(file)
            part.replace(path)
            _settle(path.parent)
    except OSError as error:
        raise output_error(path, error) from error


def _placed(part: Path, path: Path) -> bool:
    """Give a finished file the name ``path`` unless there is anything of that name.

    A hard link does both in one step; where the file system has none, an empty file holds the
    name until the finished one takes its place.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        part.replace(path)
    return True


def create_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> bool:
    """Write a file whole unless there is anything of that name; whether it was written.

    Of several processes that create the same name at once exactly one does.

    Raises:
        OutputError: it cannot be written.
    """
    if os.path.lexists(path):
        return False
    try:
        with _part(path, mode) as (part, file):
            file.write(data)
            _flushed(file)
            created = _placed(part, path)
            _settle(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    return created


def holds(path: Path, data: bytes) -> bool:
    """Whether a regular file has exactly this content."""
    try:
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


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
