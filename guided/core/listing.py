"""What lies in a folder: its files, those that look like pictures but are not read, closed folders.

The one walk over folders of a user's: hidden files and folders are left out (among them what macOS
writes beside files, ``._a.png``), links to folders are not followed, and what cannot be reached is
named, so that nobody takes it for gone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from guided.core.files import IMAGE_SUFFIXES
from guided.core.text import one_line
from guided.errors import UsageError

log = logging.getLogger(__name__)

_CONVERT = "save it as JPEG or PNG"
_REASONS = {
    f"HEIC pictures are not read; {_CONVERT}": ".heic .heif .hif .heics",
    f"a camera's raw file is not read; {_CONVERT}": (
        ".dng .cr2 .cr3 .crw .nef .nrw .arw .sr2 .raf .orf .rw2 .pef .srw .x3f .3fr .iiq .raw"
    ),
    "a drawing of lines is not read; export it as PNG": ".svg .svgz .eps .ai .wmf .emf .cdr",
    f"this format is not read; {_CONVERT}": (
        ".psd .psb .xcf .kra .jxl .jxr .exr .hdr .ico .icns .dds .pcx .pbm .pnm .pfm .sgi .xbm .xpm"
        " .fits .fit .jpf .jpx .j2k .j2c .avifs .apng .mng .dib .flif .bpg .procreate"
    ),
    "a video, not a picture": (
        ".mp4 .mov .m4v .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp .3g2 .mts .m2ts .ogv .vob"
    ),
}
_UNREAD = {ending: reason for reason, endings in _REASONS.items() for ending in endings.split()}
_LINKED = "a link to a folder, which is not followed; name that folder itself"


@dataclass
class Listing:
    """The visible files below ``folder`` in the order of their names, as paths in text.

    ``left_out`` are those that look like pictures and are not read, with the reason;
    ``unreachable`` are folders and files that the system does not let us see now.
    """

    folder: Path
    files: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> list[str]:
        """The files whose names end like pictures that are read."""
        return [file for file in self.files if ending(file) in IMAGE_SUFFIXES]

    def warn(self) -> None:
        """Name in the log what is left out and what cannot be reached."""
        for what, found in (
            ("left out", self.left_out),
            ("cannot be reached", self.unreachable),
        ):
            if found:
                log.warning("%s: %d %s: %s", self.folder, len(found), what, few(reasons(found)))


def list_folder(folder: Path, skip: Path | None = None) -> Listing:
    """All that is in a folder and those within it; nothing below ``skip`` is seen.

    Raises:
        UsageError: no such folder, or one that cannot be opened.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Name the folder of the pictures.")
    listing = Listing(folder)
    root = str(folder)
    hidden = str(skip.resolve()) if skip is not None else None

    def closed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else deleted while we look
            listing.unreachable[str(error.filename)] = error.strerror or str(error)

    for place, folders, names in os.walk(root, onerror=closed):
        visible = sorted(name for name in folders if not name.startswith("."))
        paths = {name: os.path.join(place, name) for name in visible}  # noqa: PTH118
        linked = {name for name in visible if os.path.islink(paths[name])}  # noqa: PTH114
        listing.left_out.update({paths[name]: _LINKED for name in linked})
        folders[:] = [
            name for name in visible
            if name not in linked and (hidden is None or os.path.realpath(paths[name]) != hidden)
        ]  # fmt: skip
        for name in sorted(names):
            if not name.startswith("."):
                file = os.path.join(place, name)  # noqa: PTH118
                if reason := _UNREAD.get(ending(name)):
                    listing.left_out[file] = reason
                else:
                    listing.files.append(file)
    if root in listing.unreachable:
        raise UsageError(
            f"The folder {folder} cannot be opened: {listing.unreachable[root]}.",
            hint="Check its permissions, and that its disk is connected.",
        )
    return listing


def ending(name: str) -> str:
    """The ending of a file's name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a Path for each file is slow)


def images_in(folder: Path) -> list[Path]:
    """The picture files in a folder and those within it, sorted; the log names what is left out.

    Raises:
        UsageError: there are none.
    """
    listing = list_folder(folder)
    images = sorted(map(Path, listing.images))
    if not images:
        raise UsageError(
            f"The folder {folder} has no pictures{others(listing)}.",
            hint=f"Looked for {', '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    listing.warn()
    return images


def others(listing: Listing) -> str:
    """What a folder without pictures has instead, for the end of a sentence."""
    named = reasons({**listing.left_out, **listing.unreachable})
    return f" that can be read: {few(named)}" if named else ""


def reasons(files: Mapping[str, str]) -> list[str]:
    """Files with their reasons, each as one line."""
    return [f"{one_line(file)} ({reason})" for file, reason in files.items()]


def few(names: Iterable[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
