"""What happens, as a stream: every loop yields Steps and ends with a Result.

No callbacks: a command line draws a bar from the Steps, a page streams them, a test lists them,
and to cancel is to stop iterating.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from guided.core import unfinished
from guided.errors import GuidedError

if TYPE_CHECKING:
    from PIL import Image

DraftT = TypeVar("DraftT", covariant=True)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Step(Generic[DraftT]):
    """One unit of progress.

    ``index`` counts from 1 to ``total`` (None when the end is not known); ``losses`` are plain
    numbers by name (means over the batch); ``draft`` is what there is so far, if anything.
    """

    index: int
    total: int | None = None
    label: str = ""
    losses: Mapping[str, float] = field(default_factory=dict)
    draft: DraftT | None = None


class OutputImage:
    """An image a run made: saved under ``name`` in the run folder, shown as its path in answers.

    ``parents`` are the files it was made from, whose lineage it inherits; ``note`` is plain data
    kept in the file's metadata (for instance a latent's file name, a prompt, a strength).  One
    that is saved already has a ``path`` and opens its ``image`` from there, so that memory does
    not grow with the number of images.
    """

    def __init__(
        self,
        name: str,
        image: Image.Image | None,
        parents: tuple[str, ...] = (),
        note: Mapping[str, Any] | None = None,
        *,
        path: Path | None = None,
    ) -> None:
        self.name = name
        self.parents = parents
        self.note: Mapping[str, Any] = dict(note or {})
        self.path = path
        self._image = image

    @property
    def image(self) -> Image.Image:
        """What it shows; of a saved one a new copy each time."""
        if self._image is not None:
            return self._image
        from PIL import Image

        if self.path is None:
            raise GuidedError(f"{self.name} has neither an image nor a file.")
        with Image.open(self.path) as file:
            return file.copy()


class LazyImages(Sequence["Image.Image"]):
    """Images by position, each opened when it is looked at and not held."""

    def __init__(self, count: int, open_one: Callable[[int], Image.Image]) -> None:
        self._count = count
        self._open = open_one

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._open(i) for i in range(*place.indices(self._count))]
        if not 0 <= place < self._count:
            raise IndexError(place)
        return self._open(place)


@dataclass
class Result:
    """What a run made.

    ``answer`` is the object the command line prints with ``--json``; Pictures inside it become
    absolute file paths once saved.  ``files`` are further outputs by name: text or bytes.
    ``scores`` are numbers worth keeping in run.json.  ``folder`` is where the run was saved,
    ``failed_expectations`` the recipe's that it does not meet; both are filled in after the run.
    """

    answer: dict[str, Any]
    pictures: list[OutputImage] = field(default_factory=list)
    files: dict[str, str | bytes] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None
    failed_expectations: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[Image.Image]:
        """What the pictures show, those of the answer included."""
        return [picture.image for picture in self.output_images()]

    def output_images(self) -> list[OutputImage]:
        """The result's pictures and those in its answer, each once."""
        listed = [*self.pictures, *_images_in(self.answer)]
        return list({id(picture): picture for picture in listed}.values())


def _images_in(value: Any) -> list[OutputImage]:
    if isinstance(value, OutputImage):
        return [value]
    if isinstance(value, Mapping):
        return [picture for item in value.values() for picture in _images_in(item)]
    if isinstance(value, (list, tuple)):
        return [picture for item in value for picture in _images_in(item)]
    return []


def drain(steps: Generator[Step[Any], None, ResultT]) -> ResultT:
    """What a stream of Steps returns at its end, for those who do not want the Steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def renumber(
    steps: Generator[Step[Any], None, ResultT], part: int = 0, parts: int = 1, label: str = ""
) -> Generator[Step[Any], None, ResultT]:
    """The Steps of one of several equal parts (counted from 0), numbered among those of all.

    With a ``label`` they bear another name and no draft, which is the inner loop's own.
    """
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        done = part * (step.total or 0)
        total = None if step.total is None else parts * step.total
        name, draft = (label, None) if label else (step.label, step.draft)
        yield Step(done + step.index, total, name, step.losses, draft)


class Run(Generic[ResultT]):
    """A started job: iterate its Steps, or ask for its result.

    ``finish`` is called once with the result when the loop ended by itself (to save it); a run
    that was stopped has no result.
    """

    def __init__(
        self,
        steps: Generator[Step[Any], None, ResultT],
        finish: Callable[[ResultT, Sequence[Step[Any]]], ResultT] | None = None,
    ) -> None:
        unfinished.note("")
        self._steps = steps
        self._finish = finish
        self._seen: list[Step[Any]] = []
        self._result: list[ResultT] = []
        self._stopped = False
        self._failed = False

    def __iter__(self) -> Iterator[Step[Any]]:
        while not self._result and not self._stopped and not self._failed:
            step = self._advance()
            if step is None:
                return
            self._seen.append(Step(step.index, step.total, step.label, step.losses))
            yield step

    def _advance(self) -> Step[Any] | None:
        """The next Step; None at the end, where the result is kept."""
        self._failed = True  # until this step is through: a failed run has no result either
        try:
            step = next(self._steps)
        except StopIteration as end:
            result: ResultT = end.value
            self._result.append(self._finish(result, self._seen) if self._finish else result)
            step = None
        self._failed = False
        if self._stopped:  # by another thread, while the step ran
            self._steps.close()
            return None
        return step

    def stop(self) -> None:
        """End the run before its next Step; from any thread."""
        self._stopped = True
        with contextlib.suppress(ValueError):  # the step that runs now ends first
            self._steps.close()

    def result(self) -> ResultT:
        """The result, after all remaining Steps.

        Raises:
            GuidedError: the run was stopped before its end, or it failed earlier.
        """
        for _ in self:
            pass
        if not self._result:
            ended = "failed" if self._failed else "was stopped"
            raise GuidedError(f"This run {ended} before its end, so it has no result.")
        return self._result[0]
