"""Losses from outside the package: an entry point, a module, a class of a script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

import guided
from guided import studio
from guided.core import loss_tables
from guided.core.objective import BoundLoss, Candidate, Loss, LossContext
from guided.errors import CannotDo, RecipeError, UsageError
from guided.recipe import Recipe
from tests.generic.outside import Warm
from tests.helpers.installed import install
from tests.helpers.tiny_edit import write_models

EDIT: dict[str, Any] = {"prompt": ["red hat"], "method": "optimise", "steps": 3, "seed": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the user's that adds ``warm`` by an entry point."""
    install(tmp_path, monkeypatch, "guided.losses", warm="tests.generic.outside:Warm")


@dataclass(frozen=True)
class Pull(Loss):
    """Mean of ``net`` over the image, [B]; the model is an object of the user's."""

    net: Any

    def bind(self, scene: LossContext) -> BoundLoss:
        """Nothing to prepare."""

        def loss(draft: Candidate) -> Tensor:
            values: Tensor = self.net(draft.image).flatten(1).mean(1)
            return values

        return loss


def edited(**options: Any) -> list[dict[str, float]]:
    """The losses at each step of an edit."""
    run = guided.edit(**{**EDIT, **options})
    return [dict(step.losses) for step in run if step.label == "optimise"]


def test_an_entry_point_is_used_from_every_side(
    installed: None, models: dict[str, str], tmp_path: Path, guided_cli: Callable
) -> None:
    listed = guided_cli("list", "losses")
    assert "warm" in listed.out.split()
    recipe = tmp_path / "warm.toml"
    recipe.write_text(
        'task = "edit"\nprompt = ["red hat"]\nmethod = "optimise"\nsteps = 3\nseed = 4\n'
        + "".join(f'{role} = "{name}"\n' for role, name in models.items())
        + '[[loss]]\nkind = "warm"\nmargin = 0.5\n[[loss]]\nkind = "latent_l2"\nweight = 0.01\n'
    )
    told = guided_cli("run", recipe, "--out", tmp_path / "cli", "--json")
    assert told.status == 0, told.err
    by_table = [{"kind": "warm", "margin": 0.5}, {"kind": "latent_l2", "weight": 0.01}]
    one = edited(loss=by_table, **models)
    other = edited(loss=Warm(0.5) + 0.01 * guided.LatentL2(), **models)
    assert one == other
    assert one[-1]["warm"] < one[0]["warm"]
    kept = Recipe.load(tmp_path / "cli" / "recipe.toml").data()["loss"]
    assert [table["kind"] for table in kept] == ["warm", "latent_l2"]
    wrong = guided_cli("run", recipe, "--set", "loss.0.kind=warmth")
    assert wrong.status == 2


def test_objects_and_lists_of_them_are_tables(models: dict[str, str], tmp_path: Path) -> None:
    """A loss of a module, in a sum, in a list and alone, is found again; its model is kept."""
    net = nn.Conv2d(3, 1, 1).requires_grad_(False)
    one = edited(loss=Pull(net) + 0.5 * Warm(0.2), out=str(tmp_path / "run"), **models)
    other = edited(loss=[Pull(net), 0.5 * Warm(0.2)], **models)
    assert one == other
    assert one[-1]["pull"] < one[0]["pull"]
    assert set(edited(loss=Warm(), **models)[0]) == {"warm", "total"}
    kept = Recipe.load(tmp_path / "run" / "recipe.toml")
    tables = kept.data()["loss"]
    assert [table["kind"] for table in tables] == [f"{__name__}:Pull", "tests.generic.outside:Warm"]
    assert tables[1] == {"kind": "tests.generic.outside:Warm", "weight": 0.5, "margin": 0.2}
    again = [dict(s.losses) for s in studio.rerun(tmp_path / "run", out=str(tmp_path / "again"))
             if s.label == "optimise"]  # fmt: skip
    assert again == one


