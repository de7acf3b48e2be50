"""The held-out part of a user's captioned images: whole groups of like captions, by content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

#: The share of images held out, and the fewest and the most of them where the folder has enough.
SHARE, FEWEST, MOST = 0.1, 24, 1000
#: Captions of at least so many words that differ in one of them are near-identical.
LONG = 6
_ARTICLES = frozenset({"a", "an", "the"})

Words = tuple[str, ...]
Captions = Sequence[Sequence[str]]


def caption_words(caption: str) -> Words:
    """The different words of a caption in lower case, sorted, without punctuation and articles."""
    return tuple(sorted(set(re.findall(r"\w+", caption.casefold())) - _ARTICLES))


def _near(captions: Sequence[str]) -> Iterator[Words]:
    """Keys that a caption shares with every other that has its words but for one of many."""
    for caption in captions:
        words = caption_words(caption)
        yield words
        if len(words) >= LONG:
            yield from (words[:i] + words[i + 1 :] for i in range(len(words)))


def _equal(captions: Sequence[str]) -> Iterator[Words]:
    yield from map(caption_words, captions)


def _first(captions: Sequence[str]) -> Iterator[Words]:
    yield caption_words(captions[0])


def _apart(captions: Sequence[str]) -> Iterator[Words]:
    yield from ()


#: How images are grouped, from the strictest on: the first that leaves enough groups is taken.
_GROUPINGS: tuple[tuple[str, Callable[[Sequence[str]], Iterator[Words]]], ...] = (
    ("images with near-identical captions on one side", _near),
    ("images with an equal caption on one side", _equal),
    ("images with an equal first caption on one side", _first),
    ("images one by one, for most share their captions", _apart),
)


def held_out(contents: Sequence[str], captions: Captions) -> tuple[list[int], str]:
    """The rows to hold out, in order, and in words how they were split off.

    ``contents`` are digests of the images' files and alone decide, with the captions, which rows
    these are; equal files are always on one side.  Of 8 images on, about a tenth and at least 24
    are held out, never more than a quarter or 1000; of fewer images none.
    """
    count = len(contents)
    quota = min(max(round(SHARE * count), FEWEST), count // 4, MOST)
    if quota < 2:
        return [], "nothing held out, for there are too few images"
    for name, keys in _GROUPINGS:
        groups = _groups(contents, [keys(each) for each in captions])
        rows: list[int] = []
        for group in sorted(groups, key=lambda group: _order(contents, group)):
            if len(rows) + len(group) <= quota:
                rows += group
        if max(map(len, groups)) <= count // 2 and len(rows) >= max(2, quota // 2):
            return sorted(rows), name
    return [], "nothing held out, for all images are equal"


def _order(contents: Sequence[str], group: Sequence[int]) -> str:
    first = min(contents[row] for row in group)
    return hashlib.sha256(f"held out {first}".encode()).hexdigest()


def _groups(contents: Sequence[str], keys: Sequence[Iterable[Words]]) -> list[list[int]]:
    """Rows joined, directly or through others, by an equal content or key."""
    parent = list(range(len(contents)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[object, int] = {}
    for row, content in enumerate(contents):
        for key in (content, *keys[row]):
            parent[root(row)] = root(first.setdefault(key, row))
    groups: dict[int, list[int]] = {}
    for row in range(len(contents)):
        groups.setdefault(root(row), []).append(row)
    return list(groups.values())
