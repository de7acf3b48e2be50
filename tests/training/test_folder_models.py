"""Every model of one's own: 64 emoji with captions, from the folder to the verbs that use it."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from guided.cli import main
from guided.errors import CannotDo
from guided.generators.e4e import load_inverter
from guided.generators.stylegan2 import load_stylegan2
from guided.training.objective import TrainingContext
from guided.training.objectives.clip import ClipObjective, ClipSettings
from tests.helpers.tiny_edit import write_models
from tests.helpers.tiny_training import run

ROOT = Path(__file__).parents[2]
EMOJI = ROOT / "tests" / "golden" / "emoji"
#: What makes each recipe small enough for a test, besides its number of samples.
SMALL: dict[str, tuple[int, list[str]]] = {
    "clip_folder": (320, [
        "settings.embed=32", "settings.vision.image_size=32", "settings.vision.width=8",
        "settings.vision.layers=[1, 1, 1, 1]", "settings.vision.head_width=32",
        "settings.text.width=32", "settings.text.heads=2", "settings.text.layers=1",
        "settings.text.context_length=16", "settings.vocabulary=400",
    ]),
    "autoencoder_folder": (320, [
        "settings.size=32", "settings.widths=[8, 16]", "settings.channels=4", "settings.groups=2",
        "settings.tiny=8", "settings.tiny_blocks=[1, 1]",
    ]),
    "denoiser_folder": (640, [
        "settings.vae={work}/autoencoder_folder", "settings.scorer=local-dir:{work}/clip_folder",
        "settings.width=16", "settings.heads=2", "settings.layers=1", "settings.image_tokens=2",
    ]),
    "prior_folder": (640, [
        "settings.scorer={work}/clip_folder", "settings.width=16", "settings.heads=2",
        "settings.layers=1", "settings.words=16",
    ]),
    "latent_scorer_folder": (320, [
        "settings.denoiser={work}/denoiser_folder", "settings.width=16", "settings.layers=1",
        "settings.slope=0.5", "settings.frozen_precision=fp32",
    ]),
    "language_folder": (320, [
        "settings.vocabulary=400", "settings.positions=32", "settings.width=16",
        "settings.layers=1", "settings.heads=2",
    ]),
}  # fmt: skip


def train(name: str, work: Path) -> int:
    """``guided train NAME.toml --data EMOJI`` at a size for tests; its exit status."""
    samples, own = SMALL[name]
    sets = [
        f"samples={samples}", "minutes=900", "batch=16", "lr=5e-3", "warmup=0", "ema=48",
        "threads=1", "nice=0", "monitor_samples=0", "report_steps=1", "prefetch=0",
        "precision=fp32", f"work={work}", f"pools={work}/pools",
        *(each.format(work=work) for each in own),
    ]  # fmt: skip
    words = [word for each in sets for word in ("--set", each)]
    recipe = ROOT / "recipes" / "train" / f"{name}.toml"
    return main(["train", str(recipe), "--data", str(EMOJI), *words, "--json", "--quiet"])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all six trainings."""
    here = tmp_path_factory.mktemp("emoji")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for constant, value in (("MADE", 4), ("STEPS", 2), ("MONITOR_COUNT", 8)):
            patch.setattr(f"guided.training.objectives.denoiser.{constant}", value)
        for name in SMALL:
            assert train(name, here / "work") == 0, name
    return here / "work"


def ask(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    """A verb's answer."""
    capsys.readouterr()
    assert main([*map(str, words), "--json", "--quiet"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_goes_down_and_the_card_says_what_it_is_of(work: Path, name: str) -> None:
    with (work / name / "losses.csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    few = len(losses) // 4
    assert sum(losses[-few:]) < 0.95 * sum(losses[:few])
    card = tomllib.loads((work / name / "card.toml").read_text("utf-8"))
    assert "64 images with 127 captions of the user's own; 16 images held out" in card["notes"]
    assert card["licence"] == "unknown"
    assert "portrait" not in card["notes"]


@pytest.fixture
def kit(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kit of those models; parts.json names the autoencoder wherever one stands."""
    roles = {
        "scorer": f"local-dir:{work}/clip_folder", "denoiser": f"{work}/denoiser_folder",
        "prior": f"{work}/prior_folder", "latent_scorer": f"{work}/latent_scorer_folder",
        "language": f"local-dir:{work}/language_folder", "vae": f"{work}/autoencoder_folder",
    }  # fmt: skip
    lines = ['about = "Emoji."', "[roles]", *(f'{role} = "{name}"' for role, name in roles.items())]
    (tmp_path / "emoji.toml").write_text("\n".join(lines), "utf-8")
    monkeypatch.setattr("guided.zoo.kits.KITS", tmp_path)
    monkeypatch.chdir(tmp_path)
    return "emoji"


@pytest.mark.parametrize(
    "words",
    [
        ("--method", "diffusion"),
        ("--method", "unclip"),
        ("--method", "diffusion", "--guide", "red", "--decode", "latent"),
    ],
    ids=["by text", "by the prior's embedding", "guided by the latent scorer"],
)
def test_the_diffusion_model_generates(
    kit: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ask(
        capsys, "generate", "a red apple", *words, "--steps", "2", "--count", "1", "--kit", kit
    )
    assert Path(answer["results"][0]["image"]).is_file()


def test_the_language_model_writes_captions(kit: str, capsys: pytest.CaptureFixture[str]) -> None:
    image, words = EMOJI / "red-apple.png", ("--mode", "fuse", "--beams", "2", "--kit", kit)
    answer = ask(capsys, "caption", image, *words)
    assert answer["results"][0]["captions"][0]["text"]
    scores = ask(capsys, "score", image, "--text", "a red apple", "--kit", kit)
    assert -1 <= scores["results"][0]["scores"]["a red apple"] <= 1


def test_an_encoder_learns_to_invert_a_generator_with_a_folder(tmp_path: Path) -> None:
    models = write_models(tmp_path / "models")
    table = tomllib.loads((ROOT / "recipes/train/inverter_folder.toml").read_text("utf-8"))
    table.pop("minutes")
    small = {"widths": [8, 8, 8], "blocks": [0, 0, 0], "head": 4, "hidden": 16, "common": 64}
    _, result = run({
        **table, "data": EMOJI, "samples": 320, "batch": 16, "lr": 1e-2, "warmup": 0, "ema": 48,
        "precision": "fp32", "monitor_samples": 0, "report_steps": 1, "nice": 0, "prefetch": 0,
        "device": "cpu", "work": str(tmp_path / "work"),
        "settings": {**table["settings"], **small, **models, "frozen_precision": "fp32"},
    })  # fmt: skip
    rows = list(csv.DictReader(result.files["losses.csv"].decode().splitlines()))
    losses = [float(row["loss"]) for row in rows]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    generator = load_stylegan2(models["generator"])
    file = tmp_path / "work" / "inverter_folder" / "model.safetensors"
    code = load_inverter(file, generator.average).invert(torch.rand(1, 3, 40, 40))["w"]
    assert generator.render({"w": code}).shape == (1, 3, 32, 32)


def test_an_objective_for_folders_says_that_it_needs_one() -> None:
    settings = ClipSettings(vision={"image_size": 32}, text={"context_length": 16})
    with pytest.raises(CannotDo, match="learns from captioned images and none are given"):
        ClipObjective(settings, TrainingContext())
