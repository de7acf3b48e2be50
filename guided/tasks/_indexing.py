"""What indexing and searching share: bring the index of a folder up to date with a scorer."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided.core.run import Step
from guided.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from guided.index.update import Embed, Tally
    from guided.scorers.clip import ClipScorer


@dataclass(frozen=True)
class Habits:
    """How files are read and committed: pictures a pass, decoding threads, pictures a commit."""

    batch: int = 32
    threads: int = 2
    commit: int = 256
    exact: bool = False


def check_folder(folder: Path, place: Path) -> None:
    """Accept a folder that holds a picture outside the index at ``place``.

    Raises:
        UsageError: no such folder, or no picture in it.
    """
    from guided.index.scan import pictures

    if not any(True for _ in pictures(folder, skip=place)):
        raise UsageError(
            f"There is no picture in the folder {folder}.",
            hint="Name a folder that holds PNG, JPEG, WebP, GIF, TIFF or BMP files.",
        )


def bring_up_to_date(
    scorer: ClipScorer,
    folder: Path,
    place: Path,
    metadata: Mapping[str, Mapping[str, Any]],
    habits: Habits,
) -> Generator[Step[Any], None, tuple[Tally, int]]:
    """Index what is new or changed in a folder; the tally and the number of files at the end.

    Raises:
        StoreError: an index made with another scorer, or another process writing to it.
    """
    from guided.index.store import open_or_create
    from guided.index.update import Tally, update
    from guided.index.writer import Writer

    with (
        open_or_create(place, scorer.name, scorer.fingerprint, scorer.width) as store,
        Writer(store) as writer,
    ):
        tally = Tally()
        embed = _embedder(scorer, habits)
        for tally in update(writer, folder, embed, metadata=metadata, commit=habits.commit):
            done = tally.added + tally.skipped + len(tally.errors)
            yield Step(max(done, 1), None, "index")
        return tally, len(store)


def _embedder(scorer: ClipScorer, habits: Habits) -> Embed:
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
