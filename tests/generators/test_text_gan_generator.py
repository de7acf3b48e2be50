from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from guided.core.objective import BoundLoss, Loss, LossContext, Modality
from guided.core.protocols import Generator
from guided.core.seeds import Seeds
from guided.errors import CannotDo, ShapeError, UsageError
from guided.generators.text_gan import TextGan, best_of, between, load_text_gan, slerp
from guided.guidance.gan_search import GanSearch
from guided.losses.clip import Clip
from guided.losses.latent_l2 import LatentL2
from guided.nets.text_gan import TextGanShape
from guided.scorers.clip import ClipScorer
from tests.helpers.tiny_clip import bundle, scorer  # noqa: F401
from tests.helpers.tiny_text_gan import tiny_generator, write_gan


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory, scorer: ClipScorer) -> TextGan:  # noqa: F811
    return load_text_gan(write_gan(tmp_path_factory.mktemp("gan") / "my-gan", ""), scorer)


def test_it_is_a_generator(gan: TextGan) -> None:
    assert isinstance(gan, Generator)
    assert gan.name == "my-gan"
    latent = gan.start(Seeds.of(0, 3), ["a red hat"])
    images = gan.render(latent)
    assert images.shape == (3, 3, 32, 32)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert torch.allclose(latent["text"].norm(dim=1), torch.ones(3), atol=1e-5)
    assert gan.start(Seeds.of(0, 2))["text"].abs().max() == 0


def test_rows_do_not_depend_on_the_batch(gan: TextGan) -> None:
    both = gan.start(Seeds.of(4, 2), ["a red hat", "a green hat"])
    alone = gan.start(Seeds.of(5), ["a green hat"])
    assert torch.equal(both["z"][1:], alone["z"])
    assert torch.allclose(gan.render(both)[1:], gan.render(alone), atol=1e-4)


def test_other_words_keep_z(gan: TextGan) -> None:
    latent = gan.start(Seeds.of(1, 2), ["a red hat"])
    other = gan.condition(latent, ["a blue hat"])
    assert torch.equal(other["z"], latent["z"])
    assert (other["text"] - latent["text"]).abs().max() > 1e-3
    shown = gan.condition_on_images(latent, gan.render(latent))
    assert torch.allclose(shown["text"].norm(dim=1), torch.ones(2), atol=1e-5)
    mixed = gan.start(Seeds.of(1), ["a red hat | a blue hat::-0.5"])
    assert torch.allclose(mixed["text"].norm(), torch.tensor(1.0), atol=1e-5)


def test_truncation_leads_to_one_picture_a_text(
    gan: TextGan,
    scorer: ClipScorer,  # noqa: F811
) -> None:
    latent = gan.start(Seeds.of(0, 4), ["a hat"])
    spreads = []
    for psi in (0.0, 0.5, 1.0):
        images = TextGan(tiny_generator(), scorer, truncation=psi).render(latent)
        spreads.append(float((images - images.mean(0)).abs().mean()))
    assert spreads[0] < 1e-6 < spreads[1] < spreads[2]
    with pytest.raises(UsageError, match=r"truncation lies in \[0, 1\], not 1.5"):
        TextGan(tiny_generator(), scorer, truncation=1.5)


def test_wrong_latents_and_scorers_are_told(gan: TextGan, scorer: ClipScorer) -> None:  # noqa: F811
    latent = gan.start(Seeds.of(0, 2), ["a hat"])
    with pytest.raises(ShapeError, match="leaves z and text; given: z"):
        gan.render({"z": latent["z"]})
    with pytest.raises(ShapeError, match="3 prompts were given for 2 latents"):
        gan.condition(latent, ["a", "b", "c"])
    wide = TextGanShape(32, text=30, latent=8, channels=(12, 10, 8))
    with pytest.raises(CannotDo, match=r"features of 30 numbers and the CLIP .* gives 24"):
        TextGan(tiny_generator(shape=wide), scorer)


def test_slerp_keeps_length_and_ends() -> None:
    first = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    second = torch.tensor([[0.0, 2.0], [0.0, 3.0], [2.0, 2.0]])
    half = slerp(first, second, torch.full((3,), 0.5))
    root = 2**0.5
    assert torch.allclose(half, torch.tensor([[root, root], [root, root], [1.5, 1.5]]), atol=1e-5)
    assert torch.allclose(slerp(first, second, torch.zeros(3)), first, atol=1e-5)
    axis, quarter = torch.tensor([[1.0, 0.0]]), torch.tensor([0.25])
    assert torch.allclose(slerp(axis, 3 * axis, quarter), 1.5 * axis)
    assert torch.allclose(slerp(axis, -axis, quarter), 0.5 * axis)  # through the middle
    assert torch.allclose(slerp(first, second, torch.ones(3)), second, atol=1e-5)


