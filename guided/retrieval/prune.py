"""Entries of an index whose files are not there: found, and forgotten when asked to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from guided.core.text import restored
from guided.retrieval.scan import missing
from guided.retrieval.store import Store
from guided.retrieval.update import below_folder
from guided.retrieval.writer import Writer


def prune(writer: Writer) -> list[str]:
    """Forget the entries whose files are gone or cannot be reached; returns the files.

    Raises:
        StoreError: the index cannot be written.
    """
    link = writer.store.link
    entries = [restored(row[0]) for row in link.execute("SELECT file FROM items WHERE dead = 0")]
    refused = [restored(row[0]) for row in link.execute("SELECT file FROM unreadable")]
    gone = [file for file in entries if missing(file)]
    writer.remove([*gone, *(file for file in refused if missing(file))])
    if writer.wasteful() and not writer.store.damage():
        writer.compact()
    return gone


def ghosts(store: Store, folder: Path) -> dict[str, int]:
    """Folders outside of ``folder`` that are not there, with how many files the index has in each.

    Whether single files are gone is not looked at: that takes as long as to index them.
    """
    below, values = below_folder(folder)
    rows = store.link.execute(
        f"SELECT file_folder(file), count(*) FROM items WHERE dead = 0 AND NOT {below} GROUP BY 1",
        values,
    ).fetchall()
    found: Counter[str] = Counter()
    for place, count in rows:
        path = Path(restored(place))
        if not path.is_dir():
            while path.parent != path and not path.parent.is_dir():
                path = path.parent
            found[str(path)] += count
    return dict(found)
