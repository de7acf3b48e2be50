"""The application layer: what a recipe needs, what it does, and what is kept of it.

``plan`` says what would run and which models are missing; ``run`` runs; ``again`` repeats a run
from its folder or from one of its pictures, pixel for pixel; ``history`` and ``show`` look back.
The command line and the Python functions are thin faces of this module.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import time
import tomllib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided import expect
from guided.core import lineage
from guided.core.files import safe_name
from guided.core.run import Result, Run, Step
from guided.errors import CorruptWeights, GuidedError, MissingWeights, UsageError
from guided.keeping import RECIPE_FILE, RUN_FILE, Keeper
from guided.recipe import Recipe, task_module
from guided.tasks.base import Workbench
from guided.zoo.finding import find
from guided.zoo.folders import settle_network
from guided.zoo.kits import ROLES, load_kit

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

OUTPUTS = Path("outputs")
WEIGHTS = (".pt", ".pth", ".pkl", ".safetensors", ".bin")


# --------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Need:
    """A model a run needs: its role, its name, its file, or the error that says what is missing."""

    role: str
    name: str
    path: Path | None = None
    missing: str = ""


@dataclass(frozen=True)
class Plan:
    """What a recipe will do: the recipe, the models it needs, the folder it will write."""

    recipe: Recipe
    needs: tuple[Need, ...]
    folder: Path

    @property
    def missing(self) -> tuple[Need, ...]:
        """The models that are not on this computer."""
        return tuple(need for need in self.needs if need.missing)


def plan(recipe: Recipe) -> Plan:
    """What running the recipe will need and write; nothing is loaded.

    A verb needs the roles its module lists in ``NEEDS`` and those its options are named after, or
    those its ``needs(options)`` gives where that depends on them.

    Raises:
        UsageError: an unknown kit.
        CannotDo: a model made for another role.
    """
    module = task_module(recipe.task)
    kit = _kit(recipe)
    if hasattr(module, "needs"):
        roles = dict.fromkeys(module.needs(recipe.options))
    else:
        named = [key for key in type(recipe.options).model_fields if key in ROLES]
        roles = dict.fromkeys([*getattr(module, "NEEDS", ()), *named])
    needs = [_need(role, recipe, kit) for role in roles if _named(role, recipe, kit)]
    return Plan(recipe, tuple(needs), _folder(recipe))


def _kit(recipe: Recipe) -> Mapping[str, str]:
    kit: Mapping[str, str] = load_kit(recipe.kit)
    return kit


def _named(role: str, recipe: Recipe, kit: Mapping[str, str]) -> str:
    """The model of a role: the recipe's word goes before the kit's."""
    said = getattr(recipe.options, role, None)
    return said if isinstance(said, str) and said else kit.get(role, "")


def _need(role: str, recipe: Recipe, kit: Mapping[str, str]) -> Need:
    name = _named(role, recipe, kit)
    scheme, colon, place = name.partition(":")
    if colon and scheme == "local-dir":
        folder = Path(place)
        missing = "" if folder.is_dir() else f"There is no folder {folder}."
        return Need(role, name, folder if folder.is_dir() else None, missing)
    if colon:  # looked for in the hub's cache when it is loaded
        return Need(role, name)
    if Path(name).suffix in WEIGHTS:
        here = Path(name).is_file()
        return Need(role, name, Path(name) if here else None, "" if here else f"No file {name}.")
    try:
        return Need(role, name, find(name, role, online=False).path)
    except (MissingWeights, CorruptWeights) as error:
        return Need(role, name, missing=str(error))


def _slug(recipe: Recipe) -> str:
    """A few words that tell runs apart: the prompt, the text, or the kit."""
    for key in ("prompt", "prompts", "text", "texts", "query", "objective"):
        value = getattr(recipe.options, key, None)
        if isinstance(value, (list, tuple)) and value:
            value = value[0]
        if isinstance(value, str) and value:
            return safe_name(value)
    return safe_name(recipe.kit)


def _folder(recipe: Recipe) -> Path:
    """Where a run will be saved: --out, or a folder under outputs/ that is not there yet."""
    if recipe.out is not None:
        return Path(recipe.out).expanduser().absolute()
    day = datetime.date.today().isoformat()
    wanted = OUTPUTS / f"{day}-{recipe.task}-{_slug(recipe)}-s{recipe.seed}"
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder.absolute()


# --------------------------------------------------------------------------- run


def run(
    recipe: Recipe,
    *,
    save: bool = True,
    given: Mapping[str, Image.Image] | None = None,
    threads: int | None = None,
) -> Run[Result]:
    """The started run of a recipe: iterate its Steps or ask for ``.result()``.

    With ``save`` what it makes is kept in its run folder, if it makes pictures or files or if the
    recipe says ``out``.  ``given`` are pictures in memory, by the names the options use for them.
    ``threads`` sets torch's threads for the time of the run.

    Raises:
        UsageError: an unknown kit.
        OutputError: given pictures that cannot be saved.
    """
    settle_network(online=recipe.online)
    module = task_module(recipe.task)
    folder = _folder(recipe) if save else None
    if folder is not None:
        recipe = _rooted(recipe, given or {}, folder)
    bench = Workbench(
        seed=recipe.seed,
        device_name=recipe.device,
        kit=_kit(recipe),
        folder=folder,
        online=recipe.online,
        given={} if folder is not None else dict(given or {}),
    )
    keeper = Keeper(recipe, bench, time.time())
    bench.keep = keeper.save if folder is not None else None

    def finish(result: Result, steps: Sequence[Step[Any]]) -> Result:
        result.unmet = expect.unmet(recipe.expect, result, _reading(bench))
        if folder is not None:
            keeper.keep(result, steps)
        return result

    return Run(_threaded(module.run(recipe.options, bench), threads), finish)


def _rooted(recipe: Recipe, given: Mapping[str, Image.Image], folder: Path) -> Recipe:
    """The recipe with absolute paths, given pictures saved in the run folder first."""
    from guided.core.files import inside, make_folder, write_bytes

    if not given:
        return recipe.located(Path.cwd())
    make_folder(folder)
    for name, image in given.items():
        write_bytes(inside(folder, name), lineage.png_bytes(image.convert("RGB")))
    return recipe.located(Path.cwd(), {name: folder / name for name in given})


def _reading(bench: Workbench) -> expect.Read:
    """What the kit's reader sees in pictures; loaded when an expectation asks for it."""

    def read(images: Sequence[Image.Image]) -> list[Mapping[str, Any]]:
        from guided.core.images import to_tensor
        from guided.judging.reader import Reader

        reader = Reader.load(bench.kit.get("reader", "reader"), bench.device)
        readings = [reader.read(to_tensor([image]))[0] for image in images]
        return [dict(reading.attributes) for reading in readings]

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


