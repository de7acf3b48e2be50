"""A small language of conditions on pictures, turned into SQL with bound values only.

    year >= 2020 and (tag = 'cat' or name contains 'cat') and not attributes.hat = 'none'

Names are ``file``, ``name`` (the last part of the file), ``folder``, ``size`` (bytes) or any key
of the metadata, with dots for nested ones.  Comparisons: = != < <= > >= in (...), ``key exists``
and ``key contains 'part'`` (ignoring case; of a list, any element's part).  Values are numbers,
'texts', true, false and none.  A number never compares with a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from guided.errors import UsageError

Value = str | int | float | None

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
    r"|(?P<word>[^\W\d][\w-]*(?:\.[\w-]+)*)"
    r"|(?P<mark><=|>=|!=|==|=|<|>|\(|\)|,))"
)
_COMPARISONS = {"=": "IS", "==": "IS", "!=": "IS NOT", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_CONSTANTS: dict[str, Value] = {"true": 1, "false": 0, "none": None, "null": None}
_RESERVED = {"and", "or", "not", "in", "contains", "exists"}
_COLUMNS = {
    "file": "file",
    "size": "size",
    "name": "file_name(file)",
    "folder": "file_folder(file)",
}
_DEEPEST = 50
_LONGEST = 4000


@dataclass(frozen=True)
class Condition:
    """An SQL condition on the table ``items`` and the values bound to its question marks."""

    sql: str
    values: tuple[Value, ...] = ()


def parse(text: str) -> Condition:
    """The condition a filter stands for.

    Raises:
        UsageError: a filter that cannot be read; the message shows where.

    >>> parse("year = 2020 and tag = 'cat'").values
    ('$."year"', 2020, '$."tag"', 'cat')
    """
    if len(text) > _LONGEST:
        raise UsageError(f"The filter has {len(text)} characters; at most {_LONGEST} are read.")
    reader = _Reader(text)
    condition = reader.either()
    if reader.kind:
        raise reader.error("expected 'and', 'or' or the end")
    return condition


class _Reader:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.kind = self.token = ""
        self.end = 0
        self.depth = 0
        self.advance()

    def error(self, wanted: str) -> UsageError:
        rest = self.text[self.at :].strip()
        where = f"at {rest[:40]!r}" if rest else "at its end"
        return UsageError(
            f"The filter {self.text!r} cannot be read {where}: {wanted}.",
            hint="For example: year >= 2020 and tag = 'cat'",
        )

    def advance(self) -> str:
        """The present token, moving on to the next."""
        last, self.at = self.token, self.end
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            self.kind = self.token = ""
            if self.text[self.end :].strip():
                raise self.error("a name, a value or a comparison was expected")
            return last
        self.kind, self.end = str(match.lastgroup), match.end()
        self.token = match.group(self.kind)
        return last

    def word(self, *wanted: str) -> bool:
        """Consume one of these words, if it is next."""
        if self.kind == "word" and self.token.lower() in wanted:
            self.advance()
            return True
        return False

    def either(self) -> Condition:
        return self._joined("or", self.both)

    def both(self) -> Condition:
        return self._joined("and", self.single)

    def _joined(self, joint: str, part: Callable[[], Condition]) -> Condition:
        found = [part()]
        while self.word(joint):
            found.append(part())
        if len(found) == 1:
            return found[0]
        sql = f" {joint.upper()} ".join(f"({c.sql})" for c in found)
        return Condition(sql, tuple(v for c in found for v in c.values))

    def single(self) -> Condition:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error(f"parentheses and 'not' go at most {_DEEPEST} deep")
        try:
            if self.word("not"):
                inner = self.single()
                return Condition(f"NOT ({inner.sql})", inner.values)
            if self.token == "(":
                self.advance()
                inner = self.either()
                if self.token != ")":
                    raise self.error("expected ')'")
                self.advance()
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> Condition:
        if self.kind != "word" or self.token.lower() in _RESERVED:
            raise self.error("expected a name")
        column, path = _column(self.advance())
        if self.word("exists"):
            return Condition(f"{column} IS NOT NULL", path)
        if self.word("contains"):
            value = self.value()
            return Condition(f"coalesce(has_text({column}, ?), 0)", (*path, value))
        if self.word("in"):
            values = self.several()
            marks = " OR ".join(f"{column} IS ?" for _ in values)
            return Condition(marks, tuple(v for value in values for v in (*path, value)))
        if self.kind != "mark" or self.token not in _COMPARISONS:
            raise self.error("expected a comparison: = != < <= > >= contains in exists")
        sign = self.advance()
        value = self.value()
        if sign in ("=", "==", "!="):
            return Condition(f"{column} {_COMPARISONS[sign]} ?", (*path, value))
        kinds = "'text'" if isinstance(value, str) else "'integer', 'real'"
        return Condition(
            f"coalesce({column} {sign} ? AND typeof({column}) IN ({kinds}), 0)",
            (*path, value, *path),
        )

    def several(self) -> list[Value]:
        if self.token != "(":
            raise self.error("expected '(' after 'in'")
        self.advance()
        values = [self.value()]
        while self.token == ",":
            self.advance()
            values.append(self.value())
        if self.token != ")":
            raise self.error("expected ',' or ')'")
        self.advance()
        return values

    def value(self) -> Value:
        if self.kind == "text":
            raw = self.advance()
            return raw[1:-1].replace(raw[0] * 2, raw[0])
        if self.kind == "number":
            raw = self.advance()
            return int(raw) if re.fullmatch(r"-?\d{1,18}", raw) else float(raw)
        if self.kind == "word" and self.token.lower() in _CONSTANTS:
            return _CONSTANTS[self.advance().lower()]
        raise self.error("expected a number, a 'text', true, false or none")


def _column(name: str) -> tuple[str, tuple[str, ...]]:
    """The SQL of a name and what is bound to it: a column, or a path into the metadata."""
    if name in _COLUMNS:
        return _COLUMNS[name], ()
    path = "$" + "".join(f'."{part}"' for part in name.split("."))
    return "json_extract(metadata, ?)", (path,)
