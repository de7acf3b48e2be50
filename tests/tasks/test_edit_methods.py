from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guided.core.editing import Delta
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError, UsageError
from guided.generators.latents import read_delta
from guided.guidance.directions import channel_relevance
from guided.guidance.relevance import measured_relevance
from guided.portraits.rivals import rivals, rivals_by_fact
from guided.recipe import Recipe
from guided.studio import plan, run
from guided.tasks._edit_editors import Judgement, Towards
from guided.tasks._edit_models import EditModels
from guided.tasks._edit_options import settled
from guided.tasks._edit_rows import Texts, smallest_agreeing
from guided.tasks.base import Workbench
from guided.tasks.edit import Options
from tests.tiny_edit import write_delta, write_models


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def edit(files: dict[str, str], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def call(**options: Any) -> list[dict[str, Any]]:
        data = {"task": "edit", "steps": 3, "out": str(tmp_path / "out"), **files, **options}
        found: list[dict[str, Any]] = run(Recipe.of(data, "test")).result().answer["results"]
        return found

    return call


# ------------------------------------------------------------------ delta


def test_one_network_serves_any_prompt(edit: Callable[..., Any], tmp_path: Path) -> None:
    file = write_delta(tmp_path / "delta.safetensors")
    options = {"method": "delta", "delta": str(file), "count": 2}
    rows = edit(prompt=["a red hat", "green grass"], **options)
    assert [row["method"] for row in rows] == ["delta"] * 4
    changes = [read_delta(row["latent"]).change["w"] for row in rows]
    assert all(bool(change.any()) for change in changes)
    assert not torch.equal(changes[0], changes[1])
    assert not torch.equal(changes[0], changes[2])
    (alone,) = edit(prompt=["green grass"], seed=1, **{**options, "count": 1},
                    out=str(tmp_path / "b"))  # fmt: skip
    assert torch.allclose(read_delta(alone["latent"]).change["w"], changes[3], atol=1e-5)
    again = edit(prompt=["green grass"], strength=-1.0, **options, out=str(tmp_path / "c"))
    assert again[0]["strength"] == -1


def test_a_mapper_of_another_scorer_or_generator(edit: Callable[..., Any], tmp_path: Path) -> None:
    other = write_delta(tmp_path / "wide.safetensors", embed=30)
    with pytest.raises(CannotDo, match="features of 30 numbers; those of the scorer"):
        edit(prompt=["a hat"], method="delta", delta=str(other))
    larger = write_delta(tmp_path / "rows.safetensors", rows=12)
    with pytest.raises(ShapeError, match="codes must have the shape"):
        edit(prompt=["a hat"], method="delta", delta=str(larger))


def test_ones_own_generator_needs_ones_own_delta_mapper(edit: Callable[..., Any]) -> None:
    for method, role in (("delta", "delta"), ("direction", "statistics")):
        with pytest.raises(UsageError, match=f"--{role} FILE") as caught:
            edit(prompt=["a hat"], method=method)
        assert "kit's generator" in str(caught.value)


def test_measured_directions_serve_the_method_direction(
    edit: Callable[..., Any], files: dict[str, str], tmp_path: Path
) -> None:
    models = models_of(files)
    generator = models.generator
    start = generator.in_space(generator.start(Seeds.of(0, 2)), "s")
    statistics = [(code.mean(0), 0.3 + code.std(0)) for code in start.values()]
    movable = generator.movable("s")
    moves = measured_relevance(
        generator.render, models.scorer.embed_images, start, statistics, movable, batch=7
    )
    steps: list[Any] = []
    while True:
        try:
            steps.append(next(moves))
        except StopIteration as end:
            relevance = end.value
            break
    assert len(steps) == len(movable)
    channels = sum(start[name].shape[1] for name in movable)
    assert relevance.shape == (channels, 24)
    assert torch.allclose(relevance.norm(dim=1), torch.ones(channels), atol=1e-4)
    first = {name: code.clone() for name, code in start.items()}
    ends = []
    for sign in (-1, 1):
        first["s_00"][:, 3] = statistics[0][0][3] + sign * 5 * statistics[0][1][3]
        ends.append(models.scorer.embed_images(generator.render(first)))
    wanted = channel_relevance(torch.stack(ends, dim=1)[None])[0]
    assert torch.allclose(relevance[3], wanted, atol=1e-4)
    with pytest.raises(ShapeError, match="statistics do not fit the code"):
        next(measured_relevance(generator.render, models.scorer.embed_images, start,
                                statistics[2:], movable))  # fmt: skip
    save_file({"relevance": relevance}, tmp_path / "directions.safetensors")
    (row,) = edit(prompt=["a hat"], method="direction", beta=0.01,
                  statistics=str(tmp_path / "directions.safetensors"))  # fmt: skip
    assert row["method"] == "direction"
    assert any(bool(leaf.any()) for leaf in read_delta(row["latent"]).change.values())


def test_the_plan_names_the_delta_mapper() -> None:
    recipe = Recipe.of({"task": "edit", "method": "delta", "prompt": ["a hat"]}, "test")
    assert "delta" in [need.role for need in plan(recipe).needs]
    for kit, known in (("portraits", True), ("photo", False)):
        plain = Recipe.of({"task": "edit", "kit": kit, "prompt": ["a hat"]}, "test")
        assert ("delta" in [need.role for need in plan(plain).needs]) is known


def test_auto_takes_the_mapper_where_there_is_one() -> None:
    kit = {"generator": "g", "delta": "d"}
    table = [{"kind": "clip"}]
    for options, roles, wanted in (
        ({}, kit, "delta"), ({}, {"generator": "g"}, "optimise"),
        ({"generator": "own.pt"}, kit, "optimise"), ({"loss": table}, kit, "optimise"),
        ({"generator": "own.pt", "delta": "own.safetensors"}, {}, "delta"),
        ({"method": "optimise"}, kit, "optimise"),
    ):  # fmt: skip
        assert settled(Options.model_validate(options), roles).method == wanted


# ------------------------------------------------------------------ refine


def test_a_search_begins_at_the_mapper_s_change(edit: Callable[..., Any], tmp_path: Path) -> None:
    file = write_delta(tmp_path / "delta.safetensors")
    options = {"prompt": ["a red hat", "green grass | a hat::-0.5"], "delta": str(file), "count": 2}
    changes = {}
    for method, more in (("delta", {}), ("refine", {"refine_rate": 1e-9, "refine_steps": 2}),
                         ("longer", {"refine_steps": 12})):  # fmt: skip
        name = "delta" if method == "delta" else "refine"
        rows = edit(method=name, out=str(tmp_path / method), **more, **options)
        assert {row["method"] for row in rows} == {name}
        changes[method] = torch.cat([read_delta(row["latent"]).change["w"] for row in rows])
        changes[f"{method} gain"] = torch.tensor([row["metrics"]["clip_gain"] for row in rows])
    assert torch.allclose(changes["delta"], changes["refine"], atol=1e-5)
    assert not torch.allclose(changes["delta"], changes["longer"], atol=1e-3)
    (alone,) = edit(method="refine", refine_steps=12, seed=1, out=str(tmp_path / "one"),
                    **{**options, "count": 1, "prompt": options["prompt"][1:]})  # fmt: skip
    assert torch.allclose(read_delta(alone["latent"]).change["w"], changes["longer"][3:], atol=1e-4)


# ------------------------------------------------------------------ texts


def models_of(files: dict[str, str], **kit: str) -> EditModels:
    return EditModels(Workbench(kit=kit), {k: files[k] for k in ("generator", "scorer")})


def test_directions_go_through_templates(files: dict[str, str]) -> None:
    models, seen = models_of(files), torch.nn.functional.normalize(torch.ones(2, 24), dim=1)
    one = Options(template=["{}"], neutral="a portrait")
    plain = Towards(one, models)("a red hat", seen)
    scorer = models.scorer
    wanted = scorer.embed_texts(["a red hat"]) - scorer.embed_texts(["a portrait"])
    wanted = torch.nn.functional.normalize(wanted, dim=1).expand(2, -1)
    assert torch.allclose(plain, wanted, atol=1e-5)
    many = Towards(Options(neutral="a portrait"), models)("a red hat", seen)
    assert torch.allclose(many.norm(dim=1), torch.ones(2), atol=1e-5)
    assert not torch.allclose(plain, many, atol=1e-3)
    of_no_facts = Towards(Options(template=["{}"]), models)("a dog", seen)
    plain_dog = Towards(one, models)("a dog", seen)
    assert torch.allclose(of_no_facts, plain_dog, atol=1e-6)


def test_directions_lead_from_what_a_picture_shows(files: dict[str, str]) -> None:
    models = models_of(files)
    towards, embed = Towards(Options(template=["{}"]), models), models.scorer.embed_texts
    text = "a person with pink hair"
    told, target = embed(rivals(text)), embed([text])
    found = towards(text, told[[0, 3]])
    wanted = torch.nn.functional.normalize(target - told[[0, 3]], dim=1)
    assert torch.allclose(found, wanted, atol=1e-5)
    both = "a smiling person, on a blue background"
    first, second = (embed(others) for others in rivals_by_fact(both))
    shown = first[1:2]
    near = second[(shown @ second.T).argmax(1)]
    wanted = torch.nn.functional.normalize(2 * embed([both]) - shown - near, dim=1)
    assert torch.allclose(towards(both, shown), wanted, atol=1e-5)


def test_a_prompt_competes_with_what_contradicts_it(files: dict[str, str]) -> None:
    models = models_of(files)
    judge = Judgement(models, "a portrait", ["a bald person", "a dog", "a hat | a dog::0.5"])
    counts = [len(others) for others in judge.texts.others]
    assert counts[0] > 3
    assert counts[1:] == [1, 1]
    neutral = models.scorer.embed_texts(["a portrait"])[0]
    assert torch.allclose(judge.texts.others[1][0], neutral, atol=1e-6)


def test_agreement_beats_every_other_text() -> None:
    eye = torch.eye(4)
    texts = Texts(eye[:1], [eye[1:3]])
    assert texts.agrees(0, torch.tensor([0.6, 0.5, 0.5, 0.9]))
    assert not texts.agrees(0, torch.tensor([0.6, 0.5, 0.7, 0.0]))


class _Turning:
    """A world whose picture at strength s has the features (1 - s, s)."""

    class generator:
        @staticmethod
        def render(latent: dict[str, torch.Tensor]) -> torch.Tensor:
            return latent["w"]

    class scorer:
        @staticmethod
        def embed_images(images: torch.Tensor) -> torch.Tensor:
            return torch.stack([1 - images[:, 0], images[:, 0]], dim=1)


def test_auto_takes_the_first_strength_at_which_the_answer_changes() -> None:
    eye = torch.eye(2)
    delta = Delta({"w": torch.zeros(3, 1)}, {"w": torch.tensor([[1.0], [2.0], [0.1]])}, "test")
    texts = Texts(eye[1:].expand(3, 2), [eye[:1]] * 3)
    models: Any = _Turning()
    grid = [i / 10 for i in range(1, 16)]
    assert smallest_agreeing(models, delta, texts, grid) == [0.6, 0.3, 1.5]


# ------------------------------------------------------------------ roles


def test_the_perceptual_role_of_the_kit_is_read(files: dict[str, str]) -> None:
    own = models_of(files)
    assert own.perceptual.name == f"trunk of {own.scorer.name}"
    same = models_of(files, perceptual=files["scorer"])
    assert same.perceptual.name == own.perceptual.name
    assert "scorer" in vars(same)  # loaded once, not twice
    other = models_of(files, perceptual="clip")
    assert other.perceptual.name == "trunk of clip"
    assert "scorer" not in vars(other)


def test_identity_is_told_wherever_an_embedder_is_here(
    edit: Callable[..., Any], files: dict[str, str]
) -> None:
    (row,) = edit(prompt=["a hat"], strength=0.0)
    assert row["metrics"]["identity"] == pytest.approx(1, abs=1e-4)
    models = models_of(files)
    assert not models.here("identity")
    assert not models_of(files, identity="ir-se50").here("identity")
    assert models.here("generator")