# --------------------------------------------------------------------------- again


@dataclass(frozen=True)
class Past:
    """A run that was: its recipe and what must be equal to get the same pixels again."""

    recipe: Recipe
    setting: Mapping[str, Any]
    where: Path


def recall(path: str | Path) -> Past:
    """The recipe and setting kept in a run folder or in a picture.

    Raises:
        UsageError: neither a run folder nor a picture that carries a recipe.
        RecipeError: a recipe that cannot be understood.
    """
    path = Path(path)
    if path.is_dir():
        text, record = read_record(path)
        setting = record.get("setting", {})
    elif path.is_file():
        known = lineage.read(path)
        if known is None or not known.picture.recipe:
            raise UsageError(
                f"{path} carries no recipe.",
                hint="Only PNG files made by guided, as they were saved, remember how.",
            )
        text, setting = known.picture.recipe, known.picture.setting
    else:
        raise UsageError(f"There is no run folder or picture {path}.", hint="See: guided list runs")
    return Past(Recipe.loads(text, path.name), setting if isinstance(setting, dict) else {}, path)


def again(path: str | Path, *, out: str | None = None, save: bool = True) -> Run[Result]:
    """Repeat a run from its folder or one of its pictures, with its number of threads.

    The result is saved in a new folder (or ``out``), never over the old one, and nothing is
    downloaded.  On the same versions and the same kind of device the pixels are identical; other
    versions are logged.

    Raises:
        UsageError: nothing to repeat there.
        RecipeError: a recipe that cannot be understood.
    """
    past = recall(path)
    from guided.keeping import setting_now

    threads = past.setting.get("threads")
    count = threads if isinstance(threads, int) and 0 < threads <= 1024 else None
    then, now = past.setting.get("versions", {}), setting_now()["versions"]
    for name in sorted(set(then if isinstance(then, dict) else {}) & set(now)):
        if then[name] != now[name]:
            logger.warning("%s was %s then and is %s now.", name, then[name], now[name])
    return run(past.recipe.with_(out=out, online=False), save=save, threads=count)


# --------------------------------------------------------------------------- looking back


def read_record(folder: Path) -> tuple[str, dict[str, Any]]:
    """The recipe text and the run.json of a run folder.

    Raises:
        UsageError: not a run folder, or one that is damaged.
    """
    try:
        text = (folder / RECIPE_FILE).read_text(encoding="utf-8")
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} is not the folder of a finished run: {error}.", hint="See: guided list runs"
        ) from error
    if not isinstance(record, dict):
        raise UsageError(f"{folder / RUN_FILE} is damaged.", hint="See: guided list runs")
    return text, record


def history(outputs: Path = OUTPUTS) -> list[dict[str, Any]]:
    """The finished runs under a folder, the newest first: folder, task, seed, about, started."""
    found = []
    for record_file in outputs.glob(f"*/{RUN_FILE}"):
        try:
            text, record = read_record(record_file.parent)
            recipe = tomllib.loads(text)
        except (GuidedError, ValueError) as error:
            logger.warning("%s is left out: %s", record_file.parent, error)
            continue
        found.append(
            {
                "folder": str(record_file.parent.absolute()),
                "task": str(recipe.get("task", "")),
                "seed": recipe.get("seed", 0),
                "about": str(recipe.get("about", "")),
                "started": str(record.get("started", "")),
            }
        )
    return sorted(found, key=lambda past: (past["started"], past["folder"]), reverse=True)


def show(path: str | Path) -> dict[str, Any]:
    """What a picture (or run folder) tells: its recipe, note and whole lineage, the oldest first.

    Raises:
        UsageError: no such file, or nothing is told.
        ImageError: a file that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        text, record = read_record(path)
        return {"file": str(path.absolute()), "recipe": text, "run": record}
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    known = lineage.read(path)
    if known is None:
        raise UsageError(
            f"{path} carries no recipe.", hint="Only PNG files made by guided remember how."
        )
    line = [
        {"id": a.id, "name": a.name, "parents": list(a.parents), "note": dict(a.note),
         "recipe": a.recipe}
        for a in known.chain
    ]  # fmt: skip
    return {
        "file": str(path.absolute()),
        "recipe": known.picture.recipe,
        "note": dict(known.picture.note),
        "setting": dict(known.picture.setting),
        "lineage": line,
    }
