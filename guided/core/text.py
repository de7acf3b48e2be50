r"""Text that leaves the program: JSON, lines for people and UTF-8 files, for names of any bytes.

A file name may hold bytes that are not UTF-8.  Python reads such a byte 0xE9 as the lone surrogate
U+DCE9 (``os.fsdecode``, PEP 383), which no UTF-8 text can hold.  Each kind of text has one form
for it here:

- JSON has the escape ``\udce9``: valid JSON that ``json.loads`` reads back as the very name (and
  whole numbers beyond 2^53, which many readers round, as texts of digits);
- lines for people and tables show the same six characters;
- TOML and databases hold U+10DCE9, a private character that stands for it and is read back (one
  that is really meant has U+10DC00 before it).
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

EXACT = 2**53
"""The largest whole number that every reader of JSON takes as it is."""

_SURROGATES = re.compile("[\ud800-\udfff]")
#: What a reader of JSON lines might take for the end of a line, and what UTF-8 cannot hold.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: A weight before what it weighs.
_TERM = re.compile(r"([0-9]*\.?[0-9]+)\*(.+)", re.DOTALL)
_PRIVATE = 0x100000
_MEANT = "\U0010dc00"
_TO_STORE = re.compile("[\udc80-\udcff\U0010dc00\U0010dc80-\U0010dcff]")
_STORED = re.compile("\U0010dc00(.)|([\U0010dc80-\U0010dcff])", re.DOTALL)
#: Categories of characters that break a line, move the cursor or turn the direction of text.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # parts of emoji and of several scripts
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: Any, **how: Any) -> str:
    r"""The value as JSON that UTF-8 can hold; without ``indent`` it is one line for every reader.

    Whole numbers beyond ``EXACT`` become texts.  ``how`` are further options of ``json.dumps``.

    Raises:
        ValueError: a number that is not finite.
        TypeError: a value that JSON has no form for.

    >>> json_text({"file": "caf\udce9"})
    '{"file": "caf\\udce9"}'
    """
    text = json.dumps(_exact(value), **{"ensure_ascii": False, "allow_nan": False, **how})
    return _UNSAFE_IN_JSON.sub(lambda match: _escaped(match[0]), text)


def _exact(value: Any) -> Any:
    """The value with whole numbers beyond ``EXACT`` as texts of their digits."""
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exact(item) for item in value]
    return str(value) if isinstance(value, int) and abs(value) > EXACT else value


def one_line(text: str) -> str:
    r"""The text on one line for people: whatever would break or turn it is written as an escape.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return "".join(
        _SHORT.get(char) or _escaped(char)
        if unicodedata.category(char) in _UNSHOWN and char not in _JOINERS
        else char
        for char in text
    )


def encodable(text: str) -> str:
    r"""The text as UTF-8 can hold it: lone surrogates become their escapes, ``\udce9``."""
    return _SURROGATES.sub(lambda match: _escaped(match[0]), text)


def stored(name: str) -> str:
    """A file name as TOML and databases hold it; ``restored`` gives it back."""
    return _TO_STORE.sub(
        lambda match: (
            chr(ord(match[0]) + _PRIVATE) if ord(match[0]) < 0x10000 else _MEANT + match[0]
        ),
        name,
    )


def restored(name: str) -> str:
    """The file name that ``stored`` was given."""
    return _STORED.sub(lambda match: match[1] or chr(ord(match[2]) - _PRIVATE), name)


def there(path: Path) -> bool:
    """Whether there is such a file or folder; a name that no system takes is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def absolute(path: str | Path, folder: Path | None = None) -> Path:
    """The absolute path of a file that the user named, seen from ``folder`` (by default, here).

    ``~`` stands for a home folder only where no file is called so.
    """
    given = (folder or Path.cwd()) / path
    if str(path).startswith("~") and not there(given):
        with contextlib.suppress(RuntimeError):  # no such user: a name like any other
            return Path(path).expanduser()
    return given


def weighted_term(text: str) -> tuple[float, str]:
    """A weight and what it weighs, of ``2*TEXT`` or ``2*FILE``; weight 1 where none is given.

    >>> weighted_term("0.5*a hat"), weighted_term("a hat")
    ((0.5, 'a hat'), (1.0, 'a hat'))
    """
    match = _TERM.fullmatch(text)
    return (float(match[1]), match[2]) if match else (1.0, text)