def test_a_way_begins_and_ends_at_its_stations(gan: TextGan) -> None:
    first, second = (gan.start(Seeds.of(i), [text]) for i, text in ((0, "a hat"), (9, "grass")))
    way = between(first, second, [0, 0.25, 1])
    images = gan.render(way)
    assert torch.allclose(images[:1], gan.render(first), atol=1e-4)
    assert torch.allclose(images[2:], gan.render(second), atol=1e-4)
    assert torch.allclose(way["text"][1], 0.75 * first["text"][0] + 0.25 * second["text"][0])
    with pytest.raises(ShapeError, match="one row each"):
        between(gan.start(Seeds.of(0, 2), ["a"]), second, [0.5])


def test_more_tries_never_score_less(gan: TextGan) -> None:
    one = best_of(gan, Seeds.of(0, 3), ["a red hat"], 1)
    more = best_of(gan, Seeds.of(0, 3), ["a red hat"], 4)
    assert (more.cosines >= one.cosines - 1e-6).all()
    assert (more.cosines > one.cosines + 1e-6).any()
    assert one.seeds == (0, 1, 2)
    assert [seed % 3 for seed in more.seeds] == [0, 1, 2]  # rows share no seed
    assert max(more.seeds) > 4
    again = gan.start(Seeds(more.seeds), ["a red hat"])
    assert torch.equal(again["z"], more.latent["z"])
    assert torch.allclose(gan.render(again), more.images, atol=1e-5)
    with pytest.raises(UsageError, match="At least 1 try"):
        best_of(gan, Seeds.of(0), ["a"], 0)


@pytest.mark.parametrize("leaves", ["z", "text", "both"])
def test_a_search_lowers_its_objective(gan: TextGan, leaves: str) -> None:
    objective = Clip() + 0.01 * LatentL2(form="mean")
    start = gan.start(Seeds.of(0, 2), ["a red hat", "grass"])
    search = GanSearch(
        generator=gan, scorer=gan.scorer, objective=objective, leaves=leaves, steps=12, rate=0.1
    )  # type: ignore[arg-type]
    moves = search.run(start, ["a red hat", "grass"])
    seen = []
    while True:
        try:
            seen.append(next(moves))
        except StopIteration as end:
            found = end.value
            break
    assert len(seen) == 12
    scores = [
        (gan.scorer.embed_images(gan.render(each)) * start["text"]).sum(1)
        for each in (start, found)
    ]
    assert (scores[1] > scores[0]).all()
    for name in ("z", "text"):
        moved = not torch.equal(found[name], start[name])
        assert moved == (leaves in (name, "both"))
    with pytest.raises(ShapeError, match="1 prompts were given for 2 latents"):
        next(search.run(start, ["a"]))


def test_files_without_weights_are_told(tmp_path: Path, scorer: ClipScorer) -> None:  # noqa: F811
    file = write_gan(tmp_path, "")
    file.unlink()
    with pytest.raises(Exception, match=r"model\.safetensors"):
        load_text_gan(file, scorer)


@dataclass(frozen=True)
class FromOrigin(Loss):
    """The squared length of z, a row."""

    modality: ClassVar[Modality] = "latent"

    def bind(self, scene: LossContext) -> BoundLoss:
        return lambda draft: draft.latent["z"].square().sum(1)


class Blank:
    """A generator whose pictures nobody looks at."""

    def render(self, latent: dict[str, torch.Tensor]) -> torch.Tensor:
        raise AssertionError("never rendered")


def test_a_search_returns_the_best_it_saw_row_by_row() -> None:
    """Steps so long that one row only gets worse and the other passes its best on the way."""
    start = {"z": torch.tensor([[1e-3, 1e-3], [4.5, 4.0]]), "text": torch.ones(2, 4) / 2}
    search = GanSearch(
        generator=Blank(), scorer=None, objective=1.0 * FromOrigin(), leaves="z", steps=9, rate=1.0
    )  # type: ignore[arg-type]
    seen, moves = [start["z"]], search.run(start, ["a", "b"])
    while True:
        try:
            step = next(moves)
        except StopIteration as end:
            found = end.value
            break
        seen.append(step.draft.latent["z"])
    path = torch.stack(seen)
    least = path.square().sum(2).argmin(0)
    assert int(least[0]) == 0
    assert 0 < int(least[1]) < 9
    assert torch.equal(found["z"], path[least, torch.arange(2)])
    assert torch.equal(found["text"], start["text"])
