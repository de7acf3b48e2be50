"""Worlds as plug-ins: the suite that every world passes, and kits that have none."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import guided
from guided.core.device import Device
from guided.core.seeds import Seeds
from guided.core.world import NO_WORLD, NoWorld, World, contrasts, load_world, world_names
from guided.editing.base import Sources
from guided.editing.texts import ClipEditMetrics, TextDirections, source_text
from guided.errors import CannotDo, UsageError
from guided.tasks.base import TaskContext
from guided.worlds.portraits import draw as draw_portrait
from guided.worlds.portraits import sample
from guided.zoo.kits import kit_names, kit_world, load_kit
from tests.worlds import toy_world

PORTRAIT, RED = sample(5, "test"), toy_world.draw("red", "large")
#: (world, one of its images, what its reader must see of it, a prompt with facts)
WORLDS = {
    "portraits": (draw_portrait(PORTRAIT, 128), PORTRAIT.attributes, "a bald man with a red hat"),
    "squares": (RED, {"color": "red", "size": "large"}, "a large red square"),
}  # fmt: skip
#: Prompts of people with photographs, which the grammar of drawn portraits would take apart.
PHOTOGRAPHS = (
    "a photo of a bald eagle",
    "sunglasses on a table",
    "a smiling cat in the snow",
    "a green car",
    "an old man with a white beard",
)


@pytest.fixture
def worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, World]:
    """Both worlds by name; the squares as a package from elsewhere brings them."""
    info = tmp_path / "squares-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: squares\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[guided.worlds]\nsquares = tests.worlds.toy_world:WORLD\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return {name: load_world(name) for name in WORLDS}


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_recognizes_its_images_and_no_noise(worlds: dict[str, World], name: str) -> None:
    image = WORLDS[name][0]
    assert worlds[name].recognizes(image)
    pixels = torch.randint(0, 255, (96, 96, 3), dtype=torch.uint8, generator=torch.manual_seed(1))
    assert not worlds[name].recognizes(Image.fromarray(pixels.numpy()))


@pytest.mark.parametrize("name", WORLDS)
def test_contrast_prompts_change_one_fact_each(worlds: dict[str, World], name: str) -> None:
    world, text = worlds[name], WORLDS[name][2]
    facts = world.contrast_prompts(text)
    assert len(facts) >= 2
    for others in facts:
        assert others
        assert text not in others
    assert contrasts(world, text) == list(dict.fromkeys(o for others in facts for o in others))
    assert world.contrast_prompts("a house") == []


@pytest.mark.parametrize("name", WORLDS)
def test_prompts_that_a_world_cannot_show_are_named(worlds: dict[str, World], name: str) -> None:
    assert worlds[name].check_prompt(WORLDS[name][2]) == ""
    assert "'a house'" in worlds[name].check_prompt("a house")


@pytest.mark.parametrize("name", WORLDS)
def test_the_reader_of_a_world_reads_its_images(worlds: dict[str, World], name: str) -> None:
    image, attributes, _ = WORLDS[name]
    read = worlds[name].reader("", Device.pick("cpu")).attributes([image])[0]
    shown = {key: value for key, value in attributes.items() if key in read}
    assert shown
    agreeing = sum(read[key] == value for key, value in shown.items())
    assert agreeing >= 0.9 * len(shown)


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_found_by_its_name(worlds: dict[str, World], name: str) -> None:
    assert name in world_names()
    assert worlds[name].name == name
    assert load_world("") is NO_WORLD


def test_an_unknown_world_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="portraitz") as caught:
        load_world("portraitz")
    assert "portraits" in caught.value.hint


def test_kits_name_their_world() -> None:
    assert {name: kit_world(name) for name in kit_names()} == {
        "photo": "",
        "portraits": "portraits",
    }


def test_the_kit_s_world_holds_only_for_its_own_models() -> None:
    ctx = TaskContext(kit=load_kit("portraits"), world_name="portraits")
    assert ctx.world("generator", "").name == "portraits"
    assert ctx.world("generator", "stylegan2").name == "portraits"
    assert ctx.world("generator", "ffhq.pkl") is NO_WORLD
    assert TaskContext(kit=load_kit("photo")).world() is NO_WORLD


def test_without_a_world_nothing_reads_attributes() -> None:
    with pytest.raises(CannotDo, match="no world"):
        NO_WORLD.reader("reader", Device.pick("cpu"))


# ----------------------------------------------------------------- photographs have no grammar


class Listener:
    """A scorer that notes every text it is asked to embed."""

    name, width = "listener", 8

    def __init__(self) -> None:
        self.heard: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.heard += texts
        rows = [torch.randn(8, generator=torch.manual_seed(len(t) + ord(t[-1]))) for t in texts]
        return F.normalize(torch.stack(rows), dim=1)


class Models:
    """What editors ask of the models of an edit."""

    def __init__(self, world: World) -> None:
        self.scorer, self.world, self.kit = Listener(), world, dict[str, str]()
        self.known: dict[Any, Any] = {}

    def once(self, key: Any, make: Any) -> Any:
        """As the models of a run do."""
        return self.known.setdefault(key, make())


def sources(models: Any, neutral: str = "auto") -> Sources:
    return Sources([None], models, Seeds.of(0), neutral=neutral)


def _heard(prompt: str, world: World) -> list[str]:
    """The texts that direction, judgement and source of an edit ask CLIP about."""
    models: Any = Models(world)
    seen = F.normalize(torch.ones(1, 8), dim=1)
    TextDirections(sources(models), ["{}"])(prompt, seen)
    assert ClipEditMetrics(sources(models), [prompt]).texts is not None
    source_text(prompt, seen[0], models.scorer, world)
    return sorted(set(models.scorer.heard))


@pytest.mark.parametrize("prompt", PHOTOGRAPHS)
def test_without_a_world_a_prompt_is_only_set_against_a_neutral_text(prompt: str) -> None:
    assert _heard(prompt, NoWorld()) == sorted({prompt, "a photo"})


@pytest.mark.parametrize("prompt", PHOTOGRAPHS[:3])
def test_the_drawn_world_would_take_those_prompts_apart(prompt: str) -> None:
    heard = _heard(prompt, load_world("portraits"))
    assert len(heard) > 2


def test_what_the_user_says_is_shown_goes_before_any_world() -> None:
    for world in (NO_WORLD, load_world("portraits")):
        models: Any = Models(world)
        towards = TextDirections(sources(models, "a man"), ["{}"])
        towards("a bald man", F.normalize(torch.ones(1, 8), dim=1))
        assert sorted(models.scorer.heard) == ["a bald man", "a man"]


def test_nothing_outside_the_worlds_imports_one() -> None:
    root = Path(guided.__file__).parent
    outside = [p for p in root.rglob("*.py") if "worlds" not in p.relative_to(root).parts]
    assert len(outside) > 100
    imports = {
        (path.name, node.module)
        for path in outside
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guided.worlds")
    }
    assert imports == set()
