from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError, UsageError
from guided.generators.latents import read_delta
from guided.guidance.directions import channel_relevance
from guided.guidance.relevance import measured_relevance
from guided.models import Models
from guided.recipe import Recipe
from guided.studio import plan, run
from guided.tasks._edit_options import resolve_method
from guided.tasks.edit import Options
from tests.helpers.tiny_edit import write_delta, write_models


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def edit(files: dict[str, str], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def call(**options: Any) -> list[dict[str, Any]]:
        steps = {"steps": 3} if options.get("method", "optimise") == "optimise" else {}
        data = {"task": "edit", **steps, "out": str(tmp_path / "out"), **files, **options}
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
        assert resolve_method(Options.model_validate(options), roles).method == wanted


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


def models_of(files: dict[str, str], **kit: str) -> Models:
    named = {k: files[k] for k in ("generator", "scorer")}
    return Models({"generator": named["generator"], **kit}, named, world_name="portraits")


# ------------------------------------------------------------------ roles


def clips(models: Models) -> list[str]:
    """The references of the CLIPs that were loaded."""
    return [key[1] for key in models.loaded if key[0] == "scorer"]


def test_the_perceptual_role_of_the_kit_is_read(files: dict[str, str]) -> None:
    own = models_of(files)
    assert own.perceptual.name == f"trunk of {own.scorer.name}"
    same = models_of(files, perceptual=files["scorer"])
    assert same.perceptual.name == own.perceptual.name
    assert clips(same) == [files["scorer"]]  # loaded once, not twice
    other = models_of(files, perceptual="clip")
    assert other.perceptual.name == "trunk of clip"
    assert clips(other) == ["clip"]


def test_identity_is_told_wherever_an_embedder_is_here(
    edit: Callable[..., Any], files: dict[str, str]
) -> None:
    (row,) = edit(prompt=["a hat"], strength=0.0)
    assert row["metrics"]["identity"] == pytest.approx(1, abs=1e-4)
    models = models_of(files)
    assert not models.has("identity")
    assert not models_of(files, identity="ir-se50").has("identity")
    assert models.has("generator")
