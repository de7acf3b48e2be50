"""What the verbs that score pictures share: the scorer they run with, and their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guided.errors import CannotDo, UsageError
from guided.tasks.base import Workbench

if TYPE_CHECKING:
    from torch import Tensor

    from guided.scorers.clip import ClipScorer
    from guided.scorers.quick import Bulk

Precision = Literal["fp32", "bf16"]
BulkPrecision = Literal["fp32", "bf16", "int8"]
SCORER_HELP = "ARCHITECTURE/TAG, hf-hub:OWNER/MODEL, local-dir:FOLDER or a shipped name"
CACHE = "outputs/cache/classifiers"


def pick_scorer(
    bench: Workbench, name: str = "", precision: BulkPrecision = "fp32", *, many: bool = False
) -> ClipScorer:
    """The named scorer, or the kit's, on the run's device; run.json keeps its fingerprint.

    ``many``: for so many pictures that a CPU's own tower in bf16 pays.  ``int8`` is for picture
    files on a CPU; texts and everything else stay in fp32.

    Raises:
        CannotDo: neither a name nor a kit with a scorer.
        UsageError: int8 on another device.
        MissingWeights: files that are not on this computer.
    """
    from guided.core.device import Device
    from guided.scorers.clip import load_clip

    wanted = name or bench.kit.get("scorer", "")
    if not wanted:
        raise CannotDo("No scorer is named.", hint=f"Give --scorer: {SCORER_HELP}.")
    device = Device.pick(bench.device.name, "fp32" if precision == "int8" else precision)
    bulk: Bulk = precision if precision == "int8" or (many and precision == "bf16") else "same"
    scorer = load_clip(wanted, device, online=bench.online, bulk=bulk)
    bench.notes[scorer.name] = scorer.fingerprint
    return scorer


def embedded(
    scorer: ClipScorer, files: Sequence[str], bench: Workbench, errors: list[dict[str, str]]
) -> Iterator[tuple[list[str], Tensor, int]]:
    """Batches of absolute paths, their unit vectors [n, D], and how many files were seen so far.

    A picture given in memory keeps its name.  Files that cannot be read are appended to
    ``errors`` as the answer's ``errors`` entries.

    Raises:
        UsageError: no file.
    """
    if not files:
        raise UsageError("There is no picture.", hint="Name at least one picture file.")
    places = [file if file in bench.given else Path(file).absolute() for file in files]
    seen = 0
    for pixels, vectors in scorer.embed_files(places, given=bench.given):
        seen += len(pixels.files) + len(pixels.errors)
        errors.extend({"file": str(f), "error": why} for f, why in pixels.errors.items())
        yield [str(file) for file in pixels.files], vectors, seen


def answer(results: list[dict[str, Any]], errors: list[dict[str, str]]) -> dict[str, Any]:
    """The answer of a batch verb: results, and errors where there are any."""
    return {"results": results, "errors": errors} if errors else {"results": results}
