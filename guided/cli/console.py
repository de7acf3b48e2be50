"""Lines, tables and colors for a terminal, through rich; plain text in a pipe.

rich is imported on a terminal only.  What is shown is never read as markup: file names and captions
come from anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from guided.core.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

#: The colors of words that say how something stands.
STATES = {
    "ok": "green", "shipped": "green", "broken": "bold red", "damaged": "bold red",
    "missing": "yellow", "not here": "yellow", "optional": "yellow", "warning": "yellow",
    "error": "bold red",
}  # fmt: skip


def terminal(stream: IO[str]) -> Console | None:
    """A console that draws on the stream, or None where it is a pipe or a file."""
    if not stream.isatty():
        return None
    from rich.console import Console

    return Console(
        file=stream, force_terminal=True, force_jupyter=False, markup=False, highlight=False,
        emoji=False, soft_wrap=True,
    )  # fmt: skip


def fitting(text: str, stream: IO[str]) -> str:
    r"""The text on one line, in characters of the stream's encoding: others become ``\u2014``."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return one_line(text).encode(encoding, "backslashreplace").decode(encoding)


def line(text: str, style: str = "", *, head: str = "", err: bool = False) -> None:
    """A line on stdout (or stderr), and on a terminal in a style.

    ``head`` is what the line begins with; given one, that alone is styled.
    """
    stream = sys.stderr if err else sys.stdout
    whole, head = fitting(head + text, stream), fitting(head, stream)
    console = terminal(stream)
    if console is None:
        stream.write(f"{whole}\n")
        stream.flush()
        return
    from rich.text import Text

    shown = Text(whole)
    shown.stylize(style, 0, len(head) or None)
    console.print(shown)


def table(
    rows: Sequence[Mapping[str, str]],
    lines: Sequence[str],
    *,
    prose: Collection[str] = (),
    numbers: Collection[str] = (),
) -> None:
    """Rows as a table with a head on a terminal; as ``lines`` in a pipe and where it is too narrow.

    Columns in ``prose`` may be broken over several lines, others (names, paths) never; those in
    ``numbers`` are set to the right; ``STATES`` have their colors.
    """
    console = terminal(sys.stdout)
    if console is None or not rows:
        for each in lines:
            line(each)
        return
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    keys = dict.fromkeys(key for row in rows for key in row)
    for key in keys:
        drawn.add_column(
            key.replace("_", " "),
            justify="right" if key in numbers else "left",
            no_wrap=key not in prose,
            style="bold cyan" if key == next(iter(keys)) else "",
        )
    for row in rows:
        cells = [fitting(row.get(key, ""), sys.stdout) for key in keys]
        drawn.add_row(*(Text(cell, STATES.get(cell, "")) for cell in cells))
    unbounded = console.options.update(max_width=10_000)
    if Measurement.get(console, unbounded, drawn).minimum <= console.width:
        console.print(drawn, soft_wrap=False)
        return
    for each in lines:
        line(each)
