"""Plain English for the values of the world, as answers, tags and drawing steps say them."""

from __future__ import annotations

_NAMES: dict[str, dict[str, str]] = {
    "hair_style": {"bun": "a bun", "ponytail": "a ponytail", "bob": "a bob"},
    "expression": {"smile": "smiling", "frown": "frowning"},
    "glasses": {"round": "round glasses", "square": "square glasses"},
    "hat": {"tophat": "top hat"},
    "beard": {"full": "full beard"},
}


def name(key: str, value: str) -> str:
    """The words for a value: "top hat" for tophat, "smiling" for smile, most as they are."""
    return _NAMES.get(key, {}).get(value, value)


def a(words: str) -> str:
    """The words with their article: "an orange shirt"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
