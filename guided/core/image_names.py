"""Image files by the names that other programs and computers give them."""

from __future__ import annotations

import ntpath
import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path


class ImageNames:
    """Image files by the names that tables give them, whatever system those were written on.

    A name is meant from the folder of its table.  Where there is no such file, ``\\`` may stand for
    ``/``, letters may be composed otherwise (NFC, NFD) or be of another case, and of an absolute
    path of another computer the longest end that is there counts.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._exact = {os.path.normpath(file): file for file in files}
        self._folds: list[dict[str, str | None]] = []

    def find(self, folder: str | Path, name: str) -> str | None:
        """The file that a table in ``folder`` calls ``name``, if there is one and only one."""
        exact = self._exact.get(os.path.normpath(os.path.join(folder, name)))  # noqa: PTH118
        if exact is not None:
            return exact
        plain = name.replace("\\", "/")
        ends = [plain]
        if posixpath.isabs(plain) or ntpath.splitdrive(name)[0]:
            parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
            ends += ["/".join(parts[start:]) for start in range(1, len(parts))]
        for end in ends:
            path = os.path.normpath(os.path.join(folder, end))  # noqa: PTH118
            for fold, known in zip((_composed, _caseless), self._folded(), strict=True):
                if file := self._exact.get(path) or known.get(fold(path)):
                    return file
        return None

    def _folded(self) -> list[dict[str, str | None]]:
        """The files by their names made alike; None where two have the same."""
        if not self._folds:
            for fold in (_composed, _caseless):
                known: dict[str, str | None] = {}
                for path, file in self._exact.items():
                    known[fold(path)] = None if fold(path) in known else file
                self._folds.append(known)
        return self._folds


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path.replace("\\", "/"))


def _caseless(path: str) -> str:
    return _composed(path).casefold()
