"""Options that a run does not use are refused or named, for every method of ``generate``."""

from __future__ import annotations

from typing import Any

import pytest

from guided.errors import UsageError
from guided.recipe import Recipe
from guided.tasks import generate
from guided.tasks._edit_options import Options as EditOptions
from guided.tasks._generate_options import Options, Shared
from guided.tasks.base import TaskContext, changed, warn_idle
from guided.tasks.edit import _warn_idle

#: A value of each key that is not its default.
GIVEN: dict[str, Any] = {
    "denoiser": "x", "scheduler": "ddim", "steps": 3, "cfg": 2.0, "negative": "x", "guide": ["x"],
    "guide_image": ["x.png"], "guide_weight": [1.0], "guide_scale": 0.5, "unit": "cfg",
    "jacobian": "exact", "decode": "vae", "every": 2, "window": [0.0, 0.5], "recurrence": 2,
    "cutouts": 2, "eta": 0.5, "loss": [{"kind": "clip"}], "gan": "x", "truncation": 0.5,
    "precision": "bf16", "best": 2, "search": 2, "search_leaves": "z", "search_rate": 0.1,
    "gif": 2, "prior": "x", "prior_steps": 3, "prior_cfg": 2.0, "tries": 3, "reread": True,
}  # fmt: skip


def _options(method: str, **more: Any) -> Options:
    return Options.model_validate({"prompts": ["a"], "method": method, **more})


def test_every_key_of_a_method_is_tried() -> None:
    assert GIVEN.keys() == Options.model_fields.keys() - Shared.model_fields.keys()
    assert changed(_options("gan", **GIVEN), GIVEN) == list(GIVEN)


@pytest.mark.parametrize("method", generate.methods())
@pytest.mark.parametrize("key", GIVEN)
def test_an_option_of_another_method_is_refused_by_name(method: str, key: str) -> None:
    own = generate._method(_options(method)).OWN
    options = _options(method, **{key: GIVEN[key]})
    if key in own:
        generate._refuse_others(options)
        return
    flag = f"--{key.replace('_', '-')} is an option of the method .*, not of {method}"
    with pytest.raises(UsageError, match=flag):
        generate.check(options, TaskContext())


def test_a_recipe_that_names_all_defaults_passes() -> None:
    for method in generate.methods():
        keys = Options.model_fields
        defaults = {
            key: keys[key].get_default() for key in GIVEN if keys[key].get_default() is not None
        }
        generate.check(_options(method, **defaults), TaskContext())


def test_a_recipe_is_kept_without_the_defaults_of_other_methods() -> None:
    recipe = Recipe.of({"task": "generate", "prompts": ["a"], "method": "gan", "best": 2})
    assert not recipe.data().keys() & {"steps", "cfg", "guide", "prior"}
    assert {"best", "truncation", "count"} <= recipe.data().keys()
    assert Recipe.loads(recipe.dumps()) == recipe
    with pytest.raises(UsageError, match="--steps is an option of"):
        generate.check(recipe.with_().options.model_copy(update={"steps": 3}), TaskContext())  # type: ignore[arg-type]
    kept = Recipe.of({**recipe.data(), "steps": 3})
    assert kept.data()["steps"] == 3


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"method": "diffusion", "cutouts": 4, "scorer": "x"}, "--scorer, --cutouts: not used"),
        ({"method": "unclip", "guide_scale": 2.0}, "--guide-scale: not used, as nothing steers"),
        ({"method": "diffusion", "cutouts": 4, "guide": ["x"]}, ""),
        ({"method": "gan", "search_rate": 0.2}, "--search-rate: not used, as nothing is searched"),
        ({"method": "gan", "search_rate": 0.2, "search": 3}, ""),
    ],
)
def test_an_option_without_the_one_it_depends_on_is_named(
    given: dict[str, Any], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = _options(**given)
    warn_idle(options, *generate._method(options).idle(options))
    assert caplog.messages == [] if not named else named in caplog.text


def test_edit_names_what_its_method_has_no_use_for(caplog: pytest.LogCaptureFixture) -> None:
    more = {"images": ["a.png"], "prompt": ["x"], "count": 3}
    _warn_idle(EditOptions.model_validate({"method": "sdedit", "paste": "difference", **more}))
    _warn_idle(EditOptions.model_validate({"method": "optimise", "denoiser": "x", "prompt": ["x"]}))
    whole, count, gan = caplog.messages
    assert whole.startswith("--paste: not used, as --method sdedit draws whole images")
    assert count.startswith("--count: not used")
    assert gan.startswith("--denoiser: not used, as --method optimise draws by a GAN")
