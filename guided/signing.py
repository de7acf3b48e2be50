"""Signatures by which this computer knows the recipes of its own runs again.

A picture can be changed and passed on by anybody, and so can the recipe in it.  The recipes that a
run keeps are signed (HMAC-SHA256) with a random key that is made once for each user, readable by
nobody else, and that never leaves this computer.  A signature says nothing to those who have not
the key: not who made a picture, nor that two pictures are of the same maker.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from guided.core.files import create_bytes
from guided.errors import OutputError
from guided.zoo.folders import state_folder

KEY_FILE = "recipes.key"
_KEY_BYTES = 32


def sign(text: str) -> str:
    """The signature of a recipe's text, 64 hexadecimal digits; empty where no key can be kept."""
    return _signature(_key(make=True), text)


def is_own(text: str, signature: str) -> bool:
    """Whether a recipe's text was signed on this computer by this user."""
    expected = _signature(_key(make=False), text)
    return bool(expected) and hmac.compare_digest(expected.encode(), signature.encode())


def _signature(key: bytes, text: str) -> str:
    if not key:
        return ""
    data = b"guided recipe\0" + text.encode("utf-8", "surrogatepass")
    return hmac.new(key, data, "sha256").hexdigest()


def _key(*, make: bool) -> bytes:
    """The user's key, made if there is none yet; empty where there is none to be had."""
    folder = state_folder()
    if folder is None:
        return b""
    path = folder / KEY_FILE
    try:
        if make and not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            create_bytes(path, secrets.token_bytes(_KEY_BYTES), mode=0o600)
        return _read(path)
    except (OSError, OutputError):
        return b""


def _read(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        key = file.read(_KEY_BYTES + 1)
    return key if len(key) == _KEY_BYTES else b""
