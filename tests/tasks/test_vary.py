"""``guided vary``: variations, ways to another picture, words to move towards, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from guided.core.run import drain
from guided.errors import CannotDo, CorruptWeights, UsageError
from guided.generators.diffusion.portrait_folder import load_own
from guided.recipe import Recipe
from guided.scorers.clip import ClipScorer
from guided.studio import rerun, run
from guided.tasks.base import TaskContext
from guided.tasks.vary import Options, VariationJob, needs
from tests.helpers import unclip_models
from tests.helpers.small_models import write_folder
from tests.helpers.tiny_clip import write_clip

pytestmark = pytest.mark.usefixtures("shared_models")

# Fixtures.
bundle = unclip_models.bundle
scorer = unclip_models.scorer
denoiser = unclip_models.denoiser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("one", "two"):
        picture = rng.integers(0, 255, (36, 32, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def given(denoiser: Path, bundle: Path) -> dict[str, Any]:
    return {"denoiser": f"local-dir:{denoiser}", "scorer": f"local-dir:{bundle}", "steps": 4}


@pytest.fixture
def vary(given: dict[str, Any], files: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def call(**options: Any) -> dict[str, Any]:
        data: dict[str, Any] = {
            "task": "vary", "images": [str(files / "one.png")], "device": "cpu", "count": 3,
            "out": str(tmp_path / "out"), **given, **options,
        }  # fmt: skip
        return run(Recipe.of(data, "test")).result().answer

    return call


def pixels(row: dict[str, Any]) -> np.ndarray:
    with Image.open(row["image"]) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_variations_differ_and_come_again(
    vary: Callable[..., Any], files: Path, tmp_path: Path
) -> None:
    images = [str(files / "one.png"), str(files / "two.png")]
    rows = vary(images=images, seed=5, batch=2)["results"]
    assert [row["file"] for row in rows] == [each for each in images for _ in range(3)]
    assert [row["seed"] for row in rows] == [5, 6, 7] * 2
    assert set(rows[0]) == {"file", "image", "seed"}
    assert len({pixels(row).tobytes() for row in rows}) == 6
    repeated = rerun(tmp_path / "out", out=str(tmp_path / "again")).result().answer["results"]
    assert all((pixels(a) == pixels(b)).all() for a, b in zip(rows, repeated, strict=True))
    (alone,) = vary(seed=6, count=1, out=str(tmp_path / "alone"))["results"]
    assert int(np.abs(pixels(alone) - pixels(rows[1])).max()) <= 1


def test_a_way_has_both_pictures_for_its_ends(
    vary: Callable[..., Any], given: dict[str, Any], files: Path, tmp_path: Path
) -> None:
    ends = [str(files / "one.png"), str(files / "two.png")]
    rows = vary(to=ends[1], count=4)["results"]
    assert [row["seed"] for row in rows] == [0] * 4
    still = [vary(images=[end], count=1, eta=0.0, out=str(tmp_path / Path(end).stem))
             for end in ends]  # fmt: skip
    for row, answer in ((rows[0], still[0]), (rows[-1], still[1])):
        assert int(np.abs(pixels(row) - pixels(answer["results"][0])).max()) <= 1
    options = Options(images=[Path(ends[0])], to=Path(ends[1]), count=3, **given)
    job = VariationJob.of(options, TaskContext(device_name="cpu"))
    found = [drain(job.found(Path(end))) for end in ends]  # type: ignore[arg-type,var-annotated]
    places: Any = drain(job.places(found[0]))  # type: ignore[arg-type]
    for place, end in ((places[0], found[0]), (places[-1], found[1])):
        assert torch.equal(place.image, end.image)
        assert torch.equal(place.noise, end.noise)
    torch.testing.assert_close(places[1].image.norm(dim=1), torch.ones(1))


def test_words_turn_the_embedding_by_an_angle(
    vary: Callable[..., Any], given: dict[str, Any], files: Path, scorer: ClipScorer
) -> None:
    rows = vary(toward="a person with pink hair")["results"]
    assert len({pixels(row).tobytes() for row in rows}) == 3
    options = Options(images=[files / "one.png"], toward="a red cat", source="a dog", amount=0.4,
                      count=2, **given)  # fmt: skip
    job = VariationJob.of(options, TaskContext(device_name="cpu"))
    found: Any = drain(job.found(files / "one.png"))  # type: ignore[arg-type]
    places: Any = drain(job.places(found))  # type: ignore[arg-type]
    told = scorer.embed_texts(["a red cat", "a dog"])
    aim = torch.nn.functional.normalize(told[:1] - told[1:], dim=1)
    for part, place in zip((0.2, 0.4), places, strict=True):
        turned = float((place.image * found.image).sum().acos())
        assert turned == pytest.approx(part * torch.pi / 2, abs=1e-3)
        assert float((place.image * aim).sum()) > float((found.image * aim).sum())
        assert torch.equal(place.noise, found.noise)


def test_bad_input_is_refused(vary: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="moves pictures; none was given"):
        vary(images=[], toward="a hat")
    with pytest.raises(UsageError, match="Variations are of pictures"):
        vary(images=[])
    with pytest.raises(UsageError, match="two ways"):
        vary(toward="a hat", to=str(files / "two.png"))
    with pytest.raises(UsageError, match="says what the picture"):
        vary(toward="a cat", source="a cat")
    answer = vary(images=[str(files / "absent.png"), str(files / "one.png")], count=1)
    assert len(answer["results"]) == len(answer["errors"]) == 1
    stock = write_folder("pixart", tmp_path / "stock")
    with pytest.raises(CannotDo, match="takes no embeddings"):
        vary(denoiser=f"local-dir:{stock}")
    assert needs(Options(images=[])) == ("denoiser", "scorer")


def test_embeddings_of_another_clip_are_refused_by_hash(
    vary: Callable[..., Any], denoiser: Path, scorer: ClipScorer, tmp_path: Path
) -> None:
    other = write_clip(tmp_path / "other", seed=1)
    with pytest.raises(CorruptWeights, match="embeddings of another CLIP"):
        vary(scorer=f"local-dir:{other}")
    whole = tmp_path / "whole"
    load_own(denoiser, scorer).pipe.save_pretrained(whole)
    assert len(vary(denoiser=f"local-dir:{whole}", count=1)["results"]) == 1
    index = json.loads((whole / "model_index.json").read_text())
    (whole / "model_index.json").write_text(json.dumps({**index, "scorer_sha256": "0" * 64}))
    with pytest.raises(CorruptWeights, match="embeddings of another CLIP"):
        vary(denoiser=f"local-dir:{whole}", count=1)
