"""Rerun of a run: from its folder or one of its pictures, pixel for pixel where the weights are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guided.core import lineage, toml
from guided.core.precision import CHOICES
from guided.core.run import Result, Run
from guided.errors import UsageError
from guided.models.placement import GENERATIVE
from guided.recipe import Recipe
from guided.run_folder import setting_now
from guided.signing import is_own
from guided.studio.consent import consent_requests
from guided.studio.planning import needs_of_recipe
from guided.studio.records import read_record
from guided.studio.running import run
from guided.zoo.resolve import card_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecord:
    """A run that was: its recipe and what must be equal to get the same pixels again.

    ``consent_requests`` are what a recipe that was not made on this computer asks for beyond known
    models and the files beside it; it is run only by those who trust it.
    """

    recipe: Recipe
    setting: Mapping[str, Any]
    where: Path
    consent_requests: tuple[str, ...] = ()

    def trusted(self, *, trust: bool = False) -> Recipe:
        """The recipe as it may be run: here, without the network, replacing nothing.

        Raises:
            UsageError: it asks for more than it may have and is not trusted; all is named.
        """
        if self.consent_requests and not trust:
            raise UsageError(f"{self.told()} Nothing was done.", hint=_HINT.format(self.where))
        return self.recipe.with_(out=None, online=False, force=False)

    def changed_models(self) -> list[str]:
        """The models whose weights are others now than the ones it was made with, by name.

        A run or picture that does not say which weights it was made with (of version 0.1.0) is
        compared with those that its version shipped.
        """
        known = self.setting.get("weights")
        then = known if isinstance(known, dict) and known else dict(self._shipped_then())
        return sorted(filter(lambda name: _changed(name, then[name]), then))

    def _shipped_then(self) -> Iterator[tuple[str, str]]:
        """Names and sha256 of the recipe's models as its version of guided shipped them."""
        versions = self.setting.get("versions")
        version = str(versions.get("guided")) if isinstance(versions, dict) else ""
        for need in needs_of_recipe(self.recipe):
            card = card_of(need.name)
            if card is not None and version in card.earlier:
                yield need.name, card.earlier[version]

    def told(self) -> str:
        """What the recipe would do, for the user to decide on."""
        listed = [*self.consent_requests[:_MOST_SHOWN]]
        if len(self.consent_requests) > _MOST_SHOWN:
            listed.append(f"and {len(self.consent_requests) - _MOST_SHOWN} more of the kind")
        return (
            f"The recipe in {self.where} is not one that guided signed on this computer "
            f"(made elsewhere, by an older version, or changed since). It would run "
            f"{self.recipe.task!r} with the kit {self.recipe.kit!r} into a new folder, and "
            f"{'; '.join(listed)}."
        )


_MOST_SHOWN = 12
_HINT = "See all of it: guided show {0}. If you trust it, add --trust (in Python: trust=True)."


def load_run(path: str | Path) -> RunRecord:
    """The recipe and setting kept in a run folder or in a picture.

    Raises:
        UsageError: neither a run folder nor a picture that carries a recipe.
        RecipeError: a recipe that cannot be understood.
    """
    path = Path(path)
    if path.is_dir():
        text, record = read_record(path)
        setting, signature = record.get("setting", {}), str(record.get("signature", ""))
        if isinstance(setting, dict):
            setting = {**setting, "weights": record.get("weights")}
    elif path.is_file():
        known = lineage.read(path)
        if known is None or not known.picture.recipe:
            raise UsageError(
                f"{path} carries no recipe.",
                hint="Only PNG files made by guided, as they were saved, remember how.",
            )
        text, setting = known.picture.recipe, known.picture.setting
        signature = known.picture.signature
    else:
        raise UsageError(f"There is no run folder or picture {path}.", hint="See: guided list runs")
    if "recipe" in toml.parse(text, path.name):  # which is read as soon as it is looked at
        raise UsageError(
            f"The recipe in {path} names another recipe's file, which no run keeps.",
            hint=f"Read it with: guided show {path}",
        )
    recipe = Recipe.loads(text, path.name)
    asked = () if is_own(text, signature) else tuple(consent_requests(recipe, folder_beside(path)))
    return RunRecord(recipe, setting if isinstance(setting, dict) else {}, path, asked)


def _with_dtype_of(recipe: Recipe, setting: Mapping[str, Any]) -> Recipe:
    """The recipe in the dtype that its run had where it says none: before 0.2.0 that was fp32."""
    from guided.core.device import Device

    then = setting.get("dtype", "fp32")
    takes = GENERATIVE & {need.role for need in needs_of_recipe(recipe)}
    if recipe.dtype is not None or not takes or then not in CHOICES["dtype"]:
        return recipe
    on_cpu = Device.pick(recipe.device).torch.type == "cpu"
    return recipe if on_cpu and then == "fp32" else recipe.with_(dtype=then)


def _changed(name: str, sha256: object) -> bool:
    """Whether the model of a name is another one now; where it has no card, nobody knows."""
    card = card_of(name)
    return card is not None and card.sha256 not in (None, sha256)


def folder_beside(path: Path) -> Path:
    """The folder whose files belong to a picture or a run folder."""
    return path if path.is_dir() else path.absolute().parent


def rerun(
    past: str | Path | RunRecord,
    *,
    out: str | None = None,
    force: bool = False,
    trust: bool = False,
    save: bool = True,
) -> Run[Result]:
    """Repeat a run from its folder or one of its pictures, with its number of threads.

    The result is saved in a new folder (or ``out``), never over the old one (but with ``force``),
    and nothing is downloaded.  With the same versions and weights and on the same kind of device
    the pixels are identical; other versions are logged, and so is each model that has changed.

    A recipe that was signed on this computer is the user's own.  Any other is data: without
    ``trust`` it may use the known models and the files beside it and write into its new folder.

    Raises:
        UsageError: nothing to repeat there, or a recipe that asks for more and is not trusted.
        RecipeError: a recipe that cannot be understood.
    """
    past = past if isinstance(past, RunRecord) else load_run(past)
    recipe = past.trusted(trust=trust).with_(out=out, force=force)
    recipe = _with_dtype_of(recipe, past.setting)
    threads = past.setting.get("threads")
    count = threads if isinstance(threads, int) and 0 < threads <= 1024 else None
    then, now = past.setting.get("versions", {}), setting_now()["versions"]
    for name in sorted(set(then if isinstance(then, dict) else {}) & set(now)):
        if then[name] != now[name]:
            logger.warning("%s was %s then and is %s now.", name, then[name], now[name])
    if changed := past.changed_models():
        logger.warning(
            "The weights of %s have changed since: this result may differ from that one.",
            ", ".join(changed),
        )
    return run(recipe, save=save, threads=count)
