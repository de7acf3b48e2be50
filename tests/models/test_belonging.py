"""Parts that do not belong together are refused, by the hash of the CLIP or by width."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guided.errors import CannotDo, CorruptWeights
from guided.models import Models
from guided.models.belonging import check_directions, check_latent_scorer
from guided.zoo.belonging import check_same
from guided.zoo.folders import SHIPPED
from tests.helpers import small_own
from tests.helpers.small_unclip import write_prior
from tests.helpers.tiny_clip import write_clip
from tests.helpers.tiny_edit import write_delta
from tests.helpers.tiny_text_gan import write_gan


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A CLIP with all that learnt from it, another CLIP, and a prior of that one."""
    root = tmp_path_factory.mktemp("parts")
    clip, other = write_clip(root / "clip"), write_clip(root / "other", seed=1)
    autoencoder = small_own.write_autoencoder(root / "vae")
    return {
        "scorer": clip,
        "other": other,
        "denoiser": small_own.write_denoiser(root / "denoiser", autoencoder, clip),
        "prior": write_prior(root / "prior", small_own.clip(clip).fingerprint),
        "foreign": write_prior(root / "foreign", small_own.clip(other).fingerprint),
        "text_gan": write_gan(root / "gan", f"local-dir:{clip}"),
        "wide": write_gan(root / "wide", f"local-dir:{clip}", text=20),
        "delta": write_delta(root / "delta.safetensors"),
        "narrow": write_delta(root / "narrow.safetensors", embed=20),
    }


def models(files: dict[str, Path], **chosen: str) -> Models:
    roles = ("scorer", "denoiser", "prior", "text_gan", "delta")
    kit = {role: str(files[role]) for role in roles}
    return Models(kit, {role: str(files[name]) for role, name in chosen.items()}, "cpu")


def test_what_belongs_together_is_loaded_once(files: dict[str, Path]) -> None:
    run = models(files)
    assert run.denoiser_of_images is run.denoiser
    assert run.unclip is run.unclip
    assert run.text_gan()[1] is run.scorer_named(f"local-dir:{files['scorer']}")
    assert run.delta.embed == run.scorer.width
    shared = run.choosing({"prior": str(files["prior"])})
    assert shared.denoiser is run.denoiser


@pytest.mark.parametrize(
    ("role", "chosen", "error", "says"),
    [
        ("denoiser_of_images", {"scorer": "other"}, CorruptWeights, "embeddings of another CLIP"),
        ("unclip", {"prior": "foreign"}, CorruptWeights, "another CLIP than the decoder takes"),
        ("delta", {"delta": "narrow"}, CannotDo, "features of 20 numbers"),
    ],
)
def test_foreign_parts_are_refused(
    files: dict[str, Path], role: str, chosen: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        getattr(models(files, **chosen), role)


def test_a_gan_of_other_features_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(CannotDo, match="listens to features of 20 numbers"):
        models(files, text_gan="wide").text_gan()


def test_directions_of_other_features_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    run = models(files)
    file = tmp_path / "directions.safetensors"
    save_file({"relevance": torch.zeros(5, run.scorer.width + 1)}, file)
    with pytest.raises(CannotDo, match="made with another CLIP"):
        _ = run.choosing({"directions": str(file)}).directions
    save_file({"relevance": torch.zeros(5, run.scorer.width)}, file.with_name("fit.safetensors"))
    fit = run.choosing({"directions": str(file.with_name("fit.safetensors"))}).directions
    assert fit.shape == (5, run.scorer.width)


def test_a_latent_scorer_of_another_clip_is_passed_over_unless_asked_for(
    files: dict[str, Path],
) -> None:
    run = models(files).choosing({"latent_scorer": str(SHIPPED / "latent_scorer")})
    scorer: Any = run.scorer
    assert run.latent_scorer(run.denoiser, scorer, asked=False, chosen=False) is None
    with pytest.raises(CorruptWeights, match="learnt from another CLIP than the one that guides"):
        run.latent_scorer(run.denoiser, scorer, asked=True, chosen=False)


def test_equal_hashes_belong_together() -> None:
    check_same("The part", "a" * 64, "a" * 64, "")
    with pytest.raises(CorruptWeights, match=r"^The part: a{16}\.\.\., not b{16}\.\.\.\. Do it\.$"):
        check_same("The part", "a" * 64, "b" * 64, "Do it.")


def test_losses_get_the_models_of_the_roles_they_need(files: dict[str, Path]) -> None:
    run = models(files)
    assert run.of_roles(["scorer"]) == {"scorer": run.scorer}
    with pytest.raises(CannotDo, match="No identity is named"):
        run.of_roles(["identity"])
    with pytest.raises(CannotDo, match="no model in the role 'device_name'"):
        run.of_roles(["device_name"])


@pytest.mark.parametrize(
    ("made", "width", "message"),
    [
        (8, 24, "reads 4 channels; the model 'sd' makes 8"),
        (4, 20, "features of 24 numbers; those of the scorer 'clip' have 20"),
        (4, 24, ""),
    ],
)
def test_a_scorer_of_latents_fits_model_and_scorer(made: int, width: int, message: str) -> None:
    student: Any = SimpleNamespace(net=SimpleNamespace(shape={"channels": 4, "features": 24}))
    vae = SimpleNamespace(config=SimpleNamespace(latent_channels=made))
    model: Any = SimpleNamespace(name="sd", pipe=SimpleNamespace(vae=vae))
    scorer: Any = SimpleNamespace(name="clip", width=width)
    if not message:
        check_latent_scorer(student, model, scorer)
        return
    with pytest.raises(CannotDo, match=message):
        check_latent_scorer(student, model, scorer)


def test_statistics_of_another_width_are_refused_by_name() -> None:
    scorer: Any = SimpleNamespace(name="clip", width=24)
    check_directions(torch.zeros(6, 24), scorer, "s.safetensors")
    with pytest.raises(CannotDo, match=r"s\.safetensors are 20 wide, the scorer 'clip' 24"):
        check_directions(torch.zeros(6, 20), scorer, "s.safetensors")
