"""What indexing and searching share: bring the index of a folder up to date with a scorer."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core import unfinished
from guided.core.listing import few, reasons
from guided.core.run import Step

if TYPE_CHECKING:
    from torch import Tensor

    from guided.retrieval.scan import FolderSurvey
    from guided.retrieval.update import Embed, UpdateStats
    from guided.scorers.clip import ClipScorer


@dataclass(frozen=True)
class IndexingOptions:
    """How files are read and committed: pictures a pass, decoding threads, pictures a commit."""

    batch: int = 32
    threads: int = 2
    commit: int = 256
    exact: bool = False


def update_index(
    scorer: ClipScorer, found: FolderSurvey, place: Path, habits: IndexingOptions
) -> Generator[Step[Any], None, tuple[UpdateStats, int]]:
    """Index what is new or changed in a folder; the tally and the number of files at the end.

    Raises:
        StoreError: an index made with another scorer, or another process writing to it.
    """
    from guided.retrieval.store import open_or_create
    from guided.retrieval.update import UpdateStats, update
    from guided.retrieval.writer import Writer

    with (
        open_or_create(place, scorer.name, scorer.fingerprint, scorer.width) as store,
        Writer(store) as writer,
    ):
        tally = UpdateStats()
        embed = _embedder(scorer, habits)
        for tally in update(writer, found, embed, commit=habits.commit):
            done = tally.added + tally.skipped + len(tally.errors)
            unfinished.note(
                f"{len(store)} files are in the index {place}; the same command goes on"
            )
            yield Step(max(done, 1), None, "index")
        return tally, len(store)


def not_used(found: FolderSurvey, tally: UpdateStats) -> list[str]:
    """Sentences about what of a folder is not in the index, or could not be looked at."""
    return [*found.warnings] + [
        f"{len(listed)} {what}: {few(reasons(listed))}"
        for what, listed in (
            ("files are left out", found.left_out),
            ("pictures cannot be read", tally.errors),
            ("places cannot be reached now", tally.unreachable),
        )
        if listed
    ]


def _embedder(scorer: ClipScorer, habits: IndexingOptions) -> Embed:
    import torch

    def embed(files: Sequence[Path]) -> tuple[list[Path], Tensor, Mapping[Path, str]]:
        done: list[Path] = []
        errors: dict[Path, str] = {}
        parts = []
        for pixels, vectors in scorer.embed_files(
            files, batch=habits.batch, threads=habits.threads, exact=habits.exact
        ):
            done.extend(pixels.files)
            errors.update(pixels.errors)
            parts.append(vectors.cpu())
        return done, torch.cat(parts), errors

    return embed
