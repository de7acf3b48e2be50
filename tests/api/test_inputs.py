"""What the verbs take from Python: one thing for a list of one, pictures in memory, numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

import numpy as np
import pytest
import torch
from PIL import Image

import guided as g
from guided import studio
from guided.api import IMAGES
from guided.recipe import KINDS, Recipe, task_options
from guided.tasks import task_names
from tests.helpers.tiny_clip import write_clip

FORMS = ("path", "PIL", "array", "floats", "tensor", "batch of one", "bytes", "stream")
FIELDS = [(verb, key) for verb in task_names() for key in task_options(verb).model_fields]
LISTS = [
    (verb, key)
    for verb, key in FIELDS
    if get_origin(task_options(verb).model_fields[key].annotation) is list and key != "loss"
]


def forms_of(file: Path) -> dict[str, Any]:
    image = Image.open(file).convert("RGB")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    return dict(
        zip(
            FORMS,
            [file, image, array, array / 255, tensor, tensor[None] / 255, file.read_bytes(),
             io.BytesIO(file.read_bytes())],
            strict=True,
        )
    )  # fmt: skip


class Started(Exception):
    """A verb was started with this recipe and these pictures."""

    def __init__(self, recipe: Recipe, given: Mapping[str, Image.Image]) -> None:
        self.recipe, self.given = recipe, given


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(recipe: Recipe, *, given: Mapping[str, Image.Image], **_: Any) -> None:
        raise Started(recipe, given)

    def started(verb: str, **options: Any) -> Started:
        needed = {n: "x" for n, f in task_options(verb).model_fields.items() if f.is_required()}
        with pytest.raises(Started) as error:
            getattr(g, verb)(**{**needed, **options})
        return error.value

    monkeypatch.setattr(studio, "run", run)
    return started


@pytest.fixture
def face(tmp_path: Path) -> Path:
    colors = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(colors).save(tmp_path / "face.png")
    return tmp_path / "face.png"


@pytest.mark.parametrize(("verb", "key"), LISTS)
def test_one_thing_is_a_list_of_one(start: Any, verb: str, key: str) -> None:
    kind = task_options(verb).model_fields[key].annotation
    one: Any = 64 if kind in (list[float], list[int]) else "hat.png"
    value = getattr(start(verb, **{key: one}).recipe.options, key)
    assert [one] == [str(each) if isinstance(each, Path) else each for each in value]


def test_one_thing_is_a_list_of_one_in_tables_too(start: Any) -> None:
    recipe = start("edit", method="direction", direction={"template": "a {}"}).recipe
    assert recipe.options.direction.template == ["a {}"]


def test_what_a_folder_gives_is_a_list(start: Any, face: Path) -> None:
    options = start("score", images=face.parent.glob("*.png"), text="x").recipe.options
    assert options.images == [str(face)]


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize(("verb", "key"), [(verb, key) for verb, key in FIELDS if key in IMAGES])
def test_every_option_for_pictures_takes_them_in_memory(
    start: Any, face: Path, verb: str, key: str, form: str
) -> None:
    error = start(verb, **{key: forms_of(face)[form]})
    (image,) = error.given.values()
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(face)))
    value = getattr(error.recipe.options, key)
    assert [str(v) for v in (value if isinstance(value, list) else [value])] == list(error.given)


def test_the_options_for_pictures_are_options_that_read() -> None:
    assert {KINDS[key] for key in IMAGES} == {"read", "either"}
    assert {key for _, key in FIELDS} >= IMAGES


def test_a_picture_where_none_is_meant_is_refused(face: Path) -> None:
    for given in (Image.new("RGB", (4, 4)), face.read_bytes()):
        with pytest.raises(g.UsageError, match=r"text was given a .*Pictures go to: .*images"):
            g.score(face, text=given)
    with pytest.raises(g.ImageError, match="list"):
        g.score(np.zeros((2, 8, 8, 3), np.uint8), text="x")


def test_numbers_of_arrays_are_numbers(start: Any) -> None:
    options = start(
        "search", query="x", weight=np.array([0.5, 2.0]), top=np.int64(3)
    ).recipe.options
    assert (options.weight, options.top) == ([0.5, 2.0], 3)
    assert start("score", text="x", seed=torch.tensor(7)).recipe.seed == 7


def test_every_form_of_a_picture_has_one_score(face: Path, tmp_path: Path) -> None:
    forms = list(forms_of(face).values())
    clip = f"local-dir:{write_clip(tmp_path / 'clip')}"
    answer = g.score(forms, text="a hat", scorer=clip, device="cpu", kit="photo").result().answer
    scores = [row["scores"]["a hat"] for row in answer["results"]]
    assert len(scores) == len(forms)
    assert scores == pytest.approx([scores[0]] * len(forms), abs=1e-6)
