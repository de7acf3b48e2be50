"""What holds of every generator and scorer that tests have a tiny model of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.protocols import Generator, Scorer
from guided.core.seeds import Seeds
from guided.generators.diffusion import load_diffusion
from guided.generators.stylegan2 import load_stylegan2
from guided.generators.text_gan import load_text_gan
from guided.scorers.arcface import ArcFace
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.identity import load_identity
from tests.helpers.small_models import write_folder
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_edit import write_models
from tests.helpers.tiny_faces import write_face_network, write_generator
from tests.helpers.tiny_text_gan import write_gan

PROMPTS = ["a red hat", "a green dog", "grass"]


def text_gan(folder: Path) -> Any:
    clip = f"local-dir:{write_clip(folder / 'clip')}"
    return load_text_gan(write_gan(folder / "gan", clip), load_clip(clip))


GENERATORS: dict[str, Callable[[Path], Any]] = {
    "stylegan2": lambda folder: load_stylegan2(write_generator(folder / "stylegan2.pt")),
    "text_gan": text_gan,
    "diffusion": lambda folder: load_diffusion(write_folder("sd", folder / "sd")),
}


def arcface(folder: Path) -> Any:
    from guided.nets.irse50 import IRSE50
    from tests.helpers.tiny_faces import WIDTHS

    net = IRSE50(WIDTHS, 12)
    net.load_state_dict(torch.load(write_face_network(folder / "face.pt"), weights_only=True))
    return ArcFace(net.eval())


EMBEDDERS: dict[str, Callable[[Path], Any]] = {
    "clip": lambda folder: load_clip(f"local-dir:{write_clip(folder / 'clip')}"),
    "identity": lambda folder: load_identity(Path(write_models(folder / "all")["identity"])),
    "arcface": arcface,
}


@pytest.fixture(scope="module", params=GENERATORS)
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return GENERATORS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=EMBEDDERS)
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return EMBEDDERS[request.param](tmp_path_factory.mktemp(request.param))


def rendered(generator: Any, latent: dict[str, Tensor]) -> Tensor:
    """The images of a start; a denoiser's noise stands for a clean latent here."""
    own = {"x0": latent["noise"]} if "noise" in latent else latent
    with torch.no_grad():
        images: Tensor = generator.render(own)
    return images


def test_a_generator_renders_rows_of_images_each_by_itself(generator: Any) -> None:
    assert isinstance(generator, Generator)
    latent = generator.start(Seeds.of(3, 3), PROMPTS)
    images = rendered(generator, latent)
    assert images.shape[:2] == (3, 3)
    assert float(images.min()) >= -1e-6
    assert float(images.max()) <= 1 + 1e-6
    assert not torch.equal(images[0], images[1])
    for row in range(3):
        alone = {name: leaf[row : row + 1] for name, leaf in latent.items()}
        torch.testing.assert_close(rendered(generator, alone)[0], images[row], atol=1e-4, rtol=1e-4)


def test_a_generators_start_depends_on_its_seed_alone(generator: Any) -> None:
    together = generator.start(Seeds.of(3, 3), PROMPTS)
    again = generator.start(Seeds.of(3, 3), PROMPTS)
    for name, leaf in together.items():
        assert torch.equal(again[name], leaf)
        for row in range(3):
            alone = generator.start(Seeds.of(3 + row, 1), PROMPTS[row : row + 1])[name]
            torch.testing.assert_close(alone[0], leaf[row], atol=1e-5, rtol=1e-5)


def test_an_embedder_gives_unit_rows_with_a_gradient(embedder: Any) -> None:
    images = torch.rand(3, 3, 40, 48, generator=torch.manual_seed(2)).requires_grad_()
    rows = embedder.embed_images(images)
    assert rows.ndim == 2
    assert rows.detach().norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    alone = embedder.embed_images(images[1:2])
    torch.testing.assert_close(alone[0], rows[1], atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(rows[:, 0].sum(), images)
    assert bool(torch.isfinite(gradient).all())
    assert bool(gradient.flatten(1).any(1).all())
    flat = embedder.embed_images(torch.zeros(1, 3, 40, 40))
    assert bool(torch.isfinite(flat).all())


def test_a_scorers_texts_are_unit_rows_in_the_space_of_its_images(tmp_path: Path) -> None:
    scorer = EMBEDDERS["clip"](tmp_path)
    assert isinstance(scorer, Scorer)
    assert isinstance(scorer, ClipScorer)
    texts = scorer.embed_texts(PROMPTS)
    assert texts.shape == (3, scorer.width)
    assert texts.norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    torch.testing.assert_close(scorer.embed_texts(PROMPTS[1:2])[0], texts[1], atol=1e-5, rtol=1e-4)
