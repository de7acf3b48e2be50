"""Pickle machine: stack, memo and budgets of a pickle that is followed, not executed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from guided.errors import CorruptWeights

MAX_STEPS = 700_000
"""Instructions, and items that calls are given, in the pickle of the largest file."""
MAX_CALLS = 100_000
MAX_KEY = 64
"""Parts of a key that is a tuple, counted along every path."""
MAX_ODD_KEYS = 2000
"""Keys that are neither texts nor small numbers: equal hashes among them can be crafted."""
SPARE = 64 << 20
"""Bytes that any file may claim or copy besides what is in proportion to its size."""
_HASHING = ("OrderedDict", "EasyDict", "Counter", "set")


@dataclass(frozen=True, eq=False)
class Global:
    """``module.name``, not imported."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Blob:
    """Bytes of the file (or a text too long to matter): where they start, how many."""

    start: int
    length: int


@dataclass(eq=False)
class Table:
    """A dictionary or set: keys and values in turn."""

    items: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Made:
    """What a call would give; ``items`` are set on it later.

    A storage has the ``nbytes`` and the ``width`` of its elements in bytes.
    """

    function: Global | None
    arguments: Any = ()
    items: list[Any] = field(default_factory=list)
    nbytes: int = -1
    width: int = 1


@dataclass
class Rules:
    """What a kind of pickle may hold.

    ``kind`` is what such a file is called, ``allowed`` are instruction names; ``name`` accepts
    ``module, name`` or raises; ``call`` looks at a call and its result, ``persistent`` makes one
    of a persistent id; ``size`` is that of the file, to which budgets are in proportion.
    """

    kind: str
    allowed: frozenset[str]
    name: Callable[[str, str], None]
    call: Callable[[Made], None]
    persistent: Callable[[Any], Any]
    size: int
    hint: str


class Machine:
    """Stack, marks and memo as pickle has them, with the books that ``follow`` keeps."""

    def __init__(self, data: memoryview, rules: Rules, start: int) -> None:
        self.data, self.rules, self.at = data, rules, start
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.steps = self.calls = self.copied = self.odd = 0
        self.limit = steps_for(rules.size)

    # ------------------------------------------------------------------ reading

    def take(self, count: int) -> memoryview:
        """The next bytes of the file."""
        if count > len(self.data) - self.at:
            raise CorruptWeights(f"its pickle announces {count} bytes that are not there.")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> int:
        """The next number in struct's layout."""
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def line(self) -> str:
        """The next line of text, at most 1000 bytes."""
        head = bytes(self.data[self.at : self.at + 1000])
        length = head.find(b"\n")
        if length < 0:
            raise CorruptWeights("a name in its pickle has no end.")
        self.at += length + 1
        return head[:length].decode("utf-8", "replace")

    # ------------------------------------------------------------------ the stack

    def pop(self) -> Any:
        """Take the top value, never one below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise CorruptWeights("its pickle takes more than it has put down.")
        return self.stack.pop()

    def top(self) -> Any:
        """The top value, which stays."""
        value = self.pop()
        self.stack.append(value)
        return value

    def since_mark(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        if not self.marks:
            raise CorruptWeights("its pickle has an end without a beginning.")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    # ------------------------------------------------------------------ the books

    def check_key(self, key: Any) -> None:
        """Accept a key that is cheap to hash and to compare."""
        if isinstance(key, tuple) or (type(key) is int and abs(key) >= 1 << 60):
            size, todo = 0, [key]
            while todo:
                part = todo.pop()
                size += 1
                if isinstance(part, tuple):
                    todo.extend(part[: MAX_KEY + 1])
                if size > MAX_KEY:
                    raise CorruptWeights("a table in it has keys nested beyond all use.")
            self.odd += 1
            if self.odd > MAX_ODD_KEYS:
                raise CorruptWeights(
                    f"it has more than {MAX_ODD_KEYS} keys that are no plain names or numbers."
                )

    def charge(self, value: Any) -> None:
        """Put what a call is given on the books: items and bytes, two levels down."""
        parts = value if isinstance(value, tuple) else (value,)
        self.steps += len(parts)
        for part in parts:
            self.steps += _items(part)
            self.copied += part.length if isinstance(part, Blob) else 0
            self.copied += len(part) if isinstance(part, str) else 0
        if self.steps > self.limit:
            raise CorruptWeights(f"its calls are given more than {self.limit} items.")
        if self.copied > SPARE + 2 * self.rules.size:
            raise CorruptWeights("its calls would copy more bytes than such a file has use for.")

    def called(self, function: Any, arguments: Any) -> Made:
        """The inert result of a call."""
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise CorruptWeights(f"it makes more than {MAX_CALLS} calls.")
        if not isinstance(arguments, tuple) or not isinstance(function, (Global, Made)):
            raise CorruptWeights("a call in its pickle is malformed.")
        self.charge(arguments)
        if isinstance(function, Global) and function.name in _HASHING:
            self._check_members(arguments)
        made = Made(function if isinstance(function, Global) else None, arguments)
        self.rules.call(made)
        return made

    def _check_members(self, arguments: tuple[Any, ...]) -> None:
        """Accept what a table or set is made of: members, or pairs of keys and values."""
        for part in arguments:
            for item in part if isinstance(part, (list, tuple)) else ():
                self.check_key(item)
                if isinstance(item, (list, tuple)) and item:
                    self.check_key(item[0])

    def put(self, target: Any, pairs: list[Any]) -> None:
        """Keys and values set on a table."""
        for key in pairs[::2]:
            self.check_key(key)
        if isinstance(target, (Table, Made)):
            target.items += pairs

    def remember(self, number: int) -> None:
        """Put the top value into the memo; numbers never run ahead of the instructions."""
        if number > self.steps:
            at = self.at - (1 if number < 256 else 4) - 1
            raise CorruptWeights(f"the memo number {number} at byte {at} is impossible.")
        self.memo[number] = self.top()

    def recall(self, number: int) -> None:
        """Put a value of the memo on the stack."""
        if number not in self.memo:
            raise CorruptWeights(f"its pickle asks for the memo number {number}, which is empty.")
        self.stack.append(self.memo[number])


def steps_for(size: int) -> int:
    """The instructions that a file of ``size`` bytes may have: 20,000 tensors take 640,000."""
    return min(200_000 + size // 16, MAX_STEPS)


def _items(part: Any) -> int:
    if isinstance(part, (list, tuple)):
        return len(part)
    return len(part.items) if isinstance(part, (Table, Made)) else 0