def test_a_run_that_needs_what_is_gone_says_so(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**table: Any) -> RecipeError:
        with pytest.raises(RecipeError) as caught:
            edited(loss=[table], **models)
        return caught.value

    gone = refused(kind="no_such_package.losses:Warm")
    assert "'no_such_package.losses:Warm' is not here: No module named" in gone.message
    assert "Install the package of no_such_package.losses" in (gone.hint or "")
    script = refused(kind="__main__:Gone")
    assert "is not here" in script.message
    assert "hand it over: loss=Gone(...)" in (script.hint or "")
    table = loss_tables.table_of(Pull(nn.Identity()))
    monkeypatch.setattr(loss_tables, "_objects", {})
    lost = refused(**table)
    assert "was given net = <object" in lost.message
    with pytest.raises(CannotDo, match="which is no Loss"):
        edited(loss=[{"kind": "pathlib:Path"}], **models)
    with pytest.raises(RecipeError, match="there is no loss 'latent_l3'"):
        edited(loss=[{"kind": "latent_l3"}], **models)


def test_a_class_of_a_script_runs_there_and_is_missed_elsewhere(
    models: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from dataclasses import dataclass\nimport guided\n"
        "from guided.core.objective import Loss\n\n@dataclass(frozen=True)\n"
        "class Dark(Loss):\n    floor: float = 0.0\n\n    def bind(self, scene):\n"
        "        return lambda d: (d.image - self.floor).flatten(1).mean(1)\n\n"
        f"models = {models!r}\n"
        "run = guided.edit(prompt=['red hat'], method='optimise', steps=2, out='run',\n"
        "                  loss=Dark(0.25) + guided.LatentL2(), **models)\n"
        "print([round(s.losses['dark'], 9) for s in run if s.label == 'optimise'])\n"
        "again = guided.rerun('run', out='again')\n"
        "print([round(s.losses['dark'], 9) for s in again if s.label == 'optimise'])\n"
    )
    tree = str(Path(guided.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": tree, "HOME": str(tmp_path),
             "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first == second
    with pytest.raises(RecipeError, match="'__main__:Dark' is not here"):
        studio.run(Recipe.load(tmp_path / "run" / "recipe.toml"), save=False).result()


# ------------------------------------------------------------------ recipes of others


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module on the path that leaves a mark when it is imported."""
    name = "guided_trap"
    (tmp_path / f"{name}.py").write_text(
        f"open({str(tmp_path / 'mark')!r}, 'w').close()\n"
        "from tests.generic.outside import Warm as Trap\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("verb", ["edit", "generate", "caption"])
def test_a_picture_cannot_have_a_module_imported(
    trap: str, verb: str, tmp_path: Path, guided_cli: Callable
) -> None:
    key = {"edit": "prompt", "generate": "prompts", "caption": "images"}[verb]
    recipe = f'task = "{verb}"\n{key} = ["a"]\n[[loss]]\nkind = "{trap}:Trap"\n'
    info = PngInfo()
    info.add_itxt("guided.recipe", recipe)
    info.add_itxt("guided.lineage", '{"version": 1, "picture": {"id": "1", "name": "p.png"}}')
    picture = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(picture, pnginfo=info)
    past = studio.load_run(picture)
    assert any(
        f"run code of the module {trap} (the loss {trap}:Trap)" in w for w in past.consent_requests
    )
    with pytest.raises(UsageError, match=f"run code of the module {trap}"):
        studio.rerun(picture)
    for words in (("show", picture), ("rerun", picture)):
        guided_cli(*words)
    assert trap not in sys.modules
    assert not (tmp_path / "mark").exists()


def test_to_plan_and_check_a_recipe_imports_no_module_of_it(
    trap: str, tmp_path: Path, guided_cli: Callable
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f'task = "edit"\nprompt = ["a"]\n[[loss]]\nkind = "{trap}:Trap"\n')
    assert guided_cli("check", file).status in (0, 1)
    assert not (tmp_path / "mark").exists()
