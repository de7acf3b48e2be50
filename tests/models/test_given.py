"""The user's own objects as models, in Python; recipes name them by their class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image

import guided
from guided import studio
from guided.core.device import Device
from guided.errors import CannotDo
from guided.scorers.clip import load_clip
from guided.scorers.user_model import scorer_of
from tests.helpers.tiny_clip import write_clip

TEXTS = ["a red cat", "a dog on grass"]


class Bright:
    """Embeds images by their mean colour, and texts by what colour they name."""

    size = 8

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        names = ("red", "green", "blue")
        return torch.tensor([[float(n in text) + 0.01 for n in names] for text in texts])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def red(tmp_path: Path) -> Image.Image:
    return Image.new("RGB", (24, 16), (200, 0, 0))


def scores(**options: Any) -> dict[str, float]:
    result = guided.score(kit="portraits", **options).result()
    return dict(result.answer["results"][0]["scores"])


def test_an_object_that_embeds_is_a_scorer(red: Image.Image) -> None:
    told = scores(images=red, text=["something red", "something blue"], scorer=Bright())
    assert told["something red"] == pytest.approx(1.0, abs=1e-3)
    assert told["something blue"] == pytest.approx(0.0, abs=0.02)
    labels = guided.classify(images=red, label=["red", "blue"], scorer=Bright(), cache="")
    assert labels.result().answer["results"][0]["label"] == "red"


def test_an_open_clip_model_scores_as_its_files_do(bundle: Path, red: Image.Image) -> None:
    own = load_clip(f"local-dir:{bundle}", Device("cpu"))
    loaded = load_clip(f"local-dir:{bundle}", Device("cpu"))
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    told = scores(images=red, text=TEXTS, scorer=(loaded.model, loaded.texts.tokenizer))
    assert told == scores(images=red, text=TEXTS, scorer=own)
    assert told == scores(images=red, text=TEXTS, scorer=f"local-dir:{bundle}")
    assert all(torch.equal(before[n], v) for n, v in loaded.model.state_dict().items())


def test_a_model_alone_brings_clips_own_tokenizer() -> None:
    model = open_clip.create_model("RN50", pretrained=None)
    scorer = scorer_of(model, Device("cpu"), "object:CLIP")
    assert scorer.embed_texts(["a cat"]).shape == (1, scorer.width)
    with pytest.raises(CannotDo, match=r"A Linear is no scorer.*\(model, tokenizer\)"):
        scorer_of(torch.nn.Linear(2, 2), Device("cpu"), "object:Linear")


def test_a_kept_recipe_names_the_class_and_rerun_explains_it(
    red: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    guided.score(images=red, text=["red"], scorer=Bright(), out=str(out)).result()
    assert 'scorer = "object:Bright"' in (out / studio.RECIPE_FILE).read_text(encoding="utf-8")
    with pytest.raises(CannotDo, match=r"a Python object of the class Bright.*scorer=MODEL"):
        studio.rerun(studio.load_run(out), trust=True).result()


def test_what_embeds_wrongly_is_told(red: Image.Image) -> None:
    class Wrong(Bright):
        def embed_texts(self, texts: list[str]) -> torch.Tensor:
            return torch.zeros(3)

    with pytest.raises(CannotDo, match=r"gave \[3\] for 1 inputs"):
        scores(images=red, text=["red"], scorer=Wrong())


def test_two_objects_have_two_names(red: Image.Image) -> None:
    from guided.api import _Plain

    plain, one, two = _Plain(), Bright(), Bright()
    named = plain.options({"scorer": one, "generator": two, "denoiser": one})
    assert named == {
        "scorer": "object:Bright", "generator": "object:Bright-2", "denoiser": "object:Bright",
    }  # fmt: skip
    assert plain.objects["object:Bright-2"] is two
    assert plain.options({"prior": 0.5, "scorer": None}) == {"prior": 0.5, "scorer": None}
