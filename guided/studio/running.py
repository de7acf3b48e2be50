"""A recipe runs: its folder is made, its threads are set, what it makes is kept."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided import expectations
from guided.core import lineage
from guided.core.files import check_writable, make_folder, new_folder
from guided.core.finite import check_answer
from guided.core.foreign_syntax import foreign_syntax
from guided.core.run import Result, Run, Step
from guided.models import check_here
from guided.recipe import Recipe, task_module
from guided.run_folder import RunWriter
from guided.studio.planning import check_placement, kit_of, needs_of_recipe, wanted_folder
from guided.tasks.base import TaskContext
from guided.zoo.folders import settle_network
from guided.zoo.kits import kit_world
from guided.zoo.named_files import check_named

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)


def run(
    recipe: Recipe,
    *,
    save: bool = True,
    given: Mapping[str, Image.Image] | None = None,
    objects: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> Run[Result]:
    """The started run of a recipe: iterate its Steps or ask for ``.result()``.

    With ``save`` what it makes is kept in its run folder, if it makes pictures or files or if the
    recipe says ``out``.  A folder under outputs/ is its own, however many runs start at once; in
    the folder ``out`` nothing is replaced but with the recipe's ``force``: where a name is taken
    the run's file gets the next free one.  ``given`` are pictures in memory, by the names the
    options use for them, ``objects`` models in memory.  ``threads`` sets torch's threads for the
    time of the run.

    Before anything heavy is imported the verb checks its options (``check(options, ctx)`` of its
    module, where it has one) and every model is looked for.

    Raises:
        UsageError: an unknown kit.
        OutputError: a folder that cannot be written, before any work; given pictures that cannot
            be saved.
    """
    settle_network(online=recipe.online)
    module = task_module(recipe.task)
    ctx = _bench(recipe, objects or {})
    folder, taken = _RunFolder(recipe) if save else None, set[Path]()
    if folder is None:
        ctx.given = dict(given or {})
    else:
        ctx.folder = folder.make
        recipe = recipe.located(Path.cwd(), _saved(recipe, given or {}, ctx, taken))
    check_named(vars(recipe.options).values())
    keeper = RunWriter(recipe, ctx, time.time(), taken)
    if folder is not None:
        ctx.keep, ctx.store = keeper.save, keeper.save_file
        ctx.recipe, ctx.out_given = recipe.data(), recipe.out is not None

    def finish(result: Result, steps: Sequence[Step[Any]]) -> Result:
        result.failed_expectations = expectations.failed(recipe.expect, result, _reading(ctx))
        keeper.keep(result, steps) if folder is not None else check_answer(result.answer)
        return result

    def steps() -> Generator[Step[Any], None, Result]:
        if recipe.out is not None and ctx.folder is not None:
            check_writable(ctx.folder)
        _check(recipe, ctx)
        try:
            result: Result = yield from module.run(recipe.options, ctx)
        except BaseException:
            if folder is not None:
                folder.leave()
            raise
        return result

    return Run(_threaded(steps(), threads), finish)


def _bench(recipe: Recipe, objects: Mapping[str, Any]) -> TaskContext:
    """What the recipe's common keys say, with models in memory."""
    return TaskContext(
        seed=recipe.seed,
        device_name=recipe.device,
        dtype=recipe.dtype,
        offload=recipe.offload,
        kit=kit_of(recipe),
        world_name=kit_world(recipe.kit),
        online=recipe.online,
        force=recipe.force,
        objects=objects,
    )


#: Keys that hold words for a model to read.
_PROMPTS = frozenset({
    "prompt", "prompts", "guide", "negative", "neutral", "source", "toward", "text", "label",
    "template", "query", "plus", "minus",
})  # fmt: skip


def _check(recipe: Recipe, ctx: TaskContext) -> None:
    """Refuse options that cannot work, then models that are not here; nothing is loaded."""
    for said in foreign_syntax(text for key, _, text in recipe.mentions() if key in _PROMPTS):
        logger.warning("%s", said)
    module = task_module(recipe.task)
    if hasattr(module, "check"):
        module.check(recipe.options, ctx)
    needs = needs_of_recipe(recipe)
    check_placement(recipe, needs)
    check_here(needs, online=recipe.online)


class _RunFolder:
    """The folder of one run: made when the run first needs it, gone again if it stays empty."""

    def __init__(self, recipe: Recipe) -> None:
        self._wanted, self._chosen = wanted_folder(recipe), recipe.out is not None
        self._made: Path | None = None

    def make(self) -> Path:
        """The folder ``out``, or one under outputs/ that no other run has."""
        if self._chosen:
            if not self._wanted.is_dir():
                self._made = make_folder(self._wanted)
            return self._wanted
        self._made = new_folder(self._wanted)
        return self._made

    def leave(self) -> None:
        """Remove the folder if this run made it and put nothing into it."""
        if self._made is not None:
            with contextlib.suppress(OSError):  # it has files
                self._made.rmdir()


def _saved(
    recipe: Recipe, given: Mapping[str, Image.Image], ctx: TaskContext, taken: set[Path]
) -> dict[str, Path]:
    """Where the pictures given in memory are, once saved in the run folder."""
    keeper = RunWriter(recipe, ctx, time.time(), taken)
    return {
        name: keeper.save_file(name, lineage.png_bytes(image.convert("RGB")))
        for name, image in given.items()
    }


def _reading(ctx: TaskContext) -> expectations.Read:
    """What the kit's reader sees in pictures; loaded when an expectation asks for it."""

    def read(images: Sequence[Image.Image]) -> list[Mapping[str, Any]]:
        return ctx.models.reader.attributes(images)

    return read


def _threaded(
    steps: Generator[Step[Any], None, Result], threads: int | None
) -> Generator[Step[Any], None, Result]:
    with _threads(threads):
        result = yield from steps
    return result


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Torch's thread count for a while (None leaves it alone)."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
