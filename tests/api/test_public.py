"""``import guided as g``: sorted names, no torch, verbs that are recipes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import guided as g
from guided.tasks import task_names


def test_names_are_sorted_and_real() -> None:
    assert g.__all__ == sorted(set(g.__all__))
    assert {"Recipe", "Run", "Seeds", "open_image", *task_names()} <= set(g.__all__)
    for name in g.__all__:
        assert getattr(g, name) is not None
    assert set(g.__all__) <= set(dir(g))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = g.nothing


def test_every_error_class_is_public() -> None:
    from guided import errors

    classes = {
        n for n, c in vars(errors).items() if inspect.isclass(c) and c.__module__ == errors.__name__
    }
    assert classes <= set(g.__all__)


def test_every_loss_is_public_under_its_kind() -> None:
    from guided.core.objective import Loss

    losses = [getattr(g, name) for name in g.__all__ if inspect.isclass(getattr(g, name))]
    found = {loss for loss in losses if issubclass(loss, Loss)}
    files = {p.stem for p in Path(g.__file__).parent.joinpath("losses").glob("[a-z]*.py")}
    assert {loss.__module__.rpartition(".")[2] for loss in found} == files


@pytest.mark.parametrize(
    "code",
    [
        "import guided",
        "import guided as g; g.Recipe; g.GuidedError; g.__all__; g.open_image; g.run",
        "import guided as g; g.portraits(count=1, size=32).result()",
    ],
)
def test_no_torch_before_it_is_needed(code: str) -> None:
    code += "; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", task_names())
def test_every_verb_is_a_function_that_explains_itself(name: str) -> None:
    from guided.api import verb
    from guided.recipe import task_options
    from guided.tasks import task_help

    function = verb(name)
    assert function.__name__ == name
    assert (function.__doc__ or "").startswith(task_help(name))
    keys = set(inspect.signature(function).parameters)
    assert {"seed", "device", "kit", "out", "online", *task_options(name).model_fields} <= keys


def test_no_package_has_the_name_of_a_verb() -> None:
    folders = {path.parent.name for path in Path(g.__file__).parent.glob("*/__init__.py")}
    assert folders & set(task_names()) == set()


def test_a_verb_writes_only_into_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = g.portraits(count=2, size=32, seed=4).result()
    assert [image.size for image in result.images] == [(32, 32)] * 2
    assert [entry["file"] for entry in result.answer["portraits"]] == [
        "train-000004-32.png",
        "train-000005-32.png",
    ]
    assert list(tmp_path.iterdir()) == []
    saved = g.portraits(count=2, size=32, seed=4, out="here").result()
    assert saved.folder == tmp_path / "here"
    with Image.open(tmp_path / "here" / "train-000004-32.png") as image:
        assert image.tobytes() == result.images[0].tobytes()


def test_wrong_options_are_told() -> None:
    with pytest.raises(g.RecipeError, match=r"guided\.portraits\(\): unknown key 'cuont'"):
        g.portraits(cuont=2)
    with pytest.raises(g.UsageError, match="too many arguments; it takes no arguments by position"):
        g.portraits(2)
    with pytest.raises(g.RecipeError, match="must be a whole number"):
        g.portraits(seed="2")


def test_values_of_python_become_values_of_recipes() -> None:
    from guided.api import _bound, _Plain

    plain = _Plain()
    image = Image.new("RGB", (2, 2))
    objective = 0.5 * g.Clip("a red hat") + g.LatentL2()
    data = plain(_bound("score", (Path("a.png"), image), {"text": "x"}))
    assert data == {"images": ["a.png", "given-1.png"], "text": ["x"]}
    assert plain.given == {"given-1.png": image}
    assert _bound("score", (["a.png", "b.png"],), {})["images"] == ["a.png", "b.png"]
    losses = plain(objective)
    assert [(loss["kind"], loss["weight"]) for loss in losses] == [
        ("clip", 0.5),
        ("latent_l2", 1.0),
    ]
    assert losses[0]["text"] == "a red hat"
    assert plain(g.LatentL2())[0]["kind"] == "latent_l2"
    json.dumps(losses)


def test_a_run_is_watched_or_asked() -> None:
    run = g.portraits(count=3, size=32)
    assert [(step.index, step.total) for step in run] == [(1, 3), (2, 3), (3, 3)]
    assert len(run.result().images) == 3


def test_version_is_that_of_the_package() -> None:
    import tomllib

    table = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert table["project"]["version"] == g.__version__
