"""``guided edit`` by the methods of diffusion, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guided.core import lineage
from guided.core.images import to_tensor
from guided.core.run import drain
from guided.core.seeds import Seeds
from guided.editing import EDITORS
from guided.editing.base import Editor, EditState, Sources, stepped
from guided.editing.denoising import DenoisingEditor
from guided.editing.directional import Directional
from guided.editing.p2p import weighted
from guided.editing.text_diff import reach_of
from guided.editing.texts import source_text
from guided.errors import CannotDo, CorruptWeights, MissingWeights, RecipeError, UsageError
from guided.generators.diffusion.source import encode_images
from guided.models import Models
from guided.recipe import Recipe
from guided.scorers.clip import ClipScorer
from guided.studio import rerun, run
from guided.tasks.edit import Options, needs
from guided.worlds.portraits.grammar.contrast_prompts import contrast_prompts_by_attribute
from guided.worlds.portraits.world import WORLD
from tests.helpers import unclip_models
from tests.helpers.small_models import write_folder
from tests.helpers.tiny_clip import write_clip

pytestmark = pytest.mark.usefixtures("shared_models")

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer
denoiser = unclip_models.denoiser


PROMPT = "a smiling person with pink hair"
METHODS = ("sdedit", "inpaint", "ddim", "ddpm", "p2p", "directional", "text-diff")


@pytest.fixture
def models(denoiser: Path, bundle: Path) -> Models:
    named = {"denoiser": f"local-dir:{denoiser}", "scorer": f"local-dir:{bundle}"}
    return Models(named, named, "cpu", world_name="portraits", draws="denoiser")


def editor_of(method: str, **options: Any) -> Editor:
    editor: Editor = EDITORS.load(method)(**options)
    return editor


def sources_of(images: torch.Tensor, models: Models, first: int = 0, neutral: str = "a dog") -> Any:
    return Sources(list(images.split(1)), models, Seeds.of(first, len(images)), neutral=neutral)


def started(editor: Editor, sources: Sources) -> EditState:
    return drain(stepped(editor.start(sources)))


def rendered(
    editor: Editor, state: EditState, prompts: list[str], strength: float = 1.0
) -> torch.Tensor:
    return drain(stepped(editor.render(state, prompts, strength)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, shape in (("tall", (48, 40, 3)), ("square", (32, 32, 3))):
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(folder / f"{name}.png")
    for name, shape in (("tall-mask", (48, 40)), ("mask", (32, 32)), ("odd", (30, 33))):
        mask = np.zeros(shape, np.uint8)
        mask[14:24, 6:20] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    for name, value in (("none", 0), ("all", 255)):
        Image.fromarray(np.full((32, 32), value, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def edit(
    denoiser: Path, bundle: Path, files: Path, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    def call(**options: Any) -> dict[str, Any]:
        data: dict[str, Any] = {
            "task": "edit", "images": [str(files / "square.png")], "prompt": [PROMPT],
            "denoiser": f"local-dir:{denoiser}", "scorer": f"local-dir:{bundle}", "device": "cpu",
            "denoise_steps": 4, "out": str(tmp_path / "out"), **options,
        }  # fmt: skip
        return run(Recipe.of(data, "test")).result().answer

    return call


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "inpaint"])
def test_a_method_edits_any_pictures_by_any_prompts(
    method: str, edit: Callable[..., Any], files: Path
) -> None:
    images = [str(files / "tall.png"), str(files / "square.png")]
    answer = edit(method=method, images=images, prompt=[PROMPT, "a red cat"], batch=3)
    rows = answer["results"]
    assert [row["file"] for row in rows] == [each for each in images for _ in range(2)]
    assert [row["prompt"] for row in rows] == [PROMPT, "a red cat"] * 2
    found = [pixels(row["image"]) for row in rows]
    assert all(each.shape == (32, 32, 3) for each in found)
    assert len({each.tobytes() for each in found}) == 4
    for row in rows:
        assert row["method"] == method
        assert {"clip_before", "clip_after", "clip_gain", "agrees", "change"} <= set(row["metrics"])
        known = lineage.read(Path(row["image"]))
        assert known is not None
        assert known.picture.note["prompt"] == row["prompt"]


def test_the_same_bits_again_and_a_source_at_strength_0(
    edit: Callable[..., Any], files: Path, tmp_path: Path
) -> None:
    (row,) = edit(method="p2p", strip=True, sweep=[0.0, 0.5], reweight=["pink=2"])["results"]
    repeated = rerun(tmp_path / "out", out=str(tmp_path / "again")).result()
    assert (pixels(repeated.answer["results"][0]["image"]) == pixels(row["image"])).all()
    assert pixels(row["strip"]).shape[1] >= 64
    sheet = pixels(row["sweep"])
    gap = (sheet.shape[0] - 32) // 2
    inside = sheet[gap : gap + 32, gap : gap + 32]
    assert (inside == pixels(files / "square.png")).all()
    (still,) = edit(method="ddpm", strength=0, out=str(tmp_path / "still"))["results"]
    assert (pixels(still["image"]) == pixels(files / "square.png")).all()


@pytest.mark.parametrize("method", ["inpaint", "ddpm", "directional"])
def test_outside_a_mask_every_bit_stays(method: str, edit: Callable[..., Any], files: Path) -> None:
    for source, mask in (("square", "mask"), ("tall", "tall-mask"), ("tall", "mask")):
        (row,) = edit(
            method=method, mask=str(files / f"{mask}.png"), images=[str(files / f"{source}.png")]
        )["results"]
        outside = row["metrics"]["change_outside"]  # a mask that is resized has grey edges
        assert outside < 0.02 if mask == "tall-mask" else outside == 0
        assert row["metrics"]["change"] > 0
        if source == "square":
            before, after = pixels(files / "square.png"), pixels(row["image"])
            outside = pixels(files / "mask.png") == 0
            assert (before[outside] == after[outside]).all()
            assert (before[~outside] != after[~outside]).any()


@pytest.mark.parametrize("method", ["ddim", "ddpm", "p2p"])
def test_told_what_it_shows_a_picture_is_the_autoencoders(
    method: str, models: Models, files: Path
) -> None:
    editor = editor_of(method, steps=5, cfg=1.0)
    images = to_tensor(Image.open(files / "square.png"))
    state = started(editor, sources_of(images, models, neutral=PROMPT))
    found = rendered(editor, state, [PROMPT])
    with torch.no_grad():
        wanted = models.denoiser.render({"x0": encode_images(models.denoiser.pipe, images)})
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    moved = rendered(editor, state, ["a red cat"])
    assert float((moved - wanted).abs().max()) > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_pictures_are_edited_as_if_alone(method: str, models: Models) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts, editor = ["a red cat", "a bird"], editor_of(method, steps=3)
    both = rendered(editor, started(editor, sources_of(images, models)), prompts)
    state = started(editor, sources_of(images[1:], models, 1))
    torch.testing.assert_close(rendered(editor, state, prompts[1:]), both[1:], atol=2e-3, rtol=0)


def test_a_turn_is_what_vary_makes_of_the_same_words(
    edit: Callable[..., Any], denoiser: Path, bundle: Path, files: Path, tmp_path: Path
) -> None:
    (row,) = edit(method="text-diff", sweep=[0.0, 0.5])["results"]
    data = {
        "task": "vary", "images": [str(files / "square.png")], "toward": PROMPT, "count": 1,
        "denoiser": f"local-dir:{denoiser}", "scorer": f"local-dir:{bundle}", "device": "cpu",
        "steps": 4, "out": str(tmp_path / "vary"),
    }  # fmt: skip
    (varied,) = run(Recipe.of(data, "test")).result().answer["results"]
    assert int(np.abs(pixels(row["image"]) - pixels(varied["image"])).max()) <= 1
    assert reach_of(PROMPT) == 1
    assert reach_of("a | b::-0.5") == pytest.approx(1.25**0.5)
    weighed = edit(
        method="text-diff", prompt=[f"{PROMPT} | a hat::-0.5"], out=str(tmp_path / "two")
    )
    assert (pixels(weighed["results"][0]["image"]) != pixels(row["image"])).any()


def test_directional_is_steered_by_the_difference_of_its_words(models: Models) -> None:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scorer = models.scorer

    def along(guide_scale: float) -> float:
        editor = editor_of("directional", steps=6, cfg=1.0, guide_scale=guide_scale)
        found = rendered(editor, started(editor, sources_of(images, models)), ["a red cat"])
        with torch.no_grad():
            told = scorer.embed_texts(["a red cat", "a dog"])
            moved = scorer.embed_images(found) - scorer.embed_images(images)
        return float((moved * (told[:1] - told[1:])).sum())

    assert along(1.0) > along(0.0) + 1e-3


def test_without_other_models_directional_looks_through_the_latent_scorer(
    scorer: ClipScorer,
) -> None:
    asked: list[dict[str, bool]] = []

    def latent_scorer(*given: Any, **how: bool) -> str:
        asked.append(how)
        return "student"

    def student(chosen: dict[str, str], **options: Any) -> Any:
        models = SimpleNamespace(
            scorer=scorer, latent_scorer=latent_scorer, world=WORLD, chosen=chosen, denoiser=None,
            for_losses=lambda objective: {}, once=lambda key, make: make(),
        )  # fmt: skip
        state = EditState.of(sources_of(torch.zeros(1, 3, 8, 8), models))  # type: ignore[arg-type]
        return Directional(**options).guidance(state, ["a"]).latent_scorer

    assert student({}) == "student"
    student({"denoiser": "x"})
    student({}, decode="latent")
    assert asked == [
        {"asked": False, "chosen": False},
        {"asked": False, "chosen": True},
        {"asked": True, "chosen": True},
    ]


@pytest.mark.parametrize("method", ["ddim", "ddpm", "p2p", "directional", "text-diff"])
def test_further_strengths_give_what_they_give_alone(method: str, models: Models) -> None:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    editor = editor_of(method, steps=6)
    same = started(editor, sources_of(images, models))
    for strength in (0.4, 1.0, 0.7):
        alone = rendered(editor, started(editor, sources_of(images, models)), [PROMPT], strength)
        assert torch.equal(rendered(editor, same, [PROMPT], strength), alone)


def test_auto_takes_the_least_strength_that_clip_agrees_with(edit: Callable[..., Any]) -> None:
    (row,) = edit(method="sdedit", strength="auto")["results"]
    assert row["strength"] in DenoisingEditor.tried
    assert row["metrics"]["agrees"] or row["strength"] == DenoisingEditor.tried[-1]


def test_what_a_picture_shows_instead_is_asked_of_clip(scorer: ClipScorer) -> None:
    stream = torch.Generator().manual_seed(0)
    seen = torch.nn.functional.normalize(torch.randn(24, generator=stream), dim=0)
    said = source_text(PROMPT, seen, scorer, WORLD)
    assert (
        len(contrast_prompts_by_attribute(said)) == len(contrast_prompts_by_attribute(PROMPT)) == 2
    )
    assert "a smiling" not in said
    assert "pink" not in said
    options = contrast_prompts_by_attribute("a person with pink hair")[0]
    best = options[int((scorer.embed_texts(options) @ seen).argmax())]
    assert source_text("a person with pink hair", seen, scorer, WORLD) == best
    assert source_text("a house", seen, scorer, WORLD) == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "inpaint"}, "needs --mask"),
        ({"method": "sdedit", "mask": "none"}, "black everywhere"),
        ({"method": "sdedit", "mask": "all"}, "white everywhere"),
        ({"method": "sdedit", "images": []}, "none was given"),
        ({"method": "sdedit", "prompt": []}, "What should change"),
        ({"method": "sdedit", "gif": 3}, "animated"),
        ({"method": "sdedit", "landmarks": ["1,2,3,4,5,6,7,8"]}, "whole picture"),
        ({"method": "sdedit", "strength": -1.0}, "no opposite"),
        ({"method": "sdedit", "reweight": ["pink=2"]}, "option of the method p2p, not of sdedit"),
        ({"method": "text-diff", "noise": 0.5}, "not of text-diff"),
        ({"method": "text-diff", "neutral": PROMPT}, "says what the picture shows"),
        ({"method": "p2p", "reweight": ["pink"]}, "WORD=FACTOR"),
        ({"method": "p2p", "reweight": ["zebra=2"]}, "none of the prompts"),
    ],
)
def test_bad_input_is_refused(
    options: dict[str, Any], told: str, edit: Callable[..., Any], files: Path
) -> None:
    if "mask" in options:
        options = {**options, "mask": str(files / f"{options['mask']}.png")}
    with pytest.raises((UsageError, RecipeError), match=told):
        edit(**options)


def test_only_a_model_that_is_told_pictures_turns_them(
    edit: Callable[..., Any], tmp_path: Path
) -> None:
    stock = write_folder("pixart", tmp_path / "stock")
    with pytest.raises(CannotDo, match="takes no embeddings"):
        edit(method="text-diff", denoiser=f"local-dir:{stock}")
    other = write_clip(tmp_path / "other", seed=1)
    with pytest.raises(CorruptWeights, match="embeddings of another CLIP"):
        edit(method="text-diff", scorer=f"local-dir:{other}")


def test_files_that_do_not_fit_are_reported(edit: Callable[..., Any], files: Path) -> None:
    answer = edit(method="inpaint", mask=str(files / "odd.png"))
    assert answer["results"] == []
    assert "33 x 30" in answer["errors"][0]["error"]
    images = [str(files / "square.png"), str(files / "absent.png")]
    answer = edit(method="ddim", images=images)
    assert len(answer["results"]) == 1
    assert "absent.png" in answer["errors"][0]["file"]
    with pytest.raises(MissingWeights, match="absent-denoiser"):
        edit(method="ddim", denoiser="absent-denoiser")
    assert needs(Options(method="ddim", prompt=["a"])) == ("denoiser", "scorer")
    assert weighted("a = b=1.5") == ("a = b", 1.5)
