"""Every loop loads what its losses need, from tables alone, and refuses what it does not offer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import guided
from guided import studio
from guided.errors import CannotDo, UsageError
from guided.recipe import Recipe
from guided.tasks import _edit_options, _generate_diffusion, _generate_gan
from guided.tasks._edit_options import Options, resolve_method
from guided.tasks._generate_options import Options as Drawing

pytestmark = pytest.mark.usefixtures("shared_models")

LOOPS: dict[str, dict[str, Any]] = {
    "optimise": {"task": "edit", "prompt": ["a hat"], "method": "optimise", "steps": 1},
    "refine": {"task": "edit", "prompt": ["a hat"], "method": "refine", "refine_steps": 1},
    "directional": {
        "task": "edit", "images": ["recipes/pictures/portrait-01.png"], "prompt": ["a hat"],
        "method": "directional", "denoise_steps": 2,
    },
    "diffusion": {"task": "generate", "prompts": ["a person with a hat"], "steps": 2},
    "unclip": {"task": "generate", "method": "unclip", "prompts": ["a person"], "steps": 2,
               "prior_steps": 1},
    "gan": {"task": "generate", "method": "gan", "prompts": ["a person"], "search": 4},
}  # fmt: skip
CAPTION = {"task": "caption", "images": ["recipes/pictures/portrait-01.png"], "length": 2}
IDENTITY = [{"kind": "clip"}, {"kind": "identity", "weight": 0.5}]


def recipe(name: str, *kinds: str) -> Recipe:
    losses = [{"kind": kind} for kind in kinds]
    return Recipe.of({**(CAPTION if name == "caption" else LOOPS[name]), "loss": losses}, "test")


@pytest.mark.parametrize("name", LOOPS)
def test_identity_works_in_every_loop_over_images(name: str) -> None:
    """With the shipped kit, whose model of that role the plan lists."""
    wanted = Recipe.of({**LOOPS[name], "loss": IDENTITY}, "test")
    roles = {need.role: need.name for need in studio.plan(wanted).needs}
    assert roles["identity"] == "identity"
    steps = list(studio.run(wanted, save=False))
    values = [step.losses["identity"] for step in steps if "identity" in step.losses]
    assert len(values) >= 1
    assert all(-1e-6 <= value <= 2 for value in values)  # 1 - cosine, rounded
    if len(values) > 1 and name != "refine":
        assert values[-1] > 0


@pytest.mark.parametrize("name", [*LOOPS, "caption"])
def test_a_loss_for_another_loop_is_refused_by_name(name: str) -> None:
    kind, offered, fits = (
        ("clip", "text", "fluency, word_clip") if name == "caption"
        else ("fluency", "image and latent", "clip, clip_delta, directional, identity")
    )  # fmt: skip
    with pytest.raises(UsageError, match=f"'{kind}' looks at .* this loop offers {offered}") as no:
        studio.run(recipe(name, kind), save=False).result()
    assert fits in (no.value.hint or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "edit", "method": "delta"}, "--method delta follows no losses"),
        ({"task": "edit", "method": "text-diff"}, "--method text-diff follows no losses"),
        ({"task": "generate", "method": "gan"}, "is for a search"),
        ({"task": "caption", "method": "fuse"}, "--method fuse follows no losses"),
    ],
)
def test_losses_are_never_left_aside_in_silence(changes: dict[str, Any], message: str) -> None:
    own = {"edit": {"prompt": ["a"]}, "generate": {"prompts": ["a"]}, "caption": CAPTION}
    given = {**own[changes["task"]], **changes, "loss": [{"kind": "word_clip"}]}
    with pytest.raises(UsageError, match=message):
        studio.run(Recipe.of(given, "test"), save=False).result()


def test_a_role_that_no_loop_fills_is_named() -> None:
    from tests.generic.outside import Warm

    class Judged(Warm):
        """Needs a judge, which is never optimised."""

        needs = ("reader",)

    with pytest.raises(CannotDo, match="in the role 'reader'; this loop has models for: identity"):
        guided.generate(["a"], steps=2, loss=Judged()).result()


def test_captions_can_be_written_by_tables() -> None:
    steps = list(studio.run(recipe("caption", "word_clip", "fluency"), save=False))
    losses = [step.losses for step in steps if "word_clip" in step.losses]
    assert losses
    assert "fluency" in losses[0]


# ------------------------------------------------------------------ sugar


def plain(tables: Any) -> list[dict[str, Any]]:
    return [table.model_dump() for table in tables]


def test_weights_of_edit_are_tables() -> None:
    def of(**options: Any) -> list[dict[str, Any]]:
        chosen = resolve_method(Options(prompt=["x"], **options), {})
        return plain(_edit_options.losses_of(chosen))

    clip = {"kind": "clip", "weight": 1.0, "preprocess": "clip"}
    assert of(method="optimise") == [clip, {"kind": "latent_l2", "weight": 0.002}]
    assert of(method="optimise", near=0, keep_identity=0.3, preprocess="styleclip") == [
        {**clip, "preprocess": "styleclip"}, {"kind": "identity", "weight": 0.3},
    ]  # fmt: skip
    assert of(near=0.0, keep_outside=3.0, mask=Path("m.png"))[1:] == [
        {"kind": "masked_l1", "weight": 3.0}
    ]
    assert of(near=0.0, keep_outside=3.0) == [clip]  # without a mask there is no outside
    assert of(method="refine", amount=0.4) == [{"kind": "clip_delta", "weight": 1.0, "amount": 0.4}]
    own = [{"kind": "identity", "weight": 2.0}]
    assert of(method="optimise", loss=own, keep_identity=1.0) == own
    assert of(method="delta") == []


def test_guides_of_generate_are_tables() -> None:
    options = Drawing(prompts=["x"], guide=["prompt", "a hat"], guide_image=[Path("a.png")],
                      guide_weight=[0.5], loss=IDENTITY)  # fmt: skip
    assert plain(_generate_diffusion.losses_of(options)) == [
        {"kind": "clip", "weight": 1.0, "text": None},
        {"kind": "clip", "weight": 1.0, "text": "a hat"},
        {"kind": "image_prompt", "weight": 1.0, "weights": [0.5]},
        {"kind": "clip", "weight": 1.0},
        {"kind": "identity", "weight": 0.5},
    ]
    assert plain(_generate_gan.losses_of(Drawing(prompts=["x"]))) == [
        {"kind": "clip", "weight": 1.0}, {"kind": "latent_l2", "weight": 0.05, "form": "mean"},
    ]  # fmt: skip


def test_the_plan_lists_the_models_of_losses() -> None:
    def roles(name: str, *kinds: str) -> set[str]:
        plan = studio.plan(recipe(name, *kinds))
        assert not plan.missing
        return {need.role for need in plan.needs}

    own = {"denoiser", "scorer", "vae"}  # the shipped denoiser reads texts with its CLIP
    assert roles("diffusion", "perceptual", "latent_l2") == {*own, "perceptual"}
    assert roles("diffusion", "latent_l2") == own
    assert roles("diffusion", "clip") == own
    assert roles("optimise", "perceptual") == {"generator", "scorer", "perceptual"}
    assert roles("directional", "identity") == {*own, "identity"}
    assert roles("gan", "identity") == {"text_gan", "scorer", "identity"}
